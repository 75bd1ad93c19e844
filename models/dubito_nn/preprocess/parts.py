"""What the inputs of a network are made of; every input by one part, a table making several."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, TypeAlias

from dubito_nn.preprocess.columns import Column
from dubito_nn.preprocess.images import ImageInput
from dubito_nn.preprocess.text import TextInput

Seen: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class TableInput:
    """A table, whose columns are found by name.

    The numbers of the columns that name an input stand in it side by side, in the order of the
    columns: (rows, width), or (rows,) where the input has no further axis.

    Args:
        columns: at least one for every input that it makes.
    """

    columns: tuple[Column, ...]
    kind: Literal["table"] = field(default="table", init=False)

    @property
    def inputs(self) -> tuple[str | None, ...]:
        """The inputs that it makes."""
        return tuple(dict.fromkeys(column.input for column in self.columns))


@dataclass(frozen=True, slots=True)
class ArrayInput:
    """Numbers of the input's own shape: x · scale + shift.

    Args:
        scale: one factor, or one for each place of the last axis.
        shift: added then, likewise.
        input: of the network; None: its only one.
        seen: the least and the greatest values that the network was shown at export, of all
            numbers, or at each place of the one axis of a row; `export` fills it in. Rows far
            outside are answered with a warning.
    """

    scale: float | Sequence[float] = 1.0
    shift: float | Sequence[float] = 0.0
    input: str | None = None
    seen: Seen | None = None
    kind: Literal["array"] = field(default="array", init=False)

    @property
    def inputs(self) -> tuple[str | None, ...]:
        """The inputs that it makes."""
        return (self.input,)


Part: TypeAlias = TableInput | ArrayInput | ImageInput | TextInput
_DIGEST = 64  # hexadecimal digits


def tokenizer_of(parts: Sequence[Part] | None) -> str | None:
    """The tokenizer that all parts of text share; None where there are none."""
    return next((part.tokenizer for part in parts or () if isinstance(part, TextInput)), None)


def stated(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Parts as a manifest states them: of a tokenizer the SHA-256 of its entry."""
    return tuple(
        replace(part, tokenizer=hashlib.sha256(part.tokenizer.encode()).hexdigest())
        if isinstance(part, TextInput) and len(part.tokenizer) != _DIGEST
        else part
        for part in parts
    )


def written(parts: Sequence[Part]) -> list[dict[str, object]]:
    """Parts as JSON of a manifest; what later builds added only where it is used."""
    values = [asdict(part) for part in stated(parts)]
    for value in values:
        if value.get("crop_rounding") == "down":
            del value["crop_rounding"]
    return values


def with_tokenizer(parts: Sequence[Part], tokenizer: str) -> tuple[Part, ...]:
    """Parts whose texts are cut by a tokenizer."""
    return tuple(
        replace(part, tokenizer=tokenizer) if isinstance(part, TextInput) else part
        for part in parts
    )
