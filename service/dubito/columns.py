"""The columns of a reply: what each row is told, as arrays, names and nested lists.

Dimensions: B rows, P positions, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS


@dataclass(frozen=True)
class ClassSets:
    """The prediction set of each row.

    Args:
        is_member: whether the class, or label, is in the row's set; before the last axis maybe
            positions.
        is_known: where there is a set: not where the network overflowed. Others hold nothing.
        classes: names of the classes.
    """

    is_member: NDArray[np.bool_]
    is_known: NDArray[np.bool_]
    classes: tuple[str, ...]

    @property
    def is_null(self) -> NDArray[np.bool_]:
        """Where there is no set."""
        return ~self.is_known

    def array(self, width: int | None = None) -> NDArray[np.bool_]:
        """Whether each class is in the set; false where there is none."""
        return self.is_member

    def values(self) -> list[object]:
        """The classes of each row's set, in the order of the classes; of positions nested lists.

        Null where there is no set.
        """
        members = self.is_member.reshape(-1, self.is_member.shape[-1]).tolist()
        flat = [
            [name for name, is_in in zip(self.classes, member_C, strict=True) if is_in]
            if is_known
            else None
            for member_C, is_known in zip(members, self.is_known.reshape(-1).tolist(), strict=True)
        ]
        return _nested(flat, self.is_member.shape[1:-1])


@dataclass(frozen=True)
class Flags:
    """Which rows are flagged, (B,), and which can be: not where the network overflowed."""

    is_flagged: NDArray[np.bool_]
    is_known: NDArray[np.bool_]

    @property
    def is_null(self) -> NDArray[np.bool_]:
        """Where nothing is known."""
        return ~self.is_known

    def array(self, width: int | None = None) -> NDArray[np.bool_]:
        """The flags, false where nothing is known."""
        return self.is_flagged

    def values(self) -> list[object]:
        """True or false, null where neither is known."""
        pairs = zip(self.is_flagged.tolist(), self.is_known.tolist(), strict=True)
        return [flag if known else None for flag, known in pairs]


@dataclass(frozen=True)
class ClassNames:
    """The class at every position of each row.

    Args:
        index: (B, P), one axis of positions or more; -1 where the network overflowed.
        classes: names of the classes.
    """

    index: NDArray[np.int64]
    classes: tuple[str, ...]

    @property
    def is_null(self) -> NDArray[np.bool_]:
        """Where there is no class."""
        return self.index < 0

    def values(self) -> list[object]:
        """Nested lists of names, null where there is none."""
        named = (*self.classes, None)
        flat = [named[index] for index in self.index.reshape(-1).tolist()]
        return _nested(flat, self.index.shape[1:])

    def array(self, width: int | None = None) -> NDArray[np.str_]:
        """The names as text, empty where there is none.

        Args:
            width: letters of the type; None: those of the longest name.
        """
        named = np.array((*self.classes, ""), dtype=None if width is None else f"U{width}")
        return named[self.index]


def _nested(flat: Sequence[object], sizes: tuple[int, ...]) -> list[object]:
    """A flat list as lists of lists, for the axes after the first."""
    nested = list(flat)
    for size in reversed(sizes):
        nested = [nested[start : start + size] for start in range(0, len(nested), size)]
    return nested


@dataclass(frozen=True)
class SomeNumbers:
    """Numbers that some places do not have: padding, or a row without a token.

    Args:
        value: of any shape, the row first.
        is_there: where there is a number, of the same shape.
    """

    value: NDArray[np.float64]
    is_there: NDArray[np.bool_]

    @property
    def is_null(self) -> NDArray[np.bool_]:
        """Where there should be a number and the network overflowed."""
        return self.is_there & ~np.isfinite(self.value)

    def array(self, width: int | None = None) -> NDArray[np.float64]:
        """The numbers, NaN where there is none."""
        return np.where(self.is_there, self.value, np.nan)

    def values(self) -> NDArray[np.float64]:
        """The same, of which JSON makes null where there is none."""
        return self.array()


Packed = ClassSets | ClassNames | Flags | SomeNumbers
Column = NDArray[np.generic] | list[str] | list[str | None] | Packed | Mapping[str, "Column"] | None


def arrays_of(
    columns: Mapping[str, Column], width: int | None = None, prefix: str = ""
) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Columns as arrays by name; those within others are named with a dot, null ones left out.

    What a row does not have is NaN, false or empty text.

    Args:
        columns: of a prediction.
        width: letters of text; None: those of the longest.
        prefix: of their names.
    """
    for name, column in columns.items():
        if isinstance(column, Mapping):
            yield from arrays_of(column, width, f"{prefix}{name}.")
        elif isinstance(column, Packed):
            yield f"{prefix}{name}", column.array(width)
        elif isinstance(column, list):
            texts = [text or "" for text in column]
            yield f"{prefix}{name}", np.array(texts, None if width is None else f"U{width}")
        elif column is not None:
            yield f"{prefix}{name}", column


def num_entries(columns: Mapping[str, Column]) -> int:
    """Numbers, names and flags of all columns together."""
    count = 0
    for column in columns.values():
        if column is None:
            continue
        if type(column) is np.ndarray:  # which most are
            count += column.size
        elif isinstance(column, list):
            count += len(column)
        elif isinstance(column, Mapping):
            count += num_entries(column)
        elif isinstance(column, ClassNames):
            count += column.is_null.size
        else:
            count += column.size if isinstance(column, np.ndarray) else column.array().size
    return count


def to_json(content: Mapping[str, object] | Sequence[object]) -> bytes:
    """JSON of plain values, arrays and columns."""
    return orjson.dumps(content, default=_to_plain, option=_OPTIONS)


def _to_plain(value: object) -> object:
    """Return plain values for what orjson does not know."""
    if isinstance(value, Packed):
        return value.values()
    if isinstance(value, np.ndarray):  # a layout that orjson does not read
        return np.ascontiguousarray(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
