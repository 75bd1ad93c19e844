"""Files in an object store, by addresses that the operator allowed: no other is ever opened.

An address is `s3://BUCKET/KEY` or `file:///PATH`; one with a slash at its end is a folder. It is
allowed where it begins with one of the prefixes of DUBITO_POOL_ADDRESSES, part of the path by part.
Whatever could make two readers understand an address differently (`..`, escapes, queries, users,
ports) is refused before it is compared, and a link out of an allowed folder is not followed.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dubito.errors import InputError, TooLargeError
from dubito.preprocess.images.archives import MAX_FILES
from dubito.registry.objects.buckets import list_below, read_address

_ADDRESS = re.compile(r"(?:s3://[a-z0-9][a-z0-9.-]{1,62}|file://)((?:/[A-Za-z0-9_=.,+ -]+)+)/?")
_MAX_LENGTH = 1000


def check_address(address: str, allowed: Sequence[str]) -> None:
    """Refuse an address that the operator did not allow.

    Args:
        address: what the caller wrote.
        allowed: prefixes, such as `s3://bucket/pools`.

    Raises:
        InputError: it is not understood, or not allowed.
    """
    match = _ADDRESS.fullmatch(address) if len(address) <= _MAX_LENGTH else None
    parts = match[1].split("/") if match else []
    if match is None or any(part.strip(".") == "" for part in parts[1:]):
        raise InputError(
            "address: expected s3://BUCKET/KEY or file:///PATH of plain letters, got "
            f"{address[:80]!r}: correct it"
        )
    if not any(_is_below(address, prefix) for prefix in allowed):
        raise InputError(
            "address: expected one below a prefix that DUBITO_POOL_ADDRESSES allows, got another "
            "one: ask whoever runs the server, or send the rows themselves"
        )


def pieces_of(
    address: str, allowed: Sequence[str], limit_bytes: int, *, allow_http: bool
) -> Iterator[bytes]:
    """The bytes at an address.

    Args:
        address: what the caller wrote.
        allowed: as of `check_address`.
        limit_bytes: most bytes.
        allow_http: whether a loopback endpoint may be spoken to without encryption.

    Raises:
        InputError: it is not allowed, or nothing is there.
        TooLargeError: there are more bytes.
        UnavailableError: the store does not answer.
    """
    check_address(address, allowed)
    if address.startswith("file://"):
        _check_links(address, allowed)
    total = 0
    for piece in read_address(address, allow_http=allow_http):
        total += len(piece)
        if total > limit_bytes:
            raise TooLargeError(
                f"address: expected at most {limit_bytes} bytes, got {total} or more: "
                "raise DUBITO_MAX_POOL_BYTES"
            )
        yield piece


def pack_folder(
    address: str, allowed: Sequence[str], limit_bytes: int, *, allow_http: bool
) -> Iterator[bytes]:
    """The files below an address as a TAR archive, by name, without times; arguments as above.

    Raises:
        InputError: it is not allowed, or nothing is there.
        TooLargeError: there are too many files or bytes.
        UnavailableError: the store does not answer.
    """
    check_address(address, allowed)
    if address.startswith("file://"):
        _check_links(address.rstrip("/"), allowed, is_there=Path.is_dir)
    names = sorted(list_below(address, MAX_FILES + 1, allow_http=allow_http))
    if not names or len(names) > MAX_FILES:
        got = "none" if not names else "more"
        raise InputError(f"address: expected 1 to {MAX_FILES} files below it, got {got}")
    left = limit_bytes
    for name in names:
        one = f"{address}{name}"
        content = b"".join(pieces_of(one, allowed, left, allow_http=allow_http))
        left -= len(content)
        info = tarfile.TarInfo(name)
        info.size = len(content)
        yield info.tobuf(tarfile.PAX_FORMAT)
        yield content + bytes(-len(content) % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _is_below(address: str, prefix: str) -> bool:
    return address.startswith(prefix.rstrip("/") + "/")


def _check_links(
    address: str, allowed: Sequence[str], *, is_there: Callable[[Path], bool] = Path.is_file
) -> None:
    real = Path(os.path.realpath(address.removeprefix("file://")))
    roots = [
        Path(os.path.realpath(prefix.removeprefix("file://")))
        for prefix in allowed
        if prefix.startswith("file://")
    ]
    if not any(real.is_relative_to(root) for root in roots) or not is_there(real):
        raise InputError("address: expected one within an allowed folder, got none: correct it")
