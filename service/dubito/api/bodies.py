"""Reading a body: its content type, its limit, and JSON.

JSON is parsed by orjson, which refuses NaN and infinities.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from email.message import Message

import orjson
from starlette.requests import ClientDisconnect, Request

from dubito.errors import InputError, TooLargeError, UnsupportedMediaTypeError

JSON = "application/json"
NPY = "application/x-npy"
NPZ = "application/x-npz"
PARQUET = "application/vnd.apache.parquet"
OCTETS = "application/octet-stream"


def media_type(request: Request, allowed: tuple[str, ...]) -> str:
    """The content type of a request without its parameters.

    Args:
        request: the request.
        allowed: what the route reads.

    Raises:
        UnsupportedMediaTypeError: another one, none, or a content encoding.
    """
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    given = message.get_content_type() if message["content-type"] else ""
    if given not in allowed:
        raise UnsupportedMediaTypeError(
            f"content type: expected {' or '.join(allowed)}, got {given[:80] or 'none'}: "
            "set the header Content-Type"
        )
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise UnsupportedMediaTypeError(
            f"content encoding: expected none, got {encoding[:80]}: send the body as it is"
        )
    return given


def body_length(request: Request, limit_bytes: int) -> int:
    """The length that a body announces; the limit where it announces none.

    Raises:
        TooLargeError: it announces more than the limit.
    """
    announced = request.headers.get("content-length", "")
    if not announced.isdecimal():
        return limit_bytes
    if int(announced) > limit_bytes:
        raise _too_large(int(announced), limit_bytes)
    return int(announced)


async def chunks_within(request: Request, limit_bytes: int) -> AsyncIterator[bytes]:
    """The body in pieces.

    Raises:
        TooLargeError: it is longer than the limit; by its header if it tells, else once it is.
    """
    body_length(request, limit_bytes)
    received = 0
    try:
        async for chunk in request.stream():
            received += len(chunk)
            if received > limit_bytes:
                raise _too_large(received, limit_bytes)
            yield chunk
    except ClientDisconnect as error:
        raise InputError("the body broke off: send it again") from error


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body.

    Raises:
        TooLargeError: it is longer than the limit.
    """
    return b"".join([chunk async for chunk in chunks_within(request, limit_bytes)])


def parse_json(body: bytes) -> Mapping[str, object]:
    """The JSON object of a body.

    Raises:
        InputError: it is not JSON, holds NaN or an infinity, or is no object.
    """
    try:
        parsed = orjson.loads(body)
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


def _too_large(got: int, limit_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"body: expected at most {limit_bytes} bytes, got {got} or more: send fewer rows at once"
    )
