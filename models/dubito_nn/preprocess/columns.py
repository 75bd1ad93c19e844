"""One column of a table, and the numbers that the network reads of it.

Every number that a column gives is standardised: (x - mean) / scale, x being a number as it comes,
a category's index, a category's place (1 where the row has it, else 0), 1 or 0 for true or false,
or a time in units from an origin.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Encoding = Literal["index", "one_hot"]
Unknown = Literal["refuse", "zeros", "other"]
TimeUnit = Literal["seconds", "minutes", "hours", "days"]
Value: TypeAlias = str | int | float | bool | None

UNIT_S: dict[TimeUnit, int] = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}
"""Seconds of a unit."""


@dataclass(frozen=True, slots=True)
class Number:
    """A column of numbers; one number.

    Args:
        name: of the column.
        mean: taken off, in the units of the column.
        scale: by which what is left is divided.
        missing: stands where a cell is empty, in the units of the column; None: that is refused.
        input: of the network; None: its only one.
    """

    name: str
    mean: float = 0.0
    scale: float = 1.0
    missing: float | None = None
    input: str | None = None
    type: Literal["number"] = field(default="number", init=False)

    @property
    def width(self) -> int:
        """Numbers that it gives."""
        return 1


@dataclass(frozen=True, slots=True)
class Category:
    """A column of categories; the index of each, or a place for each that is 1 in its rows.

    Args:
        name: of the column.
        values: the categories in order, text or numbers; None among them is an empty cell's own.
        encoding: `index` or `one_hot`.
        unknown: what becomes of a value that is not among them: `refuse`; of a `one_hot` `zeros`
            (no place is 1); or `other`, which is the index or place behind the last.
        missing: the value that stands where a cell is empty; None: such a cell is a value of its
            own, which is unknown unless None is among the values.
        unknown_code: number in the place of the index that `other` has; of an `index` alone.
        missing_code: number in the place of the index that None has; of an `index` alone.
        mean: of each number that is given; None: 0.
        scale: of each number that is given; None: 1.
        input: of the network; None: its only one.
    """

    name: str
    values: tuple[Value, ...]
    encoding: Encoding = "index"
    unknown: Unknown = "refuse"
    missing: Value = None
    unknown_code: float | None = None
    missing_code: float | None = None
    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    input: str | None = None
    type: Literal["category"] = field(default="category", init=False)

    @property
    def width(self) -> int:
        """Numbers that it gives."""
        return 1 if self.encoding == "index" else len(self.values) + (self.unknown == "other")


@dataclass(frozen=True, slots=True)
class Boolean:
    """A column of true and false; one number, 1 or 0.

    Args:
        name: of the column.
        missing: stands where a cell is empty; None: that is refused.
        input: of the network; None: its only one.
    """

    name: str
    missing: bool | None = None
    input: str | None = None
    type: Literal["boolean"] = field(default="boolean", init=False)

    @property
    def width(self) -> int:
        """Numbers that it gives."""
        return 1


@dataclass(frozen=True, slots=True)
class Date:
    """A column of dates or times; one number, the time from an origin.

    Args:
        name: of the column.
        origin: the time that is 0, in ISO 8601; without an offset in UTC, as all times are.
        unit: of the number.
        mean: taken off, in units.
        scale: by which what is left is divided, in units.
        missing: stands where a cell is empty, in ISO 8601; None: that is refused.
        input: of the network; None: its only one.
    """

    name: str
    origin: str = "1970-01-01"
    unit: TimeUnit = "days"
    mean: float = 0.0
    scale: float = 1.0
    missing: str | None = None
    input: str | None = None
    type: Literal["date"] = field(default="date", init=False)

    @property
    def width(self) -> int:
        """Numbers that it gives."""
        return 1


Column: TypeAlias = Number | Category | Boolean | Date
