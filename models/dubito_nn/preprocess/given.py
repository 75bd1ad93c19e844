"""What is given to `export` as `preprocess`: completed, and read as a bundle's reader reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from dubito_nn.errors import BundleError, ExportError
from dubito_nn.preprocess.parts import (
    ArrayInput,
    Part,
    Seen,
    TableInput,
    stated,
    tokenizer_of,
    with_tokenizer,
)
from dubito_nn.preprocess.reader import read_preprocess
from dubito_nn.preprocess.text import IDS, TextInput, canonical

if TYPE_CHECKING:
    from dubito_nn.manifest import InputSpec

Given: TypeAlias = "Part | Sequence[Part] | None"


def read_given(
    given: Given, inputs: Sequence[InputSpec], example: Mapping[str, Tensor]
) -> tuple[Part, ...] | None:
    """The parts as the manifest states them.

    Args:
        given: one part, or several; a part that names no input makes the only one.
        inputs: of the network.
        example: the caller's own, whose range is kept for arrays.

    Raises:
        ExportError: the parts do not make the inputs, or a field of one is wrong.
    """
    if given is None:
        return None
    several = list(given) if isinstance(given, list | tuple) else [given]
    parts = [part for part in several if isinstance(part, Part)]
    if len(parts) < len(several):
        raise ExportError(
            f"preprocess expects parts of dubito_nn.preprocess, got {str(several)[:80]}: give a"
            " TableInput, an ImageInput, a TextInput, an ArrayInput, or a list of them"
        )
    parts = [_named(part, inputs) for part in parts]
    try:
        written = json.dumps([asdict(part) for part in stated(parts)], default=_plain)
        read = read_preprocess(json.loads(written), inputs)
    except (BundleError, TypeError, ValueError) as error:
        raise ExportError(f"preprocess: {str(error).removeprefix('manifest: ')}") from error
    assert read is not None
    tokenizer = tokenizer_of(parts)
    if tokenizer is not None:
        read = with_tokenizer(read, tokenizer)
    return tuple(
        replace(part, seen=seen_range(example[str(part.input)]))
        if isinstance(part, ArrayInput)
        else part
        for part in read
    )


def _named(part: Part, inputs: Sequence[InputSpec]) -> Part:
    """A part that names its inputs."""
    only = inputs[0].name if len(inputs) == 1 else None
    if isinstance(part, TextInput):
        return _named_text(part, {spec.name: spec.shape for spec in inputs}, only)
    if not isinstance(part, TableInput):
        return replace(part, input=part.input or only)
    columns = [replace(column, input=column.input or only) for column in part.columns]
    return TableInput(tuple(columns))


def _named_text(
    part: TextInput, shapes: Mapping[str, tuple[int | str, ...]], only: str | None
) -> TextInput:
    """A text that makes what the network takes of it, of the length that it takes."""
    ids = part.ids or only or IDS
    size = shapes[ids][0] if len(shapes.get(ids, ())) == 1 else None
    length = size if isinstance(size, int) and part.length is None else part.length
    is_cut = isinstance(part.max_length, int) and isinstance(length, int)
    return replace(
        part,
        tokenizer=canonical(part.tokenizer),
        ids=ids,
        mask=part.mask if part.mask in shapes else None,
        type_ids=part.type_ids if part.type_ids in shapes else None,
        length=length,
        max_length=min(part.max_length, length) if is_cut and length else part.max_length,
    )


def seen_range(example: Tensor) -> Seen | None:
    """Least and greatest numbers of rows, where there are several, of numbers.

    Args:
        example: (B, ...); each place of the last axis has its own range where a row is a vector.
    """
    if not example.is_floating_point() or len(example) < 2:
        return None
    rows = example.double() if example.ndim == 2 else example.double().reshape(-1, 1)
    low, high = torch.aminmax(rows, dim=0)
    return tuple(low.tolist()), tuple(high.tolist())


def _plain(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"expected plain text, numbers and lists, got {type(value).__name__}")
