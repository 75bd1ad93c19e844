"""Bundles as immutable objects named by their SHA-256, in a folder or an S3 bucket, by obstore.

What is read has the digest that it was asked by. Objects of a bucket are downloaded once, into a
verified local cache.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import LocalStore, S3Store

from dubito import disk
from dubito.errors import DamagedError, InputError
from dubito.registry.objects.buckets import PIECE_BYTES, bucket, reachable
from dubito.registry.objects.cache import BundleCache

_PREFIX = "bundles"
_SUFFIX = ".dubito"


@dataclass(frozen=True)
class StoredObject:
    """An object as the store lists it."""

    digest: str
    size_bytes: int
    stored_at: datetime


class Objects:
    """An object store of bundles, or of other things that are named by their digest.

    Args:
        store: where they lie.
        shown: name of the place, for messages.
        folder: the folder of a local store.
        cache: of a distant store.
        prefix: folder of the objects within the store.
        suffix: of their names.
    """

    def __init__(
        self,
        store: LocalStore | S3Store,
        shown: str,
        *,
        folder: Path | None = None,
        cache: BundleCache | None = None,
        prefix: str = _PREFIX,
        suffix: str = _SUFFIX,
    ) -> None:
        self._store = store
        self._shown = shown
        self._folder = folder
        self._cache = cache
        self._prefix = prefix
        self._suffix = suffix

    @classmethod
    def local(cls, folder: Path) -> Objects:
        """Objects in a folder, which is made where it is missing."""
        disk.make(folder)
        return cls(LocalStore(folder.absolute()), str(folder), folder=folder.absolute())

    @classmethod
    def open(
        cls,
        url: str,
        cache: BundleCache,
        *,
        allow_http: bool = False,
        environment: Mapping[str, str] = os.environ,
    ) -> Objects:
        """Return the objects that a URL names.

        Args:
            url: `s3://BUCKET/PREFIX` or `file:///FOLDER`.
            cache: where objects of a bucket are kept.
            allow_http: whether a loopback endpoint may be spoken to without encryption.
            environment: holds the endpoint, the region and the credentials, as for every S3 client.

        Raises:
            InputError: another kind of URL, or an endpoint that may not be spoken to.
        """
        parts = urlsplit(url)
        is_plain = "?" not in url and "#" not in url
        if is_plain and parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
            return cls.local(_folder_of(parts.path))
        if not is_plain or parts.scheme != "s3" or not parts.netloc:
            got = "`?` or `#`" if not is_plain else parts.scheme or "no scheme"
            raise InputError(
                f"object store: expected s3://BUCKET/PREFIX or file:///FOLDER, got {got}: correct "
                "DUBITO_OBJECT_STORE_URL (file:// writes % as %25, ? as %3F and # as %23)"
            )
        store = bucket(parts.netloc, parts.path.strip("/") or None, allow_http, environment)
        return cls(store, f"s3://{parts.netloc}{parts.path}", cache=cache)

    def beside(self, prefix: str, suffix: str = "") -> Objects:
        """Objects of another kind in the same store, which are not kept in a cache."""
        return Objects(self._store, self._shown, folder=self._folder, prefix=prefix, suffix=suffix)

    def put(self, digest: str, source: Path | bytes) -> None:
        """Store a bundle; an object of that digest and size is left as it is.

        Args:
            digest: SHA-256 of the bundle.
            source: the bundle.

        Raises:
            UnavailableError: the store does not answer.
        """
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        with self._reachable():
            if self._size(digest) != size:
                obstore.put(self._store, self._key(digest), source)
                self._settle(digest)

    def get(self, digest: str) -> bytes:
        """The bytes of a bundle, which have that digest.

        Raises:
            DamagedError: the store does not hold the object, or holds it damaged.
            UnavailableError: the store does not answer.
        """
        if self._cache is not None:
            content = self._cache.get(digest)
            return self._cache.fill(digest, self._pieces(digest)) if content is None else content
        content = b"".join(self._pieces(digest))
        if hashlib.sha256(content).hexdigest() != digest:
            raise DamagedError(f"object {digest}", f"in {self._shown} is damaged")
        return content

    def pieces(self, digest: str) -> Iterator[bytes]:
        """The bytes of an object piece by piece; the last one comes only if the digest is right.

        Raises:
            DamagedError: the store does not hold the object, or holds it damaged.
            UnavailableError: the store does not answer.
        """
        hasher, held = hashlib.sha256(), b""
        for piece in self._pieces(digest):
            hasher.update(piece)
            yield held
            held = piece
        if hasher.hexdigest() != digest:
            raise DamagedError(f"object {digest}", f"in {self._shown} is damaged")
        yield held

    def ranges(self, digest: str, starts: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """Pieces of an object, whose digest cannot be checked so; fewer bytes at its end.

        Args:
            digest: of the object.
            starts: first byte of each.
            sizes: bytes of each, at least 1.

        Raises:
            DamagedError: the store does not hold the object.
            UnavailableError: the store does not answer.
        """
        with self._found(digest):
            key = self._key(digest)
            pieces = obstore.get_ranges(self._store, key, starts=starts, lengths=sizes)
            return [bytes(piece) for piece in pieces]

    def actual_digest(self, digest: str) -> str:
        """The SHA-256 of what the store holds under a digest, read from the store itself.

        Raises:
            DamagedError: the store does not hold the object.
            UnavailableError: the store does not answer.
        """
        hasher = hashlib.sha256()
        for piece in self._pieces(digest):
            hasher.update(piece)
        return hasher.hexdigest()

    def has(self, digest: str) -> bool:
        """Whether a bundle of that digest is stored.

        Raises:
            UnavailableError: the store does not answer.
        """
        with self._reachable():
            return self._size(digest) is not None

    def delete(self, digest: str) -> None:
        """Remove a bundle; one that is not there is no error.

        Raises:
            UnavailableError: the store does not answer.
        """
        with self._reachable():
            if self._size(digest) is not None:
                obstore.delete(self._store, self._key(digest))
        if self._cache is not None:
            self._cache.drop(digest)

    def stored(self) -> Iterator[StoredObject]:
        """Yield all objects.

        Raises:
            UnavailableError: the store does not answer.
        """
        with self._reachable():
            for batch in obstore.list(self._store, prefix=self._prefix):
                for meta in batch:
                    name = meta["path"].rpartition("/")[2]
                    digest = name.removesuffix(self._suffix)
                    if meta["path"].endswith(self._key(digest)):
                        yield StoredObject(digest, meta["size"], meta["last_modified"])

    def unfinished(self) -> Iterator[Path]:
        """Files that killed writers left in a folder; a bucket hides them itself."""
        if self._folder is not None:
            yield from (self._folder / self._prefix).glob(f"*/*{self._suffix}#*")

    def _pieces(self, digest: str) -> Iterator[bytes]:
        with self._found(digest):
            for piece in obstore.get(self._store, self._key(digest)).stream(PIECE_BYTES):
                yield bytes(piece)

    @contextmanager
    def _found(self, digest: str) -> Iterator[None]:
        with self._reachable():
            try:
                yield
            except FileNotFoundError as error:
                raise DamagedError(f"object {digest}", f"is missing from {self._shown}") from error

    def _key(self, digest: str) -> str:
        return f"{self._prefix}/{digest[:2]}/{digest}{self._suffix}"

    def _size(self, digest: str) -> int | None:
        try:
            return obstore.head(self._store, self._key(digest))["size"]
        except FileNotFoundError:
            return None

    def _settle(self, digest: str) -> None:
        """Have the disk hold what a folder shows, before a record may name it."""
        if self._folder is None:
            return
        path = self._folder / self._key(digest)
        for synced in (path, path.parent, path.parent.parent, self._folder):
            handle = os.open(synced, os.O_RDONLY)
            try:
                os.fsync(handle)
            except OSError:  # some systems do not sync folders
                if synced == path:
                    path.unlink(missing_ok=True)
                    raise
            finally:
                os.close(handle)

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        with reachable(self._shown, self._folder):
            yield


def _folder_of(path: str) -> Path:
    """The folder that the path of a file:// URL means.

    Raises:
        InputError: there is one of the undecoded name, which earlier builds took.
    """
    folder = Path(unquote(path))
    if path != str(folder) and Path(path).is_dir() and not folder.exists():
        raise InputError(
            f"object store: expected the folder {folder}, which DUBITO_OBJECT_STORE_URL means, got "
            f"{path}, where an earlier build put it: write its % as %25"
        )
    return folder
