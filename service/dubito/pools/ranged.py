"""Pools read where they lie in the object store: only the rows that are asked for are fetched.

A machine that looks at a part of a pool need not copy all of it. `.npy` is read by ranges of bytes,
`.parquet` by row groups, of which the last ones stay decoded. What is read was verified when the
pool was stored; a range has no digest of its own to be checked by.

Dimensions: N rows of the pool, B of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from io import SEEK_CUR, SEEK_END, SEEK_SET, BytesIO, RawIOBase
from typing import TYPE_CHECKING

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from dubito.arrays import read_header
from dubito.errors import InputError
from dubito.pools.data import PoolData
from dubito.pools.parquet import group_arrays
from dubito.pools.stream import UNNAMED
from dubito.registry import PoolFact

if TYPE_CHECKING:
    from pyarrow import parquet as pq

    from dubito.registry.objects import Objects

_HEAD_BYTES = 65_536
_GROUPS = 2  # that stay decoded: neighbours, since a block may lie in both

Rows = slice | NDArray[np.int64] | tuple[slice, int]
Fetch = Callable[[Sequence[int], Sequence[int]], Sequence[bytes]]


def open_ranged(objects: Objects, fact: PoolFact) -> PoolData | None:
    """A pool that is read where it lies; None where what it holds does not allow it.

    Args:
        objects: the store of pools.
        fact: the pool.
    """
    fetch = partial(objects.ranges, fact.digest)
    if fact.format == "npy":
        array = _open_npy(fetch)
        return None if array is None else PoolData.over({UNNAMED: array}, fact.num_rows, ())
    is_table = any(not column.features and not column.shape for column in fact.columns)
    if fact.format != "parquet" or is_table:
        return None
    from pyarrow import parquet as pq

    groups = _Groups(pq.ParquetFile(_RangedFile(fetch, fact.size_bytes)), fact)
    arrays = {column.name: _OfGroups(groups, column.name) for column in fact.columns}
    return PoolData.over(arrays, fact.num_rows, fact.columns[0].features)


class RangedRows:
    """The rows of an array in an object; what is asked for is fetched.

    Args:
        fetch: bytes that begin somewhere and have some length, several at once.
        offset: of the first row.
        shape: of a row.
        stored: type of a number in the object.
        num_rows: N.
    """

    def __init__(
        self,
        fetch: Fetch,
        offset: int,
        shape: tuple[int, ...],
        stored: np.dtype[np.generic],
        num_rows: int,
    ) -> None:
        self._fetch = fetch
        self._offset = offset
        self._shape = shape
        self._stored = stored
        self._num_rows = num_rows
        self._row_bytes = math.prod(shape) * stored.itemsize
        self.dtype = stored.newbyteorder("=")

    def __getitem__(self, rows: Rows) -> NDArray[np.generic]:
        """Some rows, neighbours or ascending."""
        if isinstance(rows, tuple):
            raise _reads_all()
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self._num_rows)
            pieces = self._bytes([start], [stop - start]) if stop > start else []
        else:
            cuts = np.flatnonzero(np.diff(rows) != 1) + 1
            runs = np.split(rows, cuts) if len(rows) else []
            pieces = self._bytes([int(run[0]) for run in runs], [len(run) for run in runs])
        block = np.frombuffer(b"".join(pieces), self._stored).reshape(-1, *self._shape)
        return block.astype(self.dtype, copy=False)

    def _bytes(self, firsts: Sequence[int], counts: Sequence[int]) -> Sequence[bytes]:
        starts = [self._offset + first * self._row_bytes for first in firsts]
        return self._fetch(starts, [count * self._row_bytes for count in counts])


def _open_npy(fetch: Fetch) -> RangedRows | None:
    head = BytesIO(fetch([0], [_HEAD_BYTES])[0])
    shape, is_fortran, dtype = read_header(head)
    if is_fortran and len(shape) > 1:
        return None
    return RangedRows(fetch, head.tell(), shape[1:], dtype, shape[0])


class _RangedFile(RawIOBase):
    """An object as a file, of which only what is read is fetched."""

    def __init__(self, fetch: Fetch, size: int) -> None:
        super().__init__()
        self._fetch = fetch
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self._place = offset + {SEEK_SET: 0, SEEK_CUR: self._place, SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._place)
        count = left if size is None or size < 0 else min(size, left)
        content = self._fetch([self._place], [count])[0] if count else b""
        self._place += len(content)
        return content


class _Groups:
    """The row groups of a `.parquet` file, the last ones decoded."""

    def __init__(self, file: pq.ParquetFile, fact: PoolFact) -> None:
        self._file = file
        self._fact = fact
        sizes = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._decoded: LRUCache[int, dict[str, NDArray[np.generic]]] = LRUCache(_GROUPS)

    def arrays(self, group: int) -> dict[str, NDArray[np.generic]]:
        """The arrays of one group, by name."""
        found = self._decoded.get(group)
        if found is None:
            found = self._decoded[group] = group_arrays(self._file, group, self._fact.columns)
        return found


class _OfGroups:
    """One array of such a file."""

    def __init__(self, groups: _Groups, name: str) -> None:
        self._groups = groups
        self._name = name

    def __getitem__(self, rows: Rows) -> NDArray[np.generic]:
        starts = self._groups.starts
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(int(starts[-1])))
        if isinstance(rows, tuple):
            raise _reads_all()
        groups = np.searchsorted(starts, rows, side="right") - 1
        parts = [
            self._groups.arrays(int(group))[self._name][rows[groups == group] - starts[group]]
            for group in np.unique(groups)
        ]
        return np.concatenate(parts)


def _reads_all() -> InputError:
    return InputError(
        "`id_column` expects a pool that is read whole, got one that a cluster reads in parts: "
        "leave it out, or select without --ray"
    )
