"""Columns of Arrow's tables as arrays and lists, with pyarrow (the extra `dubito[parquet]`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from dubito.errors import InputError
from dubito.preprocess.wanted import Cells, check_names

if TYPE_CHECKING:
    import pyarrow as pa

Found = tuple[Mapping[str, Cells], tuple[str, ...], int]
"""Columns, names of the others, number of rows."""


def need_pyarrow(what: str) -> None:
    """Refuse what cannot be read without pyarrow.

    Raises:
        InputError: it is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            f"{what} expects pyarrow, which is not installed here: pip install 'dubito[parquet]', "
            "or send the columns as JSON"
        ) from error


def table_of(rows: object) -> pa.Table:
    """The table of whatever hands its columns on as Arrow does: DataFrames of pandas, polars.

    Raises:
        InputError: a column that Arrow has no type for, or pyarrow is missing.
    """
    need_pyarrow("a DataFrame")
    import pyarrow as pa

    try:
        return pa.table(rows)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(
            f"the table expects columns of one type each, got others ({str(error)[:160]}): convert "
            "them first"
        ) from error


def columns_of(table: pa.Table, wanted: Sequence[str]) -> Found:
    """The wanted columns of a table.

    Raises:
        InputError: one is missing, or of a type without numbers, text, truth values or times.
    """
    check_names(table.column_names, wanted)
    columns = {name: _cells(name, table.column(name)) for name in wanted}
    others = tuple(name for name in table.column_names if name not in columns)
    return columns, others, table.num_rows


def _cells(name: str, column: pa.ChunkedArray) -> Cells:
    import pyarrow as pa
    from pyarrow import types

    is_dictionary = types.is_dictionary(column.type)
    kind = column.type.value_type if is_dictionary else column.type
    if not any(is_kind(kind) for is_kind in _taken()):
        raise InputError(
            f"column `{name}` expects numbers, text, true or false, or times, got "
            f"{str(column.type)[:80]}: convert it first"
        )
    is_plain = types.is_floating(kind) or types.is_integer(kind)
    try:
        if is_plain and not column.null_count and not is_dictionary:
            cells: Cells = column.to_numpy()
        elif types.is_timestamp(kind):  # nanoseconds, which Python's times lack, are cut off
            is_fine = kind.unit == "ns"
            cells = column.cast(pa.timestamp("us", kind.tz), safe=not is_fine).to_pylist()
        elif types.is_decimal(kind):
            cells = column.cast(pa.float64()).to_pylist()
        elif is_dictionary:
            cells = _of_dictionaries(column)
        else:
            cells = column.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise InputError(
            f"column `{name}` expects cells that can be read, got others ({str(error)[:160]}): "
            "write the table again"
        ) from error
    return cells


def _of_dictionaries(column: pa.ChunkedArray) -> list[object]:
    """The cells of a column whose values are kept once, each value made once."""
    cells: list[object] = []
    for chunk in column.chunks:
        values = [*chunk.dictionary.to_pylist(), None]
        cells += [values[index] for index in chunk.indices.fill_null(len(values) - 1).to_pylist()]
    return cells


def _taken() -> tuple[Callable[[pa.DataType], bool], ...]:
    from pyarrow import types

    return (
        *(types.is_integer, types.is_floating, types.is_decimal, types.is_boolean, types.is_null),
        *(types.is_string, types.is_large_string, types.is_string_view),
        *(types.is_date, types.is_timestamp),
    )
