"""Bundles as immutable objects named by their SHA-256, in a folder or an S3 bucket, by obstore.

What is read has the digest that it was asked by. Objects of a bucket are downloaded once, into a
verified local cache.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from dubito import disk
from dubito.addresses import is_loopback
from dubito.errors import DubitoError, InputError, UnavailableError
from dubito.registry.cache import BundleCache

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_PREFIX = "bundles"
_SUFFIX = ".dubito"
_RETRY_AFTER_S = 5.0
_RETRIES = 3
_RETRY_FOR = timedelta(seconds=20)
_PIECE_BYTES = 8 * 2**20
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # obstore gives the number in its text alone


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
        store = _bucket(parts.netloc, parts.path.strip("/") or None, allow_http, environment)
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
            DubitoError: the store does not hold the object, or holds it damaged.
            UnavailableError: the store does not answer.
        """
        if self._cache is not None:
            content = self._cache.get(digest)
            return self._cache.fill(digest, self._pieces(digest)) if content is None else content
        content = b"".join(self._pieces(digest))
        if hashlib.sha256(content).hexdigest() != digest:
            raise DubitoError(f"object {digest} is damaged")
        return content

    def pieces(self, digest: str) -> Iterator[bytes]:
        """The bytes of an object piece by piece; the last one comes only if the digest is right.

        Raises:
            DubitoError: the store does not hold the object, or holds it damaged.
            UnavailableError: the store does not answer.
        """
        hasher, held = hashlib.sha256(), b""
        for piece in self._pieces(digest):
            hasher.update(piece)
            yield held
            held = piece
        if hasher.hexdigest() != digest:
            raise DubitoError(f"object {digest} is damaged")
        yield held

    def actual_digest(self, digest: str) -> str:
        """The SHA-256 of what the store holds under a digest, read from the store itself.

        Raises:
            DubitoError: the store does not hold the object.
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
        with self._reachable():
            try:
                for piece in obstore.get(self._store, self._key(digest)).stream(_PIECE_BYTES):
                    yield bytes(piece)
            except FileNotFoundError as error:
                raise DubitoError(f"object {digest} is missing from {self._shown}") from error

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
        with _reachable(self._shown, self._folder):
            yield


def read_address(
    address: str, *, allow_http: bool = False, environment: Mapping[str, str] = os.environ
) -> Iterator[bytes]:
    """The bytes of any object, by its address; whether it may be read is not asked here.

    Args:
        address: `s3://BUCKET/KEY` or `file:///PATH`.
        allow_http: as of `Objects.open`.
        environment: as of `Objects.open`.

    Raises:
        InputError: nothing is there.
        UnavailableError: the store does not answer.
    """
    parts = urlsplit(address)
    folder, _, key = parts.path.rpartition("/")
    with _reachable(f"{parts.scheme}://{parts.netloc}"):
        try:
            store: LocalStore | S3Store
            if parts.scheme == "file":
                store = LocalStore(folder or "/")
            else:
                store, key = _bucket(parts.netloc, None, allow_http, environment), parts.path[1:]
            for piece in obstore.get(store, key).stream(_PIECE_BYTES):
                yield bytes(piece)
        except FileNotFoundError as error:
            raise InputError("address: expected an object there, got none: correct it") from error


def list_below(
    address: str,
    most: int,
    *,
    allow_http: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> list[str]:
    """Names of the objects below a folder, relative to it; `most` of them.

    Args:
        address: as of `read_address`, with a slash at its end.
        most: of which no more are looked for.
        allow_http: as of `Objects.open`.
        environment: as of `Objects.open`.

    Raises:
        InputError: no such folder.
        UnavailableError: the store does not answer.
    """
    parts = urlsplit(address)
    found: list[str] = []
    with _reachable(f"{parts.scheme}://{parts.netloc}"):
        store: LocalStore | S3Store
        try:
            if parts.scheme == "file":
                store = LocalStore(parts.path)
            else:
                store = _bucket(parts.netloc, parts.path.strip("/"), allow_http, environment)
            for batch in obstore.list(store):
                found += [str(entry["path"]) for entry in batch]
                if len(found) >= most:
                    break
        except FileNotFoundError as error:
            raise InputError("address: expected a folder there, got none: correct it") from error
    return found[:most]


def _bucket(
    name: str, prefix: str | None, allow_http: bool, environment: Mapping[str, str]
) -> S3Store:
    endpoint = next((environment[key] for key in _ENDPOINTS if environment.get(key)), None)
    return S3Store(
        name,
        prefix=prefix,
        client_options={
            "allow_http": _check_endpoint(endpoint, allow_http),
            "connect_timeout": timedelta(seconds=5),
            "timeout": timedelta(minutes=10),
        },
        retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_FOR},
        config={"endpoint": endpoint} if endpoint else {},
    )


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


@contextmanager
def _reachable(shown: str, folder: Path | None = None) -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:  # FileNotFoundError: no such bucket
        refusal = None if folder is None else disk.refusal(folder, _code(error))
        if refusal is not None:
            raise refusal from error
        raise UnavailableError(
            "the object store does not answer: try again later, or ask whoever runs the server",
            retry_after_s=_RETRY_AFTER_S,
            operator=f"the object store {shown} does not answer ({type(error).__name__}): check "
            "that it runs, that the bucket exists and that the credentials are right",
        ) from error


def _code(error: Exception) -> int | None:
    """The number of `errno` behind an error."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    stated = _OS_ERROR.search(str(error))
    return None if stated is None else int(stated[1])


def _check_endpoint(endpoint: str | None, allow_http: bool) -> bool:
    """Whether an endpoint is spoken to without encryption.

    Raises:
        InputError: it would be, and is not loopback or not allowed.
    """
    if endpoint is None:
        return False
    parts = urlsplit(endpoint)
    if parts.scheme == "https":
        return False
    if parts.scheme == "http" and allow_http and is_loopback(parts.hostname or ""):
        return True
    raise InputError(
        f"object store: expected an https endpoint, got {parts.scheme}://{parts.hostname}: use "
        "https (http is for a loopback endpoint, with DUBITO_OBJECT_STORE_ALLOW_HTTP=true)"
    )
