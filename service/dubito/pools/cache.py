"""Unpacked pools by digest, in a bounded folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dubito.errors import DubitoError
from dubito.folder_cache import FolderCache
from dubito.pools.data import PoolData


class PoolCache:
    """A bounded folder of pools.

    Args:
        folder: made where it is missing.
        limit_bytes: maximum size of all pools.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._entries = FolderCache(folder, limit_bytes)

    @contextmanager
    def room(self) -> Iterator[Path]:
        """An empty folder to lay a pool out in; gone afterwards unless it was kept."""
        with self._entries.room() as path:
            yield path

    def keep(self, digest: str, laid_out: Path) -> None:
        """Take in a complete pool."""
        self._entries.put(digest, laid_out)

    def get(self, digest: str) -> PoolData | None:
        """A pool; None where it is not here, or was damaged and is gone now."""
        try:
            data = PoolData(self._entries.path(digest))
        except FileNotFoundError:
            return None
        except (DubitoError, ValueError, LookupError):
            self.drop(digest)
            return None
        self._entries.use(digest)
        return data

    def drop(self, digest: str) -> None:
        """Forget a pool."""
        self._entries.drop(digest)
