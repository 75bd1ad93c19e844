"""Bundles of a distant store, kept in a local folder; every reading checks the digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from dubito.errors import DamagedError
from dubito.folder_cache import FolderCache

_SUFFIX = ".dubito"


class BundleCache:
    """A bounded folder of bundles by digest.

    Args:
        folder: made where it is missing.
        limit_bytes: maximum size of all bundles.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._entries = FolderCache(folder, limit_bytes)

    def get(self, digest: str) -> bytes | None:
        """The bytes of a bundle; None where it is not here, or was damaged and is gone now."""
        name = f"{digest}{_SUFFIX}"
        try:
            content = self._entries.path(name).read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(content).hexdigest() != digest:
            self._entries.drop(name)
            return None
        self._entries.use(name)
        return content

    def fill(self, digest: str, pieces: Iterable[bytes]) -> bytes:
        """Take in a bundle and return it.

        Args:
            digest: SHA-256 that the pieces must have together.
            pieces: the bundle, in order.

        Raises:
            DamagedError: they have another digest; nothing is kept.
            StorageFullError: the disk is full; nothing is kept.
        """
        with self._entries.room() as room:
            taken, part = hashlib.sha256(), room / digest
            with part.open("wb") as file:
                for piece in pieces:
                    taken.update(piece)
                    file.write(piece)
            if taken.hexdigest() != digest:
                raise DamagedError(
                    f"object {digest}", f"is damaged: its bytes are {taken.hexdigest()}"
                )
            content = part.read_bytes()
            self._entries.put(f"{digest}{_SUFFIX}", part)
        return content

    def drop(self, digest: str) -> None:
        """Forget a bundle."""
        self._entries.drop(f"{digest}{_SUFFIX}")
