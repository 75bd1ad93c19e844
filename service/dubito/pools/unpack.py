"""A file of a pool, verified and laid out as plain arrays that can be memory-mapped.

Every number is looked at on the way: what is not finite is refused with its row. The arrays lie in
a folder as `0.npy`, `1.npy`, ...; `columns.json` names them, with their digests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from dubito import disk
from dubito.arrays import write_header
from dubito.errors import InputError, TooLargeError
from dubito.pools.converted import CONVERTED, as_parquet
from dubito.pools.images import FORMATS as IMAGE_FORMATS
from dubito.pools.images import IMAGE, lay_out, open_images
from dubito.pools.numpy_files import open_npy, open_npz
from dubito.pools.parquet import open_parquet
from dubito.pools.stream import ColumnStream
from dubito.preprocess import ImageBounds
from dubito.registry import ColumnFact

FORMATS = ("npy", "npz", "parquet", *CONVERTED, *IMAGE_FORMATS)
_PIXELS = ImageBounds().pixels
INDEX = "columns.json"
ENDS = "ends"
"""Where the files of images begin and end, in the index."""


@dataclass(frozen=True)
class Contents:
    """The arrays that a file holds."""

    num_rows: int
    columns: tuple[ColumnFact, ...]
    size_bytes: int


def unpack(
    path: Path, format: str, folder: Path, limit_bytes: int, most_pixels: int = _PIXELS
) -> Contents:
    """Verify a file, and lay its arrays out in a folder.

    Args:
        path: the file.
        format: one of `FORMATS`.
        folder: empty.
        limit_bytes: most bytes of all arrays.
        most_pixels: of an image.

    Raises:
        InputError: damaged, not rows of numbers, not finite, or arrays of different lengths.
        TooLargeError: longer than the limit.
        StorageFullError: no room is left for it.
    """
    if format in IMAGE_FORMATS:
        return _images(path, format, folder, limit_bytes, most_pixels)
    written = []
    with _opened(path, format, limit_bytes) as streams, disk.writing(folder.parent):
        _check(streams, limit_bytes)
        for number, stream in enumerate(streams):
            digest = _write(stream, folder / f"{number}.npy")
            written.append({**stream.fact.to_json(), "sha256": digest})
        contents = Contents(
            streams[0].num_rows,
            tuple(stream.fact for stream in streams),
            sum(stream.num_bytes for stream in streams),
        )
    index = {"num_rows": contents.num_rows, "columns": written}
    (folder / INDEX).write_bytes(orjson.dumps(index))
    return contents


def _images(path: Path, format: str, folder: Path, limit_bytes: int, most_pixels: int) -> Contents:
    """Lay the images of an archive out; their bytes, beginnings and names are three arrays."""
    paths = [folder / f"{number}.npy" for number in range(3)]
    with open_images(path, format, limit_bytes) as members, disk.writing(folder.parent):
        names = lay_out(members, paths, most_pixels)
    facts = (IMAGE, ColumnFact(ENDS, "<i8", ()), names)
    written = [
        {**fact.to_json(), "sha256": disk.digest(own)}
        for fact, own in zip(facts, paths, strict=True)
    ]
    index = {"num_rows": len(members), "columns": written}
    (folder / INDEX).write_bytes(orjson.dumps(index))
    size_bytes = sum(member.size for member in members)
    return Contents(len(members), (IMAGE, names), size_bytes)


@contextmanager
def _opened(path: Path, format: str, limit_bytes: int) -> Iterator[list[ColumnStream]]:
    match format:
        case "npy":
            with open_npy(path) as streams:
                yield streams
        case "npz":
            with open_npz(path, limit_bytes) as streams:
                yield streams
        case "parquet":
            with open_parquet(path, limit_bytes) as streams:
                yield streams
        case _ if format in CONVERTED:
            with (
                as_parquet(path, format, limit_bytes) as made,
                open_parquet(made, limit_bytes) as streams,
            ):
                yield streams
        case _:
            raise InputError(f"pool: expected a format of {FORMATS}, got {format[:40]!r}")


def _check(streams: list[ColumnStream], limit_bytes: int) -> None:
    lengths = {stream.fact.name: stream.num_rows for stream in streams}
    if len(set(lengths.values())) != 1:
        raise InputError(f"pool: expected arrays of the same number of rows, got {lengths}")
    if not streams[0].num_rows or any(0 in stream.fact.shape for stream in streams):
        raise InputError("pool: expected at least one row with a number in it, got none")
    total = sum(stream.num_bytes for stream in streams)
    if total > limit_bytes:
        raise TooLargeError(
            f"pool: expected at most {limit_bytes} bytes of numbers, got {total}: "
            "send it in several pools, or raise DUBITO_MAX_POOL_BYTES"
        )


def _write(stream: ColumnStream, path: Path) -> str:
    """Write an array to disk while its numbers are looked at; its digest."""
    fact, count = stream.fact, 0
    with closing(stream.blocks) as blocks, path.open("wb") as file:
        write_header(file, fact.dtype, (stream.num_rows, *fact.shape))
        for block in blocks:
            _refuse_non_finite(block, fact, count, may_be_empty=stream.may_be_empty)
            count += len(block)
            if count > stream.num_rows:
                break
            file.write(np.ascontiguousarray(block).data)  # tofile hides why it fails
    if count != stream.num_rows:
        raise InputError(
            f"`{fact.name[:80]}`: expected {stream.num_rows} rows, as the file states, got {count}"
        )
    return disk.digest(path)


def _refuse_non_finite(
    block: NDArray[np.generic], fact: ColumnFact, first: int, *, may_be_empty: bool
) -> None:
    if block.dtype.kind != "f" or np.isfinite(block).all():
        return
    is_wrong = np.isinf(block) if may_be_empty else ~np.isfinite(block)
    if not is_wrong.any():
        return
    cell = tuple(int(axis[0]) for axis in np.nonzero(is_wrong))
    raise InputError(
        f"`{fact.name[:80]}`: expected finite numbers, got {block[cell]} in row "
        f"{first + cell[0]}: replace missing or overflowing values first"
    )
