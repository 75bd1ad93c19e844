"""Stores of objects, their addresses, and what is said where they do not answer."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from dubito import disk
from dubito.addresses import is_loopback
from dubito.errors import InputError, UnavailableError

PIECE_BYTES = 8 * 2**20
"""Bytes that are read at once."""

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_RETRY_AFTER_S = 5.0
_RETRIES = 3
_RETRY_FOR = timedelta(seconds=20)
_SILENT_FOR = timedelta(minutes=1)  # a request of which no byte comes back is given up
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # obstore gives the number in its text alone


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
    with reachable(f"{parts.scheme}://{parts.netloc}"):
        try:
            store: LocalStore | S3Store
            if parts.scheme == "file":
                store = LocalStore(folder or "/")
            else:
                store, key = bucket(parts.netloc, None, allow_http, environment), parts.path[1:]
            for piece in obstore.get(store, key).stream(PIECE_BYTES):
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
    with reachable(f"{parts.scheme}://{parts.netloc}"):
        store: LocalStore | S3Store
        try:
            if parts.scheme == "file":
                store = LocalStore(parts.path)
            else:
                store = bucket(parts.netloc, parts.path.strip("/"), allow_http, environment)
            for batch in obstore.list(store):
                found += [str(entry["path"]) for entry in batch]
                if len(found) >= most:
                    break
        except FileNotFoundError as error:
            raise InputError("address: expected a folder there, got none: correct it") from error
    return found[:most]


def bucket(
    name: str, prefix: str | None, allow_http: bool, environment: Mapping[str, str]
) -> S3Store:
    """A bucket of S3.

    Args:
        name: of the bucket.
        prefix: folder within it.
        allow_http: whether a loopback endpoint may be spoken to without encryption.
        environment: holds the endpoint, the region and the credentials, as for every S3 client.

    Raises:
        InputError: an endpoint that may not be spoken to.
    """
    endpoint = next((environment[key] for key in _ENDPOINTS if environment.get(key)), None)
    return S3Store(
        name,
        prefix=prefix,
        client_options={
            "allow_http": _check_endpoint(endpoint, allow_http),
            "connect_timeout": timedelta(seconds=5),
            "read_timeout": _SILENT_FOR,
            "timeout": timedelta(minutes=10),
        },
        retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_FOR},
        config={"endpoint": endpoint} if endpoint else {},
    )


@contextmanager
def reachable(shown: str, folder: Path | None = None) -> Iterator[None]:
    """Say in our words that a store does not answer, or that its disk is full.

    Args:
        shown: name of the place.
        folder: of a local store.

    Raises:
        UnavailableError: it does not answer.
        DubitoError: what `disk.refusal` says of the folder.
    """
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
