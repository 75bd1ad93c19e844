"""`.npy` and `.npz` files as streams of rows, without pickle and without trust in their headers."""

from __future__ import annotations

import math
import mmap
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO

import numpy as np

from dubito.arrays import DAMAGE, DamagedArrayError, check_size, explained, read_header
from dubito.errors import InputError, TooLargeError
from dubito.pools.stream import BLOCK_BYTES, KINDS, UNNAMED, Blocks, ColumnStream, block_rows
from dubito.registry import ColumnFact

_OF_LABELLED_ROWS = ("labels", "targets", "ood_inputs")
_MAX_MEMBERS = 64
_BLOCKS_AT_ONCE = 8  # of an array in Fortran's order: larger pieces of its columns
_STORED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@contextmanager
def open_npy(path: Path) -> Iterator[list[ColumnStream]]:
    """The one array of a `.npy` file.

    Raises:
        InputError: damaged, or not rows of numbers.
    """
    with path.open("rb") as file:
        yield [_column(file, UNNAMED, path.stat().st_size, "pool", path.parent)]


@contextmanager
def open_npz(path: Path, limit_bytes: int) -> Iterator[list[ColumnStream]]:
    """The arrays of a `.npz` file, stored or deflated.

    Args:
        path: the file.
        limit_bytes: most bytes of all of them, once inflated.

    Raises:
        InputError: damaged, or an array in it is.
        TooLargeError: longer than the limit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(members, limit_bytes)
            yield [_member(archive, member, path.parent) for member in members]
    except DAMAGE as error:
        raise InputError(
            f"pool: expected a .npz file, got something else ({explained(error)}): "
            "write it with numpy.savez"
        ) from error


def _check_members(members: list[zipfile.ZipInfo], limit_bytes: int) -> None:
    if not 1 <= len(members) <= _MAX_MEMBERS:
        raise InputError(
            f"pool: expected 1 to {_MAX_MEMBERS} arrays, got {len(members)}: save only the inputs"
        )
    names = [member.filename.removesuffix(".npy") for member in members]
    truths = [name for name in names if name in _OF_LABELLED_ROWS]
    if UNNAMED in names and truths:
        raise InputError(
            f"pool: expected unlabelled rows, got `{'`, `'.join(truths)}` beside `{UNNAMED}`, as "
            "in a file for calibrate: save the inputs alone, numpy.savez(path, inputs=inputs)"
        )
    if len({name.removeprefix(f"{UNNAMED}.") for name in names}) != len(members):
        raise InputError("pool: expected each array once, got a name twice: rename one")
    for member in members:
        if member.compress_type not in _STORED or member.flag_bits & 1:
            raise InputError(
                f"`{member.filename[:80]}`: expected a stored or deflated array, got another "
                "compression or encryption: write the file with numpy.savez"
            )
    total = sum(member.file_size for member in members)
    if total > limit_bytes:
        raise TooLargeError(
            f"pool: expected at most {limit_bytes} bytes once inflated, got {total}: "
            "send it in several pools, or raise DUBITO_MAX_POOL_BYTES"
        )


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> ColumnStream:
    name = member.filename.removesuffix(".npy").removeprefix(f"{UNNAMED}.")
    with archive.open(member) as file:
        head = _column(file, name, member.file_size, f"`{member.filename[:80]}`", folder)

    def blocks() -> Blocks:
        with archive.open(member) as file:
            yield from _column(file, name, member.file_size, f"`{name}`", folder).blocks

    return ColumnStream(head.fact, head.num_rows, blocks())


def _column(file: IO[bytes], name: str, size_bytes: int, shown: str, folder: Path) -> ColumnStream:
    """The array that a file holds, its header checked against the size of the file."""
    try:
        shape, is_fortran, dtype = read_header(file)
        if dtype.kind not in KINDS:
            raise DamagedArrayError(f"values of type {dtype}")
        if not shape or any(size < 0 for size in shape):
            raise DamagedArrayError(f"shape {shape}")
        check_size(shape, dtype, size_bytes - file.tell())
    except DAMAGE as error:
        raise InputError(
            f"{shown}: expected a .npy array of numbers, rows first, got something else "
            f"({explained(error)[:160]}): write it with numpy.save and allow_pickle=False"
        ) from error
    fact = ColumnFact(name, dtype.newbyteorder("=").str, tuple(shape[1:]))
    if is_fortran and len(shape) > 1:
        return ColumnStream(fact, shape[0], _gathered(file, fact, dtype, shape[0], folder))
    return ColumnStream(fact, shape[0], _blocks(file, fact, dtype, shape[0], shown))


def _gathered(
    file: IO[bytes], fact: ColumnFact, stored: np.dtype[np.generic], num_rows: int, folder: Path
) -> Blocks:
    """Rows of an array in Fortran's order, gathered from a map of its file.

    What is inflated cannot be mapped: it is copied to a file without a name in `folder`.
    """
    is_packed = isinstance(file, zipfile.ZipExtFile)
    with tempfile.TemporaryFile(dir=folder) if is_packed else nullcontext(file) as source:
        start = 0 if is_packed else file.tell()
        if is_packed:
            shutil.copyfileobj(file, source, BLOCK_BYTES)
            source.flush()
        mapped = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
        values = np.frombuffer(mapped, stored, num_rows * math.prod(fact.shape), start)
        rows = values.reshape((num_rows, *fact.shape), order="F")
        at_once = _BLOCKS_AT_ONCE * block_rows(fact)
        for first in range(0, num_rows, at_once):
            yield rows[first : first + at_once].astype(fact.dtype, order="C")
            mapped.madvise(mmap.MADV_DONTNEED)


def _blocks(
    file: IO[bytes], fact: ColumnFact, stored: np.dtype[np.generic], num_rows: int, shown: str
) -> Blocks:
    row = math.prod(fact.shape) * stored.itemsize
    at_once = block_rows(fact)
    for first in range(0, num_rows, at_once):
        count = min(at_once, num_rows - first)
        content = file.read(count * row)
        if len(content) != count * row:
            raise InputError(f"{shown}: it ends within row {first + len(content) // max(1, row)}")
        block = np.frombuffer(content, stored).reshape(count, *fact.shape)
        yield block.astype(fact.dtype, copy=False)
