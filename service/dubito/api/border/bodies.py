"""Reading a body: its content type, its limit, and JSON.

JSON is parsed by orjson, which refuses NaN and infinities; where it is long, in pieces.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from email.message import Message
from itertools import chain

import orjson
from anyio import to_thread
from anyio.lowlevel import checkpoint
from starlette.requests import Request

from dubito.api.border.encodings import Decoder, decoder
from dubito.api.border.errors import FieldProblem, FieldsError
from dubito.api.border.headers import header
from dubito.api.border.long_json import PIECE_BYTES, parse_long
from dubito.errors import InputError, TooLargeError, UnsupportedMediaTypeError
from dubito_nn.strict_json import DoubledKeyError, unique

ROWS = "DUBITO_MAX_BODY_BYTES"
"""The setting that bounds a body of rows."""

LONG_BYTES = 4 * PIECE_BYTES
"""Length from which on a body is decoded in pieces, and one after another."""

_JOINED_AT_ONCE = 2**20  # bytes; more would keep the loop from others
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')


def media_type(
    request: Request, allowed: tuple[str, ...], remedy: str = "set the header Content-Type"
) -> str:
    """The content type of a request without its parameters.

    Args:
        request: the request.
        allowed: what the route reads.
        remedy: what to do about another one.

    Raises:
        UnsupportedMediaTypeError: another one, none, or a content encoding that is not read.
    """
    sent = kind = header(request.scope, b"content-type") or ""
    if kind not in allowed:  # with parameters, or in capitals
        message = Message()
        message["content-type"] = kind
        kind = message.get_content_type() if "/" in kind else ""  # else it would be text/plain
    if kind not in allowed:
        raise UnsupportedMediaTypeError(
            f"content type: expected {' or '.join(allowed)}, got {sent[:80] or 'none'}: {remedy}"
        )
    decoder(request)  # refuses an encoding that is not read
    return kind


async def chunks_within(
    request: Request, limit_bytes: int, setting: str = ROWS
) -> AsyncIterator[bytes]:
    """The body in pieces, decompressed.

    Args:
        request: the request.
        limit_bytes: the most that the body may have, compressed and not.
        setting: that the limit comes from; empty: none.

    Raises:
        TooLargeError: it is longer than the limit; by its header if it tells, else once it is.
    """
    announced = header(request.scope, b"content-length") or ""
    if announced.isdecimal() and int(announced) > limit_bytes:
        raise _too_large(int(announced), limit_bytes, setting)
    decoding, sent, received, has_more = decoder(request), 0, 0, True
    while has_more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise InputError("the body broke off: send it again")
        chunk, has_more = message.get("body", b""), message.get("more_body", False)
        sent += len(chunk)
        if sent > limit_bytes:
            raise _too_large(sent, limit_bytes, setting)
        if decoding is None:
            yield chunk
            continue
        for piece in decoding.pieces(chunk):
            received += len(piece)
            if received > limit_bytes:
                raise _too_large(received, limit_bytes, setting, decoding)
            yield piece
            await checkpoint()  # others run
    if decoding is not None:
        decoding.finish()


async def read_body(
    request: Request,
    limit_bytes: int,
    setting: str = ROWS,
    *,
    take: Callable[[int], None] = lambda num_bytes: None,
) -> bytes:
    """The whole body; arguments as of `chunks_within`.

    Args:
        request: the request.
        limit_bytes: the most that the body may have.
        setting: that the limit comes from; empty: none.
        take: called with the length of every piece as it comes; may refuse it.

    Raises:
        TooLargeError: it is longer than the limit.
    """
    chunks, num_bytes = [], 0
    async for chunk in chunks_within(request, limit_bytes, setting):
        take(len(chunk))
        chunks.append(chunk)
        num_bytes += len(chunk)
    if num_bytes <= _JOINED_AT_ONCE:
        return b"".join(chunks)
    return await to_thread.run_sync(b"".join, chunks)


def parse_json(body: bytes, most_rows: int | None = None) -> Mapping[str, object]:
    """The JSON object of a body; rows of a long one are arrays (`long_json`).

    Args:
        body: all of it.
        most_rows: beyond which the rows of a long one are not read; None: all are.

    Raises:
        InputError: it is not JSON, holds NaN or an infinity, is no object, or has too many rows.
        FieldsError: a key stands twice in one object.
    """
    try:
        parsed = parse_long(body, _parse, most_rows) if len(body) > LONG_BYTES else _parse(body)
    except orjson.JSONDecodeError as error:
        raise InputError(
            f"body: expected JSON, got something that breaks at line {error.lineno}, "
            f"column {error.colno} ({error.msg}): correct it there (JSON has no NaN or Infinity)"
        ) from error
    if not isinstance(parsed, dict):
        raise InputError(
            f"body: expected a JSON object, got {type(parsed).__name__}: "
            'write {"inputs": [[...], ...]}'
        )
    return parsed


def _parse(piece: bytes) -> object:
    parsed = orjson.loads(piece)
    _refuse_doubled(piece, parsed)
    return parsed


def _refuse_doubled(body: bytes, parsed: object) -> None:
    """Refuse JSON with a key twice, of which orjson keeps the last.

    Every key has a colon: as many colons as keys are left, and none was doubled. Where texts hold
    colons as well, they are counted once more without the texts. So numbers are never looked at.

    Raises:
        FieldsError: naming the key.
    """
    num_keys = _num_keys(parsed, body.count(b"{"))
    if num_keys == body.count(b":") or num_keys == _TEXT.sub(b"", body).count(b":"):
        return
    try:
        json.loads(body, object_pairs_hook=unique)
    except DoubledKeyError as error:
        name = error.key
    except (ValueError, RecursionError):  # of what Python's reader does not take
        name = "body"
    raise FieldsError(
        [FieldProblem(name, "expected once in its object, got it twice: leave one out")]
    )


def _num_keys(parsed: object, num_braces: int) -> int:
    """The keys of all objects, looked for level by level until no brace is left for another."""
    num_keys, level = 0, [parsed]
    while level and num_braces > 0:
        objects = [value for value in level if type(value) is dict]
        num_keys += sum(map(len, objects))
        num_braces -= len(objects)
        lists = (value for value in level if type(value) is list)
        level = list(chain(*lists, *(value.values() for value in objects)))
    return num_keys


def _too_large(
    got: int, limit_bytes: int, setting: str, decoding: Decoder | None = None
) -> TooLargeError:
    remedy = f"have whoever runs the server raise {setting}" if setting else "send the fields alone"
    if setting == ROWS:
        remedy = f"send fewer rows at once, or arrays as .npy or .npz, or {remedy}"
    decompressed = "" if decoding is None else " once decompressed"
    return TooLargeError(
        f"body: expected at most {limit_bytes} bytes{decompressed}, got {got} or more: {remedy}"
    )
