"""Cells of a CSV, all of which are text, as what a column declares them to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dubito.errors import InputError

if TYPE_CHECKING:
    from dubito_nn.preprocess import Column

_TRUTHS = {"true": True, "false": False, "1": True, "0": False}


class Texts(list[object]):
    """Cells that are text whatever they mean; an empty one is None."""


def typed(column: Column, cells: Texts) -> Sequence[object]:
    """The cells of a column as numbers, truth values or text; what is none of these as it is.

    Raises:
        InputError: a cell of a column of numbers is none.
    """
    from dubito_nn.preprocess import Boolean, Category, Number

    match column:
        case Number():
            return [_number(column.name, row, cell) for row, cell in enumerate(cells)]
        case Category() if any(isinstance(value, int | float) for value in column.values):
            return [_float(cell, cell) for cell in cells]
        case Boolean():
            return [_TRUTHS.get(str(cell).strip().lower(), cell) for cell in cells]
    return cells


def guessed(cells: Texts) -> list[object]:
    """The cells of a column that nothing is declared of: integers, else numbers, else text."""
    for kind in (int, float):
        try:
            if not any("_" in str(cell) or not str(cell).isascii() for cell in cells):
                return [None if cell is None else kind(str(cell)) for cell in cells]
        except ValueError:
            continue
    return list(cells)


def _number(name: str, row: int, cell: object) -> object:
    number = _float(cell, "")
    if number == "":
        raise InputError(
            f"column `{name}`, row {row}: expected a number, got {repr(cell)[:60]}: correct it, "
            "with a point for decimals, and leave cells without a value empty"
        )
    return number


def _float(cell: object, otherwise: object) -> object:
    """A number of a text; None of an empty one."""
    text = str(cell)
    if cell is None or "_" in text or not text.isascii():  # which Python reads as digits
        return None if cell is None else otherwise
    try:
        return float(text)
    except ValueError:
        return otherwise
