"""The cells of one column as numbers, (B, width), standardised as the column declares.

A refusal names the column and the row, from 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

from dubito.errors import InputError
from dubito.preprocess.wanted import Cells
from dubito_nn.preprocess import Boolean, Category, Column, Date, Number
from dubito_nn.preprocess.columns import UNIT_S

Floats = NDArray[np.float64]
_NUMBERS = {int, float, bool, type(None)}
_SHOWN = 8
_FINER = ("[ns]", "[ps]", "[fs]", "[as]")  # than the times of Python


def numbers_of(column: Column, cells: Cells, warnings: list[str]) -> Floats:
    """What a column gives for its cells, (B, width).

    Args:
        column: as it is declared.
        cells: of all rows.
        warnings: to add to.

    Raises:
        InputError: a cell of another kind, an unknown category, or an empty cell, where the column
            declares nothing for it.
    """
    match column:
        case Number():
            return _standardised(_of_numbers(column, cells), column.mean, column.scale)
        case Category():
            return _of_categories(column, cells, warnings)
        case Boolean():
            return _of_booleans(column, cells)
        case Date():
            return _standardised(_of_times(column, cells), column.mean, column.scale)


def _standardised(x_B: Floats, mean: float, scale: float) -> Floats:
    return ((x_B - mean) / scale)[:, None]


def _of_numbers(column: Number, cells: Cells) -> Floats:
    if isinstance(cells, np.ndarray) and cells.ndim == 1 and cells.dtype.kind in "fiub":
        x_B = cells.astype(np.float64)
    else:
        listed = _listed(cells)
        x_B = np.empty(len(listed))
        if not set(map(type, listed)) <= _NUMBERS:
            for row, cell in enumerate(listed):
                if type(cell) not in _NUMBERS and not isinstance(cell, np.number):
                    raise _refused(column.name, row, "a number", cell)
        try:
            x_B[:] = np.array(listed, np.float64)
        except (OverflowError, TypeError, ValueError):
            row = next(row for row, cell in enumerate(listed) if not _is_float(cell))
            raise _refused(column.name, row, "a number of 64 bits", listed[row]) from None
    filled_B = _filled(column.name, x_B, np.isnan(x_B), column.missing)
    if not np.isfinite(filled_B).all():
        row = int((~np.isfinite(filled_B)).argmax())
        raise _refused(column.name, row, "a finite number", filled_B[row].item())
    return filled_B


def _of_categories(column: Category, cells: Cells, warnings: list[str]) -> Floats:
    places = {value: place for place, value in enumerate(column.values)}
    is_text = isinstance(next(filter(_is_something, column.values), None), str)
    behind = len(column.values)
    other = {"refuse": -2, "zeros": -1, "other": behind}[column.unknown]

    @cache
    def place_of(cell: object) -> int:
        if cell is None or cell != cell:  # NaN
            cell = column.missing
        if is_text and (type(cell) is int or (type(cell) is float and cell.is_integer())):
            cell = str(int(cell))  # as pools have what CSV writes
        return places.get(cast("str | None", cell), other)

    listed = _listed(cells)
    try:
        place_B = np.array([place_of(cell) for cell in listed], np.int64)
    except TypeError:
        row = next(row for row, cell in enumerate(listed) if cell.__hash__ is None)
        raise _refused(column.name, row, "text or a number", listed[row]) from None
    if place_B.min(initial=0) == -2:
        row = int((place_B == -2).argmax())
        shown = ", ".join(repr(value)[:40] for value in column.values[:_SHOWN])
        more = f" and {behind - _SHOWN} more" if behind > _SHOWN else ""
        raise _refused(column.name, row, f"one of {shown}{more}", listed[row])
    elif num_unknown := int((place_B == other).sum()):
        got = repr(listed[int((place_B == other).argmax())])[:60]
        warnings.append(
            f"column `{column.name}`: {num_unknown} of {len(listed)} rows have a category that the "
            f"bundle does not name, such as {got}"
        )
    if column.encoding == "index":
        code_P = np.arange(behind + 1, dtype=np.float64)
        if column.missing_code is not None and None in places:
            code_P[places[None]] = column.missing_code
        if column.unknown_code is not None:
            code_P[behind] = column.unknown_code
        made_BW = code_P[place_B][:, None]
    else:
        made_BW = np.zeros((len(place_B), column.width))
        is_placed = place_B >= 0
        made_BW[np.flatnonzero(is_placed), place_B[is_placed]] = 1.0
    if column.mean is not None:
        made_BW = made_BW - np.array(column.mean)
    return made_BW if column.scale is None else made_BW / np.array(column.scale)


def _of_booleans(column: Boolean, cells: Cells) -> Floats:
    listed = _listed(cells)
    known = {True: 1.0, False: 0.0, None: math.nan}  # 1 and 0 are the same keys
    made_B = np.empty(len(listed))
    for row, cell in enumerate(listed):
        is_empty = isinstance(cell, float) and math.isnan(cell)
        number = (
            math.nan
            if is_empty
            else known.get(cast("bool | None", cell))
            if (cell is None or isinstance(cell, bool | int | float))
            else None
        )
        if number is None:
            raise _refused(column.name, row, "true or false", cell)
        made_B[row] = number
    missing = None if column.missing is None else float(column.missing)
    return _filled(column.name, made_B, np.isnan(made_B), missing)[:, None]


def _of_times(column: Date, cells: Cells) -> Floats:
    """Time since the origin, in units."""
    origin = _instant(column.origin)
    unit_s = UNIT_S[column.unit]

    @cache
    def elapsed(cell: object) -> float:
        if cell is None or cell != cell:  # NaN, or no time
            return math.nan
        return (_instant(cell) - origin).total_seconds() / unit_s

    listed = _listed(cells)
    made_B = np.empty(len(listed))
    for row, cell in enumerate(listed):
        try:
            made_B[row] = elapsed(cell)
        except (ValueError, TypeError, OverflowError):
            remedy = "a date or time in ISO 8601, such as 2024-02-29 or 2024-02-29T12:00:00Z"
            raise _refused(column.name, row, remedy, cell) from None
    missing = None if column.missing is None else elapsed(column.missing)
    return _filled(column.name, made_B, np.isnan(made_B), missing)


def _instant(cell: object) -> datetime:
    """A time in UTC, which is what one without an offset is in.

    Raises:
        ValueError: no such time.
        TypeError: no time at all.
    """
    if isinstance(cell, str):
        cell = datetime.fromisoformat(cell)
    if isinstance(cell, date) and not isinstance(cell, datetime):
        cell = datetime(cell.year, cell.month, cell.day, tzinfo=UTC)
    if not isinstance(cell, datetime):
        raise TypeError(type(cell))
    return cell.replace(tzinfo=UTC) if cell.tzinfo is None else cell


def _filled(
    name: str, x_B: Floats, is_missing_B: NDArray[np.bool_], missing: float | None
) -> Floats:
    if not is_missing_B.any():
        return x_B
    if missing is None:
        row = int(is_missing_B.argmax())
        raise InputError(
            f"column `{name}`, row {row}: expected a value, got an empty cell: fill it, since the "
            "bundle declares none for missing ones"
        )
    return np.where(is_missing_B, missing, x_B)


def _listed(cells: Cells) -> Sequence[object]:
    """The cells as a list of Python's values."""
    if isinstance(cells, np.ndarray):
        if cells.dtype.kind == "M":
            fine = cells.astype("datetime64[us]")
            is_cut = cells.dtype.str.endswith(_FINER)
            if not is_cut and (fine.astype(cells.dtype) != cells)[~np.isnat(cells)].any():
                raise InputError("times: expected those of years 1 to 9999, got others: correct it")
            cells = fine
        return cast("Sequence[object]", cells.tolist())
    return cells


def _is_float(cell: object) -> bool:
    try:
        np.float64(cast("float", cell))
    except (OverflowError, TypeError, ValueError):
        return cell is None
    return True


def _is_something(value: object) -> bool:
    return value is not None


def _refused(name: str, row: int, expected: str, got: object) -> InputError:
    shown = "an empty cell" if got is None else repr(got)[:60]
    return InputError(f"column `{name}`, row {row}: expected {expected}, got {shown}: correct it")
