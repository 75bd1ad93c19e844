"""`.parquet` files as streams of rows, by row groups, with pyarrow (the extra `dubito[parquet]`).

A file of plain columns of numbers is one array, a column for every number of a row, in their
order. A column of lists of equal length is an array of its own, under its name. Where one is of
text or times, the file is a table (`table.py`), each column for itself. The index of a DataFrame is
no column: pandas says in the file which columns hold it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dubito.errors import InputError, TooLargeError
from dubito.pools.stream import KINDS, UNNAMED, Blocks, ColumnStream, block_rows
from dubito.pools.table import column_stream, is_cell
from dubito.preprocess.untrusted import stated_bytes
from dubito.registry import ColumnFact

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet as pq

_INDEX = re.compile(r"__index_level_\d+__")  # of pandas, where it has no name
_MAX_COLUMNS = 65_536
_MAX_DEPTH = 8
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4}  # bytes of a decoded number at most; others: 8
_DESCRIBED = """
import json, sys
from pyarrow import parquet
path, widths, string, container = sys.argv[1:]
limits = {"thrift_string_size_limit": int(string), "thrift_container_size_limit": int(container)}
described, widths, total = parquet.ParquetFile(path, **limits).metadata, json.loads(widths), 0
for group in map(described.row_group, range(described.num_row_groups)):
    for chunk in map(group.column, range(group.num_columns)):
        numbers = widths.get(chunk.physical_type, 8) * chunk.num_values
        total += max(numbers, chunk.total_uncompressed_size, 0)
print(total)
"""
_LARGEST_STRING, _LARGEST_CONTAINER = 16 * 2**20, 10**6  # of the file's own description


@contextmanager
def open_parquet(path: Path, limit_bytes: int) -> Iterator[list[ColumnStream]]:
    """The arrays of a `.parquet` file.

    Args:
        path: the file.
        limit_bytes: most bytes of all numbers, once decoded.

    Raises:
        InputError: damaged, not rows of numbers, or with empty cells; or pyarrow is missing.
        TooLargeError: longer than the limit.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet as pq
    except ModuleNotFoundError as error:
        raise InputError(
            "pool: a .parquet file expects pyarrow, which is not installed here: "
            "pip install 'dubito[parquet]', or send .npy"
        ) from error
    limits = {
        "thrift_string_size_limit": _LARGEST_STRING,
        "thrift_container_size_limit": _LARGEST_CONTAINER,
    }
    try:
        with pq.ParquetFile(path, **limits) as described:
            schema = described.schema_arrow
        texts = [name for name in schema.names if pa.types.is_string(schema.field(name).type)]
        # a long text that stands in all rows is kept once
        with pq.ParquetFile(path, read_dictionary=texts, **limits) as file:
            _check_size(file, path, limit_bytes)
            yield _streams(file)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"pool: expected a .parquet file, got something else ({str(error)[:160]}): "
            "write it with pyarrow.parquet.write_table"
        ) from error


def group_arrays(
    file: pq.ParquetFile, group: int, columns: Sequence[ColumnFact]
) -> dict[str, NDArray[np.generic]]:
    """The arrays of one row group, by name, as `open_parquet` makes them of the whole file.

    Args:
        file: that was verified.
        group: its number.
        columns: arrays of numbers, as they were found then.
    """
    names = [name for fact in columns for name in (fact.features or (fact.name,))]
    table = file.read_row_group(group, columns=names, use_threads=False)
    found: dict[str, NDArray[np.generic]] = {}
    for fact in columns:
        if fact.features:
            block = np.empty((table.num_rows, *fact.shape), fact.dtype)
            for index, name in enumerate(fact.features):
                block[:, index] = table.column(name).to_numpy()
        else:
            flat, shape = _nested(table.column(fact.name).combine_chunks())
            block = flat.reshape(shape).astype(fact.dtype, copy=False)
        found[fact.name] = block
    return found


def _check_size(file: pq.ParquetFile, path: Path, limit_bytes: int) -> None:
    """Refuse what would be too large once decoded, by the counts that the file states."""
    metadata = file.metadata
    if not 1 <= metadata.num_columns <= _MAX_COLUMNS:
        raise InputError(
            f"pool: expected 1 to {_MAX_COLUMNS} columns, got {metadata.num_columns}: "
            "save only the inputs"
        )
    leaves = [file.schema.column(column) for column in range(metadata.num_columns)]
    total = sum(_WIDTHS.get(leaf.physical_type, 8) * metadata.num_rows for leaf in leaves)
    total = max(total, stated_bytes(file))
    if total <= limit_bytes and any(leaf.max_repetition_level for leaf in leaves):
        total = _described_bytes(path)
    if total > limit_bytes:
        raise TooLargeError(
            f"pool: expected at most {limit_bytes} bytes once decoded, got {total} or more: send "
            "it in several pools, or raise DUBITO_MAX_POOL_BYTES"
        )


def _described_bytes(path: Path) -> int:
    """Bytes of all numbers of a file of lists, whose columns say how many they hold.

    Asked for in a process of its own, since pyarrow ends it where a description contradicts itself.

    Raises:
        InputError: it does.
    """
    words = [sys.executable, "-c", _DESCRIBED, str(path), json.dumps(_WIDTHS)]
    limits = [str(_LARGEST_STRING), str(_LARGEST_CONTAINER)]
    done = subprocess.run([*words, *limits], capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.strip().isdecimal():
        raise InputError(
            "pool: expected a .parquet file, got one that describes its columns wrongly: write it"
            " with pyarrow.parquet.write_table"
        )
    return int(done.stdout)


def _streams(file: pq.ParquetFile) -> list[ColumnStream]:
    schema, num_rows = file.schema_arrow, file.metadata.num_rows
    if len(set(schema.names)) != len(schema.names):
        raise InputError("pool: expected each column once, got a name twice: rename one")
    names = _without_index(schema)
    if not names:
        raise InputError("pool: expected columns beside pandas' index, got none: save the inputs")
    if num_rows == 0:
        raise InputError("pool: expected at least one row, got none")
    if any(is_cell(schema.field(name).type) for name in names):
        return [column_stream(file, name) for name in names]
    types = {name: _innermost(schema.field(name).type) for name in names}
    depths = {depth for _, depth in types.values()}
    if depths == {0}:
        dtype = np.result_type(*(dtype for dtype, _ in types.values()))
        fact = ColumnFact(UNNAMED, dtype.str, (len(types),), tuple(types))
        return [ColumnStream(fact, num_rows, _plain(file, fact))]
    if 0 in depths:
        raise InputError(
            "pool: expected columns of numbers, or columns of lists, got both: "
            "put the inputs of a network into lists"
        )
    return [_lists(file, name, dtype, num_rows) for name, (dtype, _) in types.items()]


def _without_index(schema: pa.Schema) -> list[str]:
    """The columns that are no index of pandas, also where another library dropped what it says."""
    try:
        described = schema.pandas_metadata
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"pool: expected pandas' description of its columns, got no JSON ({str(error)[:80]}): "
            "write the file again"
        ) from error
    listed = described.get("index_columns") if isinstance(described, dict) else None
    index = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    return [name for name in schema.names if name not in index and not _INDEX.fullmatch(name)]


def _innermost(kind: pa.DataType) -> tuple[np.dtype[np.generic], int]:
    """The type of a column's numbers, and how many lists they lie in."""
    depth = 0
    while _is_list(kind) and depth <= _MAX_DEPTH:
        kind, depth = kind.value_type, depth + 1
    try:
        is_plain = not str(kind).startswith(("dictionary", "run_end_encoded"))
        dtype = np.dtype(kind.to_pandas_dtype() if is_plain else object)
    except (NotImplementedError, TypeError):
        dtype = np.dtype(object)
    if dtype.kind not in KINDS or depth > _MAX_DEPTH:
        raise InputError(
            f"pool: expected columns of numbers, or of lists of them, got {str(kind)[:80]}: "
            "leave other columns out"
        )
    return dtype, depth


def _is_list(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _batches(file: pq.ParquetFile, at_once: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for group in range(file.metadata.num_row_groups):
        yield from file.iter_batches(
            batch_size=at_once,
            row_groups=[group],
            columns=names,
            use_threads=False,
        )


def _plain(file: pq.ParquetFile, fact: ColumnFact) -> Blocks:
    for batch in _batches(file, block_rows(fact), fact.features):
        _refuse_empty(batch.columns)
        block = np.empty((batch.num_rows, *fact.shape), fact.dtype)
        for index, column in enumerate(batch.columns):
            block[:, index] = column.to_numpy(zero_copy_only=False)
        yield block


def _lists(
    file: pq.ParquetFile, name: str, dtype: np.dtype[np.generic], num_rows: int
) -> ColumnStream:
    first = next(_batches(file, 1, [name]))
    shape = _nested(first.column(0))[1][1:]
    fact = ColumnFact(name, dtype.str, shape)

    def blocks() -> Blocks:
        for batch in _batches(file, block_rows(fact), [name]):
            flat, batch_shape = _nested(batch.column(0))
            if batch_shape[1:] != shape:
                raise InputError(
                    f"`{name[:80]}`: expected rows of shape {shape}, got {batch_shape[1:]}: "
                    "pad them to the same"
                )
            yield flat.reshape(batch_shape).astype(dtype, copy=False)

    return ColumnStream(fact, num_rows, blocks())


def _nested(array: pa.Array) -> tuple[NDArray[np.generic], tuple[int, ...]]:
    """The numbers of lists within lists, and their shape."""
    shape = [len(array)]
    while _is_list(array.type):
        _refuse_empty([array])
        inner = array.flatten()
        count = len(array)
        size = len(inner) // max(1, count)
        if hasattr(array, "offsets"):
            lengths = np.diff(array.offsets.to_numpy())
            if (lengths != size).any():
                raise InputError(
                    "pool: expected lists of equal length, got ragged ones: pad them to the same"
                )
        shape.append(size)
        array = inner
    _refuse_empty([array])
    return array.to_numpy(zero_copy_only=False), tuple(shape)


def _refuse_empty(columns: list[pa.Array]) -> None:
    if any(column.null_count for column in columns):
        raise InputError("pool: expected a number in every cell, got null: fill or drop those rows")
