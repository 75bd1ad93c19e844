"""Pools in and out: received, verified, kept, and opened for work.

Flow: bytes on disk → unpacked and verified → object and record → the unpacked arrays stay in the
cache. On a server that does not have them, or not any more, the object is unpacked again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from dubito import disk
from dubito.errors import InputError
from dubito.keys import NOBODY, Caller
from dubito.names import ANONYMOUS
from dubito.pools.addresses import check_address, pack_folder, pieces_of
from dubito.pools.cache import PoolCache
from dubito.pools.data import PoolData, PoolRows
from dubito.pools.ranged import open_ranged
from dubito.pools.unpack import FORMATS, Contents, unpack
from dubito.registry import PoolFact
from dubito.registry.pools import NewPool, PoolStore, unknown_pool
from dubito.settings import Settings

CONVERT = "save it as one of these, a DataFrame by df.to_parquet('rows.parquet', index=False)"
_ENDINGS = {"jsonl": "ndjson"}
_MAX_SHOWN = 1_000_000  # numbers of rows that are shown
_NAMED_BY = 12  # digits of the digest in a name that nobody chose


class Shelf:
    """Stored pools and their unpacked arrays.

    Args:
        store: their records and objects.
        settings: the bounds, and the addresses that are allowed.
    """

    def __init__(self, store: PoolStore, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._cache = PoolCache(settings.pool_cache_dir, settings.pool_cache_bytes)

    def incoming(self) -> AbstractContextManager[Path]:
        """A private file for a pool that is on its way in; gone afterwards."""
        return disk.incoming(self._settings.incoming_dir)

    def check_name(self, name: str | None) -> None:
        """Refuse a name that is taken or that a pool cannot have, before its rows are read."""
        if name is not None:
            self._store.check_free(name)

    def add(
        self,
        name: str | None,
        path: Path,
        format: str,
        *,
        source: str | None = None,
        actor: str = ANONYMOUS,
    ) -> PoolFact:
        """Verify a file and keep it as a pool.

        Args:
            name: of the pool; None: named by its digest.
            path: the file; nobody may write to it meanwhile.
            format: one of `FORMATS`.
            source: the address that it came from.
            actor: who brings it.

        Raises:
            InputError: it is not rows of finite numbers; nothing is kept.
            TooLargeError: it is too large once unpacked.
            ConflictError: the name is taken.
        """
        self.check_name(name)
        digest = disk.digest(path)
        with self._cache.room() as room:
            contents = self._unpack(path, format, room)
            named = name or f"pool-{digest[:_NAMED_BY]}"
            rows, columns = contents.num_rows, contents.columns
            fact = self._store.add(
                NewPool(named, digest, format, rows, columns, source, actor), path
            )
            self._cache.keep(digest, room)
        return fact

    def take(
        self, name: str | None, address: str, *, format: str | None = None, actor: str = ANONYMOUS
    ) -> PoolFact:
        """Copy a file from an object store that the operator allowed, and keep it as a pool.

        Args:
            name: of the pool; None: named by its digest.
            address: `s3://BUCKET/KEY` or `file:///PATH`; with a slash at its end a folder, whose
                images are packed as a `.tar`.
            format: as of `add`; None: by the ending of the address.
            actor: who asks.

        Raises:
            InputError: the address is not allowed; or as `add`.
        """
        settings = self._settings
        check_address(address, settings.pool_addresses)
        self.check_name(name)
        is_folder = address.endswith("/")
        kind = "tar" if is_folder else format or format_of(address)
        get = pack_folder if is_folder else pieces_of
        with self.incoming() as path:
            pieces = get(
                address,
                settings.pool_addresses,
                settings.max_pool_bytes,
                allow_http=settings.object_store_allow_http,
            )
            _write(path, pieces)
            return self.add(name, path, kind, source=address, actor=actor)

    def all(self, caller: Caller = NOBODY) -> tuple[PoolFact, ...]:
        """All pools by name that a caller sees."""
        return tuple(fact for fact in self._store.all() if caller.sees_pool(fact.uploader))

    def get(self, name: str, caller: Caller = NOBODY) -> PoolFact:
        """Return one pool.

        Raises:
            NotFoundError: no pool of that name that the caller sees.
        """
        fact = self._store.get(name)
        if not caller.sees_pool(fact.uploader):
            raise unknown_pool(name)
        return fact

    def cells(
        self, name: str, indices: Sequence[int], caller: Caller = NOBODY
    ) -> tuple[list[str], PoolRows | list[str]]:
        """Some rows of a pool as they were stored, behind the names of their columns.

        Raises:
            NotFoundError: no pool of that name that the caller sees.
            InputError: an index beyond its rows, or more than a reply holds.
        """
        fact = self.get(name, caller)
        beyond = next((index for index in indices if index >= fact.num_rows), None)
        if beyond is not None:
            raise InputError(
                f"indices: pool {name!r} has the rows 0 to {fact.num_rows - 1}, got {beyond}: "
                "leave it out"
            )
        width = sum(math.prod(column.shape) for column in fact.columns)
        if len(indices) * width > _MAX_SHOWN:
            raise InputError(
                f"indices: expected at most {_MAX_SHOWN:,} numbers in a reply, got {len(indices)} "
                f"rows of {width:,}: ask for fewer at once"
            )
        data = self.open(fact.digest, fact.format)
        return data.features, data.cells(np.array(indices, np.int64))

    def delete(self, name: str, caller: Caller = NOBODY) -> None:
        """Delete a pool that no job uses.

        Raises:
            NotFoundError: no pool of that name that the caller sees.
            ConflictError: a job that is not finished uses it.
        """
        self.get(name, caller)
        gone = self._store.delete(name, actor=caller.name)
        if gone is not None:
            self._cache.drop(gone)

    def _unpack(self, path: Path, format: str, room: Path) -> Contents:
        settings = self._settings
        return unpack(path, format, room, settings.max_pool_bytes, settings.max_image_pixels)

    def open(self, digest: str, format: str) -> PoolData:
        """The rows of a pool, brought here and verified where they are not yet.

        Args:
            digest: of the pool.
            format: of its object.

        Raises:
            DubitoError: the store does not hold it, or holds it damaged.
        """
        data = self._cache.get(digest)
        if data is not None:
            return data
        with self.incoming() as path, self._cache.room() as room:
            _write(path, self._store.pieces(digest))
            self._unpack(path, format, room)
            data = PoolData(room)  # readable to its end, whatever the cache does
            self._cache.keep(digest, room)
        return data

    def open_parts(self, digest: str, format: str, name: str) -> PoolData:
        """The rows of a pool where they lie, if its format allows it; else as `open` has them.

        Args:
            digest: of the pool.
            format: of its object.
            name: of the pool.

        Raises:
            DubitoError: the store does not hold it.
        """
        data = open_ranged(self._store.objects, self._store.get(name))
        return self.open(digest, format) if data is None else data


def _endings() -> str:
    *others, last = (f".{format}" for format in FORMATS)
    return f"{', '.join(others)} or {last}"


def format_of(name: str) -> str:
    """The format that the ending of a file's name says.

    Raises:
        InputError: it says none.
    """
    ending = name.rpartition(".")[2].lower()
    ending = _ENDINGS.get(ending, ending)
    if ending not in FORMATS:
        got = name.rpartition("/")[2][-80:]
        raise InputError(f"pool: expected a {_endings()} file, got {got!r}: {CONVERT}")
    return ending


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
