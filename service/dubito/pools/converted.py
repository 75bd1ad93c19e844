"""CSV, NDJSON and Arrow's streams as a `.parquet`, which is then read as any other.

A column of a CSV is one of numbers where every cell that is not empty is one, else of text, which
becomes what the model declares. Nothing is kept in memory but a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dubito.errors import InputError, TooLargeError
from dubito.preprocess.arrow import need_pyarrow
from dubito.preprocess.files import BOM, header_of
from dubito.preprocess.quotes import are_closed, check_quotes
from dubito.preprocess.untrusted import is_compressed

if TYPE_CHECKING:
    import pyarrow as pa

CONVERTED = ("csv", "ndjson", "arrows")
_HEAD_BYTES = 2**20
_BLOCK_BYTES = 2**20  # of text that are parsed at once
_NAMES = {"csv": "CSV", "ndjson": "NDJSON", "arrows": "an Arrow stream"}


@contextmanager
def as_parquet(path: Path, format: str, limit_bytes: int) -> Iterator[Path]:
    """A `.parquet` of the same table, beside the file; gone afterwards.

    Args:
        path: the file.
        format: one of `CONVERTED`.
        limit_bytes: most bytes of all cells, once decoded.

    Raises:
        InputError: it is no such file, or pyarrow is missing.
        TooLargeError: longer than the limit.
    """
    need_pyarrow(f"a pool of {_NAMES[format]}")
    import pyarrow as pa

    made = path.with_name(f"{path.name}.parquet")
    try:
        try:
            if format == "csv":
                _write_csv(path, made, limit_bytes)
            else:
                _write((_ndjson if format == "ndjson" else _arrow)(path), made, limit_bytes)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(
                f"pool: expected {_NAMES[format]}, got something else "
                f"({' '.join(str(error).split())[:200]}): write it again, with as many cells in "
                "each row"
            ) from error
        yield made
    finally:
        made.unlink(missing_ok=True)


def _write(batches: Iterator[pa.RecordBatch], path: Path, limit_bytes: int) -> None:
    from pyarrow import parquet, types

    writer: parquet.ParquetWriter | None = None
    num_bytes = 0
    try:
        for batch in batches:
            num_bytes += batch.nbytes
            if num_bytes > limit_bytes:
                raise TooLargeError(
                    f"pool: expected at most {limit_bytes} bytes once decoded, got {num_bytes} or "
                    "more: send it in several pools, or raise DUBITO_MAX_POOL_BYTES"
                )
            batch.validate(full=True)  # offsets of strangers lead anywhere
            if writer is None:
                texts = [field.name for field in batch.schema if types.is_string(field.type)]
                options = {"use_dictionary": texts or False, "compression": "none"}
                writer = parquet.ParquetWriter(path, batch.schema, **options)
            writer.write_batch(batch)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise InputError("pool: expected at least one row, got none")


def _write_csv(path: Path, made: Path, limit_bytes: int) -> None:
    import pyarrow as pa

    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    names, start = header_of(head), len(BOM) if head.startswith(BOM) else 0
    if len(set(names)) < len(names):
        raise InputError("pool: expected each column once, got a name twice: rename one")
    if not are_closed(np.memmap(path, np.uint8, "r", offset=start)):
        with path.open(encoding="utf-8-sig", newline="") as text:
            check_quotes(text, "pool")
    texts = dict.fromkeys(names, pa.string())
    numbers = dict.fromkeys(_numbers(islice(_csv_blocks(path, start, texts), 1)), pa.float64())
    try:
        _write(_csv_blocks(path, start, texts | numbers), made, limit_bytes)
    except pa.ArrowInvalid:  # a later cell is none; or the file is damaged, which is told then
        numbers = dict.fromkeys(_numbers(_csv_blocks(path, start, texts)), pa.float64())
        _write(_csv_blocks(path, start, texts | numbers), made, limit_bytes)


def _numbers(batches: Iterable[pa.RecordBatch]) -> set[str]:
    """The columns of which every cell is a number."""
    numbers: set[str] | None = None
    for batch in batches:
        among = batch.schema.names if numbers is None else numbers
        numbers = {name for name in among if _are_numbers(batch.column(name))}
    return numbers or set()


def _are_numbers(cells: pa.Array) -> bool:
    import pyarrow as pa

    with suppress(pa.ArrowException):
        cells.cast(pa.float64())
        return True
    return False


def _csv_blocks(path: Path, start: int, types: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    from pyarrow import csv

    with pa.OSFile(str(path)) as file:
        file.seek(start)
        with csv.open_csv(
            file,
            csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
            csv.ParseOptions(newlines_in_values=True),
            csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True),
        ) as reader:
            yield from reader


def _ndjson(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    from pyarrow import json

    options = json.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES)
    with pa.OSFile(str(path)) as file, json.open_json(file, options) as reader:
        yield from reader


def _arrow(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    with closing(pa.memory_map(str(path))) as file:
        for message in pa.ipc.MessageReader.open_stream(file):
            if is_compressed(message.metadata.to_pybytes()):
                raise InputError(
                    "pool: expected an Arrow stream of plain buffers, got compressed ones: write "
                    "it without compression"
                )
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as reader:
        yield from reader
