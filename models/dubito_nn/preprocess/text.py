"""Sentences, and the numbers of their pieces that the network reads."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dubito_nn.errors import ExportError

Side = Literal["right", "left"]
Truncation = Literal["longest_first", "only_first", "only_second"]
IDS = "input_ids"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class TextInput:
    """A text, or a pair of texts, cut into pieces by a tokenizer of Hugging Face `tokenizers`.

    Rows are cut to `max_length` pieces and filled up to `length`, or to the longest of those that
    are asked together. They become the numbers of their pieces, (rows, length), and, where the
    network takes them, a mask that is 1 at pieces and 0 at what fills up, and the part of the pair
    that a piece belongs to, both of the same shape.

    Args:
        tokenizer: the content of its `tokenizer.json`, the file, or the tokenizer itself. A
            manifest has the SHA-256 of the bundle's entry instead.
        max_length: most pieces of a row, special ones counted.
        name: of the column that holds the text, where rows are a table.
        pair: of the column that holds the second text; None: rows are single texts.
        special_tokens: whether to put the tokenizer's special pieces around the text.
        truncation: which text of a pair is cut.
        truncation_side: the end that is cut off.
        length: to which rows are filled up; None: to the longest, or what the network takes.
        padding_side: the end that is filled up.
        pad_id: number of the piece that fills up.
        pad_type_id: its part of the pair.
        ids: input of the network for the numbers; None: its only one, or `input_ids`.
        mask: input for the mask. At export one that the network does not have is left out.
        type_ids: input for the parts of the pair, likewise.
    """

    tokenizer: str = field(repr=False)
    max_length: int
    name: str = "text"
    pair: str | None = None
    special_tokens: bool = True
    truncation: Truncation = "longest_first"
    truncation_side: Side = "right"
    length: int | None = None
    padding_side: Side = "right"
    pad_id: int = 0
    pad_type_id: int = 0
    ids: str | None = None
    mask: str | None = "attention_mask"
    type_ids: str | None = "token_type_ids"
    kind: Literal["text"] = field(default="text", init=False)

    @property
    def inputs(self) -> tuple[str | None, ...]:
        """The inputs that it makes."""
        return (self.ids, *(name for name in (self.mask, self.type_ids) if name is not None))


def canonical(tokenizer: object) -> str:
    """The `tokenizer.json` of a tokenizer as bundles hold it.

    How rows are cut and filled up is declared beside it, and nothing is decoded: these are null.

    Args:
        tokenizer: its content, its file, or a `tokenizers.Tokenizer`.

    Raises:
        ExportError: it is none of these.
    """
    written: Any = tokenizer
    try:
        if isinstance(tokenizer, Path):
            written = tokenizer.read_text(encoding="utf-8")
        elif not isinstance(tokenizer, str):
            written = written.to_str()
        parsed = json.loads(written)
        return json.dumps(
            {**parsed, "truncation": None, "padding": None, "decoder": None},
            separators=(",", ":"),
        )
    except (AttributeError, TypeError, ValueError, OSError) as error:
        raise ExportError(
            "tokenizer expects the content of a tokenizer.json, its Path, or a Tokenizer of"
            f" tokenizers, got {type(tokenizer).__name__} ({str(error)[:100]}): give"
            " `tokenizer.to_str()`"
        ) from error
