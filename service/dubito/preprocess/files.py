"""Files of tables: CSV, Parquet and Arrow's streams, read by pyarrow within bounds.

What a file states of itself is looked at before anything of that size is read. CSV is UTF-8 with
commas and a line of names; all its cells are text, which becomes what the model, or the caller,
makes of it: only an empty cell is empty.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dubito.errors import InputError, TooLargeError
from dubito.media import ARROW, CSV, PARQUET
from dubito.preprocess.arrow import Found, columns_of, need_pyarrow
from dubito.preprocess.quotes import are_closed, check_quotes
from dubito.preprocess.texts import Texts
from dubito.preprocess.untrusted import is_compressed, stated_bytes
from dubito.preprocess.wanted import check_most, check_names

if TYPE_CHECKING:
    import pyarrow as pa

MAX_COLUMNS = 10_000
_HEAD_BYTES = 2**20  # that hold the line of names
_BLOCK_BYTES = 2**20  # of a CSV that are parsed at once
_LARGEST_STRING, _LARGEST_CONTAINER = 2**20, 10**6  # of a Parquet file's own description
BOM = codecs.BOM_UTF8


@dataclass(frozen=True)
class TableFile:
    """A file that is not read yet: which columns are wanted of it, its model says.

    Args:
        kind: its media type, one of `ROWS`.
        content: all of it.
        limit_bytes: most bytes of its columns, once they are decoded.
    """

    kind: str
    content: bytes
    limit_bytes: int = 2**31


def read_file(file: TableFile, wanted: Sequence[str], most_rows: int | None) -> Found:
    """The wanted columns of a file.

    Raises:
        InputError: damaged, without one of the columns, or pyarrow is missing.
        TooLargeError: larger than it may be once it is decoded.
    """
    need_pyarrow(f"a body of {file.kind}")
    import pyarrow as pa

    try:
        return _READERS[file.kind](file, wanted, most_rows)
    except (pa.ArrowException, OSError, ValueError, LookupError, OverflowError) as error:
        raise InputError(
            f"body: expected {_NAMES[file.kind]}, got something else "
            f"({' '.join(str(error).split())[:200]}): {_REMEDIES[file.kind]}"
        ) from error


def names_in(file: TableFile) -> list[str]:
    """The names of the columns of a CSV or Parquet file, pandas' index left out.

    Raises:
        InputError: it is damaged.
    """
    if file.kind == CSV:
        return header_of(file.content.removeprefix(BOM))
    need_pyarrow("a Parquet file")
    import pyarrow as pa
    from pyarrow import parquet as pq

    try:
        names = pq.read_schema(pa.BufferReader(file.content)).names
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"expected a Parquet file, got something else ({error})") from error
    return [name for name in names if not name.startswith("__index_level_")]


def header_of(content: bytes) -> list[str]:
    """The names in the first line of a CSV.

    Raises:
        InputError: it is not UTF-8, or has none.
    """
    try:
        head = codecs.getincrementaldecoder("utf-8-sig")().decode(content[:_HEAD_BYTES])
        names = next(csv.reader(io.StringIO(head, newline="")), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"body: expected CSV in UTF-8, got something else ({str(error)[:160]}): save it so"
        ) from error
    if not names:
        raise InputError("body: expected CSV with the names of its columns in the first line")
    if len(names) > MAX_COLUMNS:
        raise InputError(
            f"body: expected at most {MAX_COLUMNS} columns, got {len(names)}: leave out what the "
            "model does not read"
        )
    return names


def _csv(file: TableFile, wanted: Sequence[str], most_rows: int | None) -> Found:
    import pyarrow as pa
    from pyarrow import csv as pa_csv

    content = file.content.removeprefix(BOM)
    names = header_of(content)
    if not are_closed(np.frombuffer(content, np.uint8)):
        check_quotes(io.TextIOWrapper(io.BytesIO(content), "utf-8", newline=""), "body")
    check_names(names, wanted)
    reader = pa_csv.open_csv(
        pa.BufferReader(content),
        pa_csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
        pa_csv.ParseOptions(newlines_in_values=True),
        pa_csv.ConvertOptions(
            column_types=dict.fromkeys(wanted, pa.string()),
            include_columns=list(wanted),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    with reader:
        table = pa.Table.from_batches(_counted(reader, most_rows, file.limit_bytes), reader.schema)
    columns, _, num_rows = columns_of(table, wanted)
    texts = {name: Texts(cells) for name, cells in columns.items()}
    return texts, tuple(name for name in names if name not in columns), num_rows


def _parquet(file: TableFile, wanted: Sequence[str], most_rows: int | None) -> Found:
    import pyarrow as pa
    from pyarrow import parquet as pq

    limits = {
        "thrift_string_size_limit": _LARGEST_STRING,
        "thrift_container_size_limit": _LARGEST_CONTAINER,
    }
    with pq.ParquetFile(pa.BufferReader(file.content), **limits) as described:
        schema = described.schema_arrow
    names = schema.names
    _check_width(len(names))
    check_names(names, wanted)
    texts = [name for name in wanted if pa.types.is_string(schema.field(name).type)]
    with pq.ParquetFile(
        pa.BufferReader(file.content),
        read_dictionary=texts,  # a long text that stands in all rows is kept once
        **limits,
    ) as opened:
        check_most(opened.metadata.num_rows, most_rows)
        _check_bytes(stated_bytes(opened), file.limit_bytes)
        batches = opened.iter_batches(columns=list(wanted), use_threads=False)
        table = pa.Table.from_batches(_counted(batches, most_rows, file.limit_bytes))
    columns, _, num_rows = columns_of(table, wanted)
    return columns, tuple(name for name in names if name not in columns), num_rows


def _arrow(file: TableFile, wanted: Sequence[str], most_rows: int | None) -> Found:
    import pyarrow as pa

    for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(file.content)):
        if is_compressed(message.metadata.to_pybytes()):
            raise InputError(
                "body: expected an Arrow stream of plain buffers, got compressed ones: write it "
                "without compression, and send it with Content-Encoding: zstd"
            )
    with pa.ipc.open_stream(pa.BufferReader(file.content)) as reader:
        _check_width(len(reader.schema.names))
        check_names(reader.schema.names, wanted)
        batches = list(_counted(reader, most_rows, file.limit_bytes))
        table = pa.Table.from_batches(batches, reader.schema)
    return columns_of(table, wanted)


def _counted(
    batches: Iterator[pa.RecordBatch], most_rows: int | None, limit_bytes: int
) -> Iterator[pa.RecordBatch]:
    """Batches that are sound, until there are too many rows or bytes."""
    num_rows = num_bytes = 0
    for batch in batches:
        num_rows += batch.num_rows
        check_most(num_rows, most_rows)
        num_bytes += batch.nbytes
        _check_bytes(num_bytes, limit_bytes)
        batch.validate(full=True)  # offsets of strangers lead anywhere
        yield batch


def _check_bytes(num_bytes: int, limit_bytes: int) -> None:
    if num_bytes > limit_bytes:
        raise TooLargeError(
            f"body: expected at most {limit_bytes} bytes once decoded, got {num_bytes} or more: "
            "send fewer rows at once"
        )


def _check_width(num_columns: int) -> None:
    if num_columns > MAX_COLUMNS:
        raise InputError(
            f"body: expected at most {MAX_COLUMNS} columns, got {num_columns}: leave out what the "
            "model does not read"
        )


_Reader = Callable[[TableFile, Sequence[str], int | None], Found]
_READERS: dict[str, _Reader] = {CSV: _csv, PARQUET: _parquet, ARROW: _arrow}
_NAMES = {CSV: "CSV", PARQUET: "a Parquet file", ARROW: "an Arrow stream"}
_REMEDIES = {
    CSV: "write it in UTF-8, with commas, a line of names, and as many cells in each row",
    PARQUET: "write it with pyarrow.parquet.write_table",
    ARROW: "write it with pyarrow.ipc.new_stream",
}
