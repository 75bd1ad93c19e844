"""Columns by name, of whatever people hold them in: records, columns, DataFrames.

An empty cell is None or NaN. Nothing is converted here but what a library of tables holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from dubito.errors import InputError
from dubito.media import PICTURES
from dubito.preprocess.arrow import columns_of, table_of
from dubito.preprocess.files import TableFile, read_file
from dubito.preprocess.images.files import read_pictures
from dubito.preprocess.wanted import Cells, check_count, check_names

EXPECTED = 'records, [{"age": 31}, ...], or columns, {"age": [31, ...]}'


@dataclass(frozen=True)
class Frame:
    """Columns of equal length, by name.

    Args:
        columns: those that were asked for.
        others: names of those that were not.
        num_rows: B.
        gaps: of those that were asked for, rows that do not name them, where others do.
    """

    columns: Mapping[str, Cells]
    others: tuple[str, ...]
    num_rows: int
    gaps: Mapping[str, int] = field(default_factory=dict)


def read_frame(
    rows: object,
    names: Iterable[str],
    most_rows: int | None = None,
    images: Sequence[str] = (),
) -> Frame:
    """The columns of a table.

    Args:
        rows: records, columns, a DataFrame of pandas or polars, a table of Arrow, or a file.
        names: of the columns that are wanted, all of which must be there.
        most_rows: largest number of rows; None: any.
        images: columns that images are made of, where the rows are files of them.

    Raises:
        InputError: another form, a column that is missing, or too many rows.
        TooLargeError: a file that becomes too large.
    """
    wanted = tuple(dict.fromkeys(names))
    if isinstance(rows, TableFile) and rows.kind in PICTURES:
        frame = Frame(*read_pictures(rows, wanted, most_rows, images))
    elif isinstance(rows, TableFile):
        frame = Frame(*read_file(rows, wanted, most_rows))
    elif hasattr(rows, "__arrow_c_stream__"):
        frame = Frame(*columns_of(table_of(rows), wanted))
    elif isinstance(rows, Mapping):
        frame = _of_columns(rows, wanted)
    elif isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
        frame = _of_records(rows, wanted, most_rows)
    else:
        raise InputError(
            f"`inputs` expects {EXPECTED}, got {_called(rows)}: send the columns that the bundle "
            "declares, or the network's own tensors with `preprocess` false"
        )
    check_count(frame.num_rows, most_rows)
    return frame


def _of_columns(rows: Mapping[object, object], wanted: Sequence[str]) -> Frame:
    check_names(map(str, rows), wanted)
    columns: dict[str, Cells] = {}
    for name in wanted:
        cells = rows[name]
        if isinstance(cells, Tensor):
            cells = cells.detach().cpu().numpy()
        elif hasattr(cells, "to_numpy"):  # a Series
            cells = cells.to_numpy()
        if not isinstance(cells, Sequence | np.ndarray) or isinstance(cells, str | bytes):
            raise InputError(
                f"column `{name}` expects a list with a cell for each row, got {_called(cells)}: "
                f"send {EXPECTED}"
            )
        columns[name] = cells
    lengths = {name: len(cells) for name, cells in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"the columns expect as many cells each, got {str(lengths)[:200]}")
    num_rows = next(iter(lengths.values()), 0)
    return Frame(columns, tuple(str(name) for name in rows if name not in columns), num_rows)


def _of_records(rows: Sequence[object], wanted: Sequence[str], most_rows: int | None) -> Frame:
    check_count(len(rows), most_rows)
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(
                f"`inputs` expects {EXPECTED}, got {_called(row)} for row {index}: name the columns"
                " that the bundle declares, or send the network's own tensors with `preprocess` "
                "false"
            )
    records: Sequence[Mapping[str, object]] = rows  # type: ignore[assignment]
    names = dict.fromkeys(name for record in records for name in record)
    check_names(names, wanted)
    for index, record in enumerate(records):
        if not record.keys() & {*wanted}:
            raise InputError(
                f"`inputs` expects records with the columns {', '.join(wanted)[:200]}, got none of "
                f"them in row {index}: name what is known of it, or leave the row out"
            )
    columns: dict[str, Cells] = {name: [record.get(name) for record in records] for name in wanted}
    gaps = {name: sum(name not in record for record in records) for name in wanted}
    others = tuple(name for name in names if name not in columns)
    return Frame(columns, others, len(records), {name: gaps[name] for name in wanted if gaps[name]})


def _called(value: object) -> str:
    if isinstance(value, np.ndarray | Tensor):
        return f"an array of shape {tuple(value.shape)}"
    names = {list: "a list", dict: "an object", str: "text", int: "a number", float: "a number"}
    return names.get(type(value), "null" if value is None else type(value).__name__)
