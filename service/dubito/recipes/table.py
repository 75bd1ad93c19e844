"""Training rows of a table: its columns as numbers, scaled by what they are in the file.

Flow: a CSV or Parquet file → truths, and the other columns → for each a column of the declaration,
whose mean and scale are those of its cells → the numbers that the declaration makes of them, which
the network is trained on. The bundle keeps the declaration.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dubito.errors import InputError
from dubito.media import CSV, PARQUET
from dubito.preprocess import TableFile, read_columns
from dubito.preprocess.cells import numbers_of
from dubito.preprocess.files import names_in
from dubito.recipes.config import TrainConfig
from dubito.recipes.rows import Arrays
from dubito_nn.preprocess import Boolean, Category, Column, Number, TableInput

SUFFIXES = {".csv": CSV, ".parquet": PARQUET}
_MOST_ROWS = 10**8
_MOST_VALUES = 100  # different texts of a column, each of which is an input of the network


def read_table(config: TrainConfig) -> tuple[Arrays, TableInput]:
    """The arrays of a table, and how its columns become them.

    Args:
        config: as read; its file is one of `SUFFIXES`.

    Raises:
        InputError: a column is missing, or cannot be made numbers of.
    """
    path: Path = config.data
    file = TableFile(SUFFIXES[path.suffix], path.read_bytes())
    try:
        truths = [*(config.label or ()), *(config.target or ())]
        if bool(config.label) == bool(config.target):
            raise InputError(
                "expected `label` or `target`, the columns that hold the truths, got both or "
                "neither: name one of them in the configuration"
            )
        names = config.columns or [name for name in names_in(file) if name not in truths]
        if set(names) & set(truths) or not names:
            raise InputError(
                f"`columns` expects those that the network reads, got {list(names)[:12]} beside "
                f"the truths {truths}: correct them"
            )
        cells = read_columns(file, [*names, *truths], _MOST_ROWS)
        cells |= {name: _as_truths(cells[name]) for name in names}
        columns = tuple(_declared(name, cells[name]) for name in names)
    except InputError as error:
        raise InputError(f"{path}: {error.detail}") from error
    matrix = np.concatenate(
        [numbers_of(column, cells[column.name], []) for column in columns], axis=1
    )
    arrays = {"inputs": matrix, **_truths(config, [cells[name] for name in truths])}
    return arrays, TableInput(columns)


def _as_truths(cells: list[object]) -> list[object]:
    """Truth values of a CSV, which has them as text; other cells as they are."""
    if {str(cell).lower() for cell in cells if cell is not None} != {"true", "false"}:
        return cells
    return [None if cell is None else str(cell).lower() == "true" for cell in cells]


def _declared(name: str, cells: Sequence[object]) -> Column:
    """A column by what its cells are: truth values, numbers, else categories."""
    known = [cell for cell in cells if cell is not None and cell == cell]  # without NaN
    is_whole = len(known) == len(cells)
    kinds = set(map(type, known))
    if kinds == {bool}:
        return Boolean(name, missing=None if is_whole else 2 * sum(map(bool, known)) > len(known))
    if kinds and kinds <= {int, float}:
        values = np.array(known, np.float64)
        mean, scale = float(values.mean()), float(values.std())
        return Number(name, mean, scale or 1.0, None if is_whole else mean)
    if kinds == {str} and len(set(known)) <= _MOST_VALUES:
        return Category(name, tuple(sorted(map(str, set(known)))), "one_hot", "zeros")
    got = f"{len(set(known))} different texts" if kinds == {str} else "others, or none"
    raise InputError(
        f"column `{name}` expects numbers, truth values, or text of at most {_MOST_VALUES} kinds, "
        f"got {got}: name the columns that the network shall read in `columns`"
    )


def _truths(config: TrainConfig, columns: Sequence[Sequence[object]]) -> Arrays:
    """The array of the truths, by the name that it has in a file of arrays."""
    for cells in columns:
        row = next((row for row, cell in enumerate(cells) if cell is None or cell != cell), None)
        if row is not None:
            raise InputError(f"expected a truth in every row, got none in row {row}: leave it out")
    if config.target:
        try:
            return {"targets": np.array(list(zip(*columns, strict=True)), np.float64)}
        except (TypeError, ValueError) as error:
            raise InputError(f"`target` expects columns of numbers, got {error}") from error
    if len(columns) > 1:
        raise InputError("`label` expects one column, got several: name one")
    is_numbers = {*map(type, columns[0])} == {int}
    return {"labels": np.array(columns[0] if is_numbers else [str(cell) for cell in columns[0]])}
