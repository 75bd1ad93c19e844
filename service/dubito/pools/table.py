"""Columns of a table in a `.parquet`, for models that declare what they make of them.

A column of numbers or truth values is an array of numbers, NaN where a cell is empty; one of text
or times is text in UTF-8, of as many bytes as its longest cell, and empty where a cell is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dubito.errors import InputError
from dubito.pools.stream import Blocks, ColumnStream
from dubito.registry import ColumnFact

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet as pq

_MAX_BYTES = 20_000  # of a cell, as which all cells of its column are kept
_AT_ONCE = 65_536  # rows


def is_cell(kind: pa.DataType) -> bool:
    """Whether a column is one that only a table has: of text, dates or times."""
    from pyarrow import types

    inner = kind.value_type if types.is_dictionary(kind) else kind
    is_text = types.is_string(inner) or types.is_large_string(inner)
    return bool(is_text or types.is_date(inner) or types.is_timestamp(inner))


def column_stream(file: pq.ParquetFile, name: str) -> ColumnStream:
    """One column of a table.

    Raises:
        InputError: it is of another type, or a cell of it is too long.
    """
    from pyarrow import types

    kind, num_rows = file.schema_arrow.field(name).type, file.metadata.num_rows
    if is_cell(kind):
        width = max((_width(cells) for cells in _columns(file, name)), default=1)
        if width > _MAX_BYTES:
            raise InputError(
                f"`{name[:80]}`: expected cells of at most {_MAX_BYTES} bytes, got one of {width}: "
                "leave the column out, if the model does not read it"
            )
        fact = ColumnFact(name, f"|S{max(1, width)}", ())
        return ColumnStream(fact, num_rows, _text_blocks(file, name, fact.dtype))
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise InputError(
            f"`{name[:80]}`: expected a table of numbers, text, truth values, dates and times, got "
            f"{str(kind)[:80]}: leave the column out"
        )
    fact = ColumnFact(name, "<f8", ())
    return ColumnStream(fact, num_rows, _number_blocks(file, name), may_be_empty=True)


def _columns(file: pq.ParquetFile, name: str) -> Iterator[pa.Array]:
    for batch in file.iter_batches(batch_size=_AT_ONCE, columns=[name], use_threads=False):
        yield batch.column(0)


def _texts(file: pq.ParquetFile, name: str) -> Iterator[pa.Array]:
    import pyarrow as pa

    for column in _columns(file, name):
        yield column.cast(pa.string())


def _width(cells: pa.Array) -> int:
    """Bytes of the longest cell; of what is kept once, looked at once."""
    import pyarrow as pa
    from pyarrow import compute

    values = cells.dictionary if isinstance(cells, pa.DictionaryArray) else cells.cast(pa.string())
    return compute.max(compute.binary_length(values)).as_py() or 0


def _text_blocks(file: pq.ParquetFile, name: str, dtype: str) -> Blocks:
    for cells in _texts(file, name):
        yield np.array([(cell or "").encode() for cell in cells.to_pylist()], dtype)


def _number_blocks(file: pq.ParquetFile, name: str) -> Blocks:
    import pyarrow as pa

    for column in _columns(file, name):
        numbers = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
        block: NDArray[np.float64] = numbers.cast(pa.float64(), safe=False).to_numpy(
            zero_copy_only=False
        )
        yield block
