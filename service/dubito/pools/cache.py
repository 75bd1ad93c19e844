"""Unpacked pools by digest, in a bounded folder: whole or not at all, the oldest leave first.

A pool is laid out beside its place and renamed when it is complete. What leaves while somebody
reads it stays readable to the end. Several processes may share the folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dubito import disk
from dubito.errors import DubitoError
from dubito.pools.data import PoolData

_PART = ".part"
_LEFT_OVER_AFTER_S = 24 * 3600


class PoolCache:
    """A bounded folder.

    Args:
        folder: made where it is missing.
        limit_bytes: most bytes of all pools; the last one stays even where it is larger.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        disk.make(folder)
        for path in folder.glob(f"*{_PART}"):  # of processes that were killed
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _LEFT_OVER_AFTER_S:
                    shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def room(self) -> Iterator[Path]:
        """An empty folder to lay a pool out in; gone afterwards unless it was kept."""
        with disk.writing(self._folder):
            path = Path(tempfile.mkdtemp(dir=self._folder, suffix=_PART))
            try:
                yield path
            finally:
                shutil.rmtree(path, ignore_errors=True)

    def keep(self, digest: str, laid_out: Path) -> None:
        """Take in a complete pool."""
        with suppress(OSError):  # it is there already
            laid_out.rename(self._folder / digest)
        self._shrink(keep=digest)

    def get(self, digest: str) -> PoolData | None:
        """A pool; None where it is not here, or was damaged and is gone now."""
        path = self._folder / digest
        try:
            found = PoolData(path)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (DubitoError, ValueError, LookupError):
            self.drop(digest)
            return None
        return found

    def drop(self, digest: str) -> None:
        """Forget a pool."""
        path = self._folder / digest
        with suppress(OSError):
            gone = path.with_name(f"{digest}.{time.monotonic_ns()}{_PART}")
            path.rename(gone)  # at once, so that nobody opens half of it
            shutil.rmtree(gone, ignore_errors=True)

    def _shrink(self, keep: str) -> None:
        found = sorted(self._sizes(), key=lambda entry: entry[1])
        total = sum(size for _, _, size in found)
        for digest, _, size in found:
            if total > self._limit_bytes and digest != keep:
                self.drop(digest)
                total -= size

    def _sizes(self) -> Iterator[tuple[str, int, int]]:
        """Each pool, when it was used last, and its size."""
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if path.suffix != _PART:
                    size = sum(file.stat().st_size for file in path.iterdir())
                    yield path.name, path.stat().st_mtime_ns, size
