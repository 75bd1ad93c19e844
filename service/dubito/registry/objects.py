"""Bundles as immutable objects named by their SHA-256, in a local folder through obstore."""

from __future__ import annotations

from pathlib import Path

import obstore
from obstore.store import LocalStore

from dubito.errors import DubitoError


class Objects:
    """An object store of bundles.

    Args:
        folder: the local folder; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._store = LocalStore(folder.absolute(), mkdir=True)

    def put(self, digest: str, source: Path | bytes) -> None:
        """Store a bundle; an object of that digest is left as it is."""
        if not self.has(digest):
            obstore.put(self._store, _key(digest), source)

    def get(self, digest: str) -> bytes:
        """The bytes of a bundle.

        Raises:
            DubitoError: the database names an object that the store does not hold.
        """
        try:
            return obstore.get(self._store, _key(digest)).bytes().to_bytes()
        except FileNotFoundError as error:
            raise DubitoError(f"object {digest} is missing from the store") from error

    def has(self, digest: str) -> bool:
        """Whether a bundle of that digest is stored."""
        try:
            obstore.head(self._store, _key(digest))
        except FileNotFoundError:
            return False
        return True

    def delete(self, digest: str) -> None:
        """Remove a bundle; one that is not there is no error."""
        if self.has(digest):
            obstore.delete(self._store, _key(digest))


def _key(digest: str) -> str:
    return f"bundles/{digest[:2]}/{digest}.dubito"
