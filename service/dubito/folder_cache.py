"""Entries of a bounded folder, whole or not at all; the least recently used are evicted first.

An entry is a file or a folder. It is made beside its place and renamed when it is complete. What
is evicted while somebody reads it stays readable to the end. Several processes may share a folder.
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

_PART = ".part"
_LEFT_OVER_AFTER_S = 24 * 3600


class FolderCache:
    """A folder of entries, bounded in bytes.

    Args:
        folder: made where it is missing.
        limit_bytes: maximum size of all entries; the last one stays even where it is larger.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        disk.make(folder)
        for path in folder.glob(f"*{_PART}"):  # of processes that were killed
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _LEFT_OVER_AFTER_S:
                    _delete(path)

    @contextmanager
    def room(self) -> Iterator[Path]:
        """An empty folder to make an entry in; gone afterwards.

        Raises:
            DubitoError: the disk is full, or the folder may not be written.
        """
        with disk.writing(self._folder):
            path = Path(tempfile.mkdtemp(dir=self._folder, suffix=_PART))
            try:
                yield path
            finally:
                _delete(path)

    def path(self, name: str) -> Path:
        """Where an entry is, or would be."""
        return self._folder / name

    def use(self, name: str) -> None:
        """Note that an entry was used just now."""
        with suppress(FileNotFoundError):
            os.utime(self.path(name))

    def put(self, name: str, complete: Path) -> None:
        """Move a complete entry to its place, and evict others where there are too many.

        Args:
            name: of the entry.
            complete: a file or folder inside a `room`, or the room itself.
        """
        with suppress(OSError):  # a folder of that name is there already
            complete.replace(self.path(name))
        self._evict(but=name)

    def drop(self, name: str) -> None:
        """Forget an entry."""
        path = self.path(name)
        with suppress(OSError):
            gone = path.with_name(f"{name}.{time.monotonic_ns()}{_PART}")
            path.rename(gone)  # at once, so that nobody opens half of it
            _delete(gone)

    def _evict(self, but: str) -> None:
        entries = sorted(self._entries(), key=lambda entry: entry[1])
        total = sum(size for _, _, size in entries)
        for name, _, size in entries:
            if total > self._limit_bytes and name != but:
                self.drop(name)
                total -= size

    def _entries(self) -> Iterator[tuple[str, int, int]]:
        """Each entry, when it was used last, and its size."""
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if path.suffix != _PART:
                    files = path.iterdir() if path.is_dir() else [path]
                    size = sum(file.stat().st_size for file in files)
                    yield path.name, path.stat().st_mtime_ns, size


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
