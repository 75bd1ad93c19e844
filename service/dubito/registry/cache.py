"""Bundles of a distant store, kept in a local folder: whole or not at all, the oldest leave first.

A file is written beside its place while its digest is taken, and renamed when the digest is right.
Every reading checks the digest again. Several processes may share the folder.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from dubito import disk
from dubito.errors import DubitoError

_SUFFIX = ".dubito"
_PART = ".part"
_LEFT_OVER_AFTER_S = 3600


class Cache:
    """A bounded folder of bundles by digest.

    Args:
        folder: made where it is missing.
        limit_bytes: most bytes of all files; the last one stays even where it is larger.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        disk.make(folder)
        for path in folder.glob(f"*{_PART}"):  # of downloads that were killed
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _LEFT_OVER_AFTER_S:
                    path.unlink()

    def get(self, digest: str) -> bytes | None:
        """The bytes of a bundle; None where it is not here, or was damaged and is gone now."""
        path = self._path(digest)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(content).hexdigest() != digest:
            path.unlink(missing_ok=True)
            return None
        with suppress(FileNotFoundError):
            os.utime(path)
        return content

    def fill(self, digest: str, pieces: Iterable[bytes]) -> bytes:
        """Take in a bundle and return it.

        Args:
            digest: SHA-256 that the pieces must have together.
            pieces: the bundle, in order.

        Raises:
            DubitoError: they have another digest, or the disk is full; nothing is kept.
        """
        with disk.incoming(self._folder, _PART) as part:
            found = hashlib.sha256()
            with part.open("wb") as file:
                for piece in pieces:
                    found.update(piece)
                    file.write(piece)
            if found.hexdigest() != digest:
                raise DubitoError(f"object {digest} is damaged: its bytes are {found.hexdigest()}")
            content = part.read_bytes()
            part.replace(self._path(digest))
        self._shrink(keep=digest)
        return content

    def drop(self, digest: str) -> None:
        """Forget a bundle."""
        self._path(digest).unlink(missing_ok=True)

    def _shrink(self, keep: str) -> None:
        files = sorted(self._files(), key=lambda entry: entry[1])
        total = sum(size for _, _, size in files)
        for path, _, size in files:
            if total > self._limit_bytes and path != self._path(keep):
                path.unlink(missing_ok=True)
                total -= size

    def _files(self) -> Iterator[tuple[Path, int, int]]:
        """Each file, when it was used last, and its size."""
        for path in self._folder.glob(f"*{_SUFFIX}"):
            with suppress(FileNotFoundError):
                found = path.stat()
                yield path, found.st_mtime_ns, found.st_size

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}{_SUFFIX}"
