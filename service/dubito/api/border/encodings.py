"""Compressed bodies: gzip and zstd, decompressed as they come, no faster than they are taken.

A few bytes can become any number of them. So nothing is decompressed beyond a piece, and whoever
takes the pieces counts them. zstd is that of Python 3.14, from `backports.zstd` before: it has the
bound on what one call returns.

Source: RFC 9110, section 8.4; RFC 9659 (windows of 8 MiB at most).
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from starlette.requests import Request

from dubito.api.border.headers import header_list
from dubito.errors import InputError, UnsupportedMediaTypeError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_PIECE_BYTES = 128 * 1024
_GZIP = 16 + zlib.MAX_WBITS
_LARGEST_WINDOW_LOG = 23
_DAMAGE = (zlib.error, zstd.ZstdError)


class Decompressor(Protocol):
    """One stream: a member of gzip, a frame of zstd."""

    @property
    def eof(self) -> bool:
        """Whether it has ended."""

    @property
    def unused_data(self) -> bytes:
        """What came behind its end."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """At most so many bytes of what comes next."""


class Decoder:
    """Decompresses one body.

    Args:
        name: of the encoding.
        begin: makes the decompressor of one stream; a body may hold several.
    """

    def __init__(self, name: str, begin: Callable[[], Decompressor]) -> None:
        self._name = name
        self._begin = begin
        self._stream: Decompressor | None = None

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """What a chunk of the body becomes, piece by piece.

        Raises:
            InputError: it is damaged.
        """
        has_more = bool(chunk)
        while has_more:
            stream = self._stream = self._stream or self._begin()
            try:
                piece = stream.decompress(chunk, _PIECE_BYTES)
            except _DAMAGE as error:
                raise InputError(
                    f"body: expected {self._name} as Content-Encoding says, got something else "
                    f"({error}): compress it again, or leave the header out"
                ) from error
            chunk = getattr(stream, "unconsumed_tail", b"")  # zstd keeps what it did not read
            if stream.eof:
                chunk, self._stream = stream.unused_data, None
            has_more = bool(chunk) or (len(piece) == _PIECE_BYTES and not stream.eof)
            yield piece

    def finish(self) -> None:
        """The body has ended.

        Raises:
            InputError: within a stream.
        """
        if self._stream is not None:
            raise InputError(f"body: expected the end of its {self._name}, got a part: send all")


def _zstd() -> Decompressor:
    largest: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _LARGEST_WINDOW_LOG}
    stream: Decompressor = zstd.ZstdDecompressor(options=largest)
    return stream


def _gzip() -> Decompressor:
    return zlib.decompressobj(_GZIP)


ENCODINGS: dict[str, Callable[[], Decompressor]] = {"gzip": _gzip, "x-gzip": _gzip, "zstd": _zstd}
"""What `Content-Encoding` may name."""


def decoder(request: Request) -> Decoder | None:
    """What decompresses a body; None where it comes as it is.

    Raises:
        UnsupportedMediaTypeError: another encoding, or several.
    """
    named = header_list(request.scope, b"content-encoding").strip().lower() or "identity"
    if named == "identity":
        return None
    if named not in ENCODINGS:
        raise UnsupportedMediaTypeError(
            f"content encoding: expected gzip, zstd or none, got {named[:80]}: compress the body "
            "so, or send it as it is"
        )
    return Decoder(named, ENCODINGS[named])
