"""Named arrays as bytes and back, without pickle; the same arrays give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from dubito.serving.orders import ClassNames, ClassSets, Column

Arrays = dict[str, NDArray[np.generic]]


def to_bytes(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """A `.npz` file."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def from_bytes(content: bytes) -> Arrays:
    """What `to_bytes` wrote."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def flat(
    columns: Mapping[str, Column], width: int, prefix: str = ""
) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Columns as arrays by name; those within others are named with a dot.

    Args:
        columns: of a prediction; null ones are left out.
        width: of text, in letters, so that all blocks have one type.
        prefix: of their names.
    """
    for name, column in columns.items():
        if isinstance(column, Mapping):
            yield from flat(column, width, f"{prefix}{name}.")
        elif isinstance(column, ClassSets):
            yield f"{prefix}{name}", column.is_member
        elif isinstance(column, ClassNames):
            yield f"{prefix}{name}", column.array(width)
        elif isinstance(column, list):
            yield f"{prefix}{name}", np.array([text or "" for text in column], f"U{width}")
        elif column is not None:
            yield f"{prefix}{name}", np.asarray(column)
