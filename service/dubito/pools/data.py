"""The rows of a pool, memory-mapped: what is read is paged in, and let go again.

Dimensions: N rows of the pool, B of them.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from dubito import disk
from dubito.arrays import read_header
from dubito.errors import DamagedError, InputError
from dubito.pools.images import IMAGE, StoredFiles, data_url
from dubito.pools.stream import UNNAMED
from dubito.pools.unpack import ENDS, INDEX
from dubito.preprocess import FILE
from dubito.preprocess.texts import Texts

if TYPE_CHECKING:
    from dubito_nn import InputSpec

_SHOWN_BYTES = 32 * 2**20  # of images in a reply
_HELD_BYTES = 64 * 2**20  # that may have been read before pages are let go

PoolRows = NDArray[np.generic] | Mapping[str, Any]


def by_input(
    rows: Mapping[str, NDArray[np.generic]],
    features: Sequence[str],
    inputs: Sequence[InputSpec],
    *,
    is_table: bool = False,
) -> PoolRows:
    """Rows as a network takes them: the columns of a table by name, where it has several inputs.

    Args:
        rows: arrays of a pool, by name.
        features: names of the columns, where the pool is a table.
        inputs: of the network.
        is_table: whether the network declares what it makes of a table.
    """
    if list(rows) != [UNNAMED]:
        return {name: _cells(array) for name, array in rows.items()} if is_table else rows
    if is_table and features:
        return {name: rows[UNNAMED][:, column] for column, name in enumerate(features)}
    table, shape_of = rows[UNNAMED], {spec.name: spec.shape for spec in inputs}
    if not features or (len(inputs) < 2 and set(features) != set(shape_of)):
        return table
    return {
        name: table[:, column].reshape(-1, *(1 for _ in shape_of.get(name, ())))
        for column, name in enumerate(features)
    }


def _cells(array: NDArray[np.generic]) -> NDArray[np.generic] | Texts:
    """The cells of a column; text, which is what the model declares, empty where a cell is."""
    if array.dtype.kind != "S":
        return array
    return Texts(cell.decode() or None for cell in array.tolist())


class PoolData:
    """The rows of an unpacked pool.

    Args:
        folder: as `unpack` left it.

    Raises:
        DamagedError: an array in it is damaged.
    """

    _files: StoredFiles | None = None

    def __init__(self, folder: Path) -> None:
        index = orjson.loads((folder / INDEX).read_bytes())
        self._hold({}, int(index["num_rows"]), index["columns"][0].get("features", []))
        for number, column in enumerate(index["columns"]):
            path = folder / f"{number}.npy"
            if disk.digest(path) != column["sha256"]:
                raise DamagedError(f"array {number} of the pool {folder.name}", "is damaged")
            self._arrays[column["name"]] = self._mapped(path)
        if ENDS in self._arrays:
            content, ends = self._arrays.pop(IMAGE.name), self._arrays.pop(ENDS)
            self._files = StoredFiles(content, ends, self._arrays[FILE])

    @classmethod
    def over(cls, arrays: Mapping[str, Any], num_rows: int, features: Sequence[str]) -> PoolData:
        """A pool of arrays that lie elsewhere.

        Args:
            arrays: by name; each gives its rows by a slice, or by ascending indices.
            num_rows: N.
            features: names of the columns, where one array was stored as them.
        """
        data = cls.__new__(cls)
        data._hold(arrays, num_rows, features)
        return data

    def _hold(self, arrays: Mapping[str, Any], num_rows: int, features: Sequence[str]) -> None:
        self._num_rows = num_rows
        self._arrays: dict[str, Any] = dict(arrays)
        self._features = list(features)
        self._maps: list[mmap.mmap] = []
        self._inputs: Sequence[InputSpec] = ()
        self._preprocess: bool | None = None
        self._ids: NDArray[np.generic] | None = None
        self._read_bytes = 0
        self._image = IMAGE.name

    def __len__(self) -> int:
        return self._num_rows

    @property
    def has_files(self) -> bool:
        """Whether rows are files of images."""
        return self._files is not None

    def names(self, rows: slice | NDArray[np.int64]) -> NDArray[np.generic] | None:
        """What tells some rows apart: a column of ids, or the names of files; None without."""
        if self._ids is not None or self._files is None:
            return None if self._ids is None else self._ids[rows]
        names = self._arrays[FILE]
        texts = [name.decode() for name in names[rows].tolist()]
        return np.array(texts, f"U{names.dtype.itemsize}")

    def read_for(
        self,
        inputs: Sequence[InputSpec],
        *,
        preprocess: bool | None = None,
        image: str | None = None,
    ) -> None:
        """Hand out rows as a network takes them from now on; see `by_input`.

        Args:
            inputs: of the network.
            preprocess: whether it makes its inputs of the rows, or is to take them as they are,
                which tensors tell it; None: it declares nothing.
            image: the input that images make; None: none.
        """
        self._inputs = inputs
        self._image = image or IMAGE.name
        self._preprocess = preprocess

    def name_by(self, name: str) -> None:
        """Tell rows apart by a column: of text, whole numbers where all are, or numbers."""
        if name in self._features:
            column = self._arrays[UNNAMED][:, self._features.index(name)]
        else:
            column = self._arrays[name]
        if column.dtype.kind == "S":
            self._ids = np.char.decode(np.array(column), "utf-8")
        else:
            is_whole = np.isfinite(column) & (column == np.floor(column))
            self._ids = column.astype(np.int64) if is_whole.all() else np.array(column)

    def rows(self, start: int, stop: int) -> PoolRows:
        """Copies of neighbouring rows: an array, or arrays by name."""
        if self._files is not None:
            return {self._image: self._files[start:stop]}
        return self._named({name: array[start:stop] for name, array in self._arrays.items()})

    def take(self, indices: NDArray[np.int64]) -> PoolRows:
        """Copies of some rows; see `rows`."""
        if len(indices) and (np.diff(indices) == 1).all():
            return self.rows(int(indices[0]), int(indices[-1]) + 1)
        if self._files is not None:
            return {self._image: self._files[indices]}
        return self._named({name: array[indices] for name, array in self._arrays.items()})

    def cells(self, indices: NDArray[np.int64]) -> PoolRows | list[str]:
        """Copies of some rows as they were stored: one array, cells by column, images as text.

        Raises:
            InputError: images too large for a reply.
        """
        if self._files is not None:
            size = self._files.num_bytes(indices)
            if size > _SHOWN_BYTES:
                raise InputError(
                    f"indices: expected images of {_SHOWN_BYTES:,} bytes at most in a reply, got "
                    f"{len(indices)} of {size:,} together: ask for fewer at once"
                )
            return [data_url(content) for content in self._files[indices]]
        copies: dict[str, NDArray[np.generic]]
        copies = {name: array[indices] for name, array in self._arrays.items()}
        if list(copies) == [UNNAMED]:
            return copies[UNNAMED]
        return {name: _cells(array) for name, array in copies.items()}

    @property
    def features(self) -> list[str]:
        """Names of the columns that one array was stored as; else none."""
        return list(self._features)

    def _named(self, views: dict[str, NDArray[np.generic]]) -> PoolRows:
        copies = {name: np.array(array) for name, array in views.items()}
        self._read_bytes += sum(array.nbytes for array in copies.values())
        if self._read_bytes > _HELD_BYTES:
            self._read_bytes = 0
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)
        is_table = self._preprocess is True
        rows = by_input(copies, self._features, self._inputs, is_table=is_table)
        return _as_tensors(rows, self._inputs) if self._preprocess is False else rows

    def _mapped(self, path: Path) -> NDArray[np.generic]:
        with path.open("rb") as file:
            shape, _, dtype = read_header(file)
            offset = file.tell()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._maps.append(mapped)
        return np.frombuffer(mapped, dtype, offset=offset).reshape(shape)


def _as_tensors(rows: PoolRows, inputs: Sequence[InputSpec]) -> Mapping[str, Any]:
    """Rows as tensors by input."""
    import torch

    named = rows if isinstance(rows, Mapping) else {inputs[0].name: rows}
    if list(named) == [UNNAMED]:
        named = {inputs[0].name: named[UNNAMED]}
    return {name: torch.from_numpy(array) for name, array in named.items()}
