"""Error bodies where no request has reached a route yet: written to the connection as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from http import HTTPStatus

from starlette.responses import Response

from dubito.api.border.context import callers_id
from dubito.api.border.errors import error_response, status_response
from dubito.api.connections.limits import ConnectionLimits
from dubito.errors import DubitoError, HeadersTooLargeError, SlowRequestError, UnavailableError

Header = tuple[bytes, bytes]
_DIGEST_BYTES = 12

HOST = "Host"
"""What a parser would say of a request without `Host`, or with two."""

_LENGTH, _CODING = "`Content-Length`", "`Transfer-Encoding`"
_SHOWN = {
    HOST: "a request of HTTP/1.1 with one `Host`, got none, or several",
    "Invalid character in Content-Length": f"a whole number as {_LENGTH}, got something else",
    "Content-Length overflow": f"a number of bytes as {_LENGTH}, got more than there can be",
    "Duplicate Content-Length": f"one {_LENGTH}, got two",
    "Transfer-Encoding can't be present with Content-Length": f"{_LENGTH} or {_CODING}, got both",
    "Content-Length can't be present with Transfer-Encoding": f"{_LENGTH} or {_CODING}, got both",
    "Request has invalid `Transfer-Encoding`": f"`chunked` as the last {_CODING}, got another",
    "Invalid character in chunk size": "a hexadecimal number as the size of a chunk, got another",
    "Invalid header value char": "printable values of headers, got a control character",
    "Invalid header token": "names of headers of letters, digits and `-`, got another character",
    "Invalid HTTP version": "a request of HTTP/1.1, got another version",
    "Invalid method encountered": "a method of HTTP, got another word (or TLS on a plain port)",
    "Invalid char in url path": "a path of printable ASCII characters, got another character",
}
"""What is wrong, by what httptools' parser says of it."""


def too_many_headers(limits: ConnectionLimits) -> DubitoError:
    """More headers than a request may have."""
    return HeadersTooLargeError(
        f"headers: expected at most {limits.headers}, got more: leave some out, or have whoever "
        "runs the server raise DUBITO_MAX_HEADERS"
    )


def too_long_headers(limits: ConnectionLimits) -> DubitoError:
    """More bytes than a request may have before its body."""
    return HeadersTooLargeError(
        f"request line and headers: expected at most {limits.header_bytes} bytes, got more: "
        "shorten them, or have whoever runs the server raise DUBITO_MAX_HEADER_BYTES"
    )


def slow_headers(limits: ConnectionLimits) -> DubitoError:
    """A request line or headers that take too long."""
    return SlowRequestError(
        f"headers: expected all of them within {limits.header_s:g} s, got a part: send the "
        "request again, at once"
    )


def slow_body(limits: ConnectionLimits) -> DubitoError:
    """A body that takes too long."""
    return SlowRequestError(
        f"body: expected {limits.rate} bytes per second, and no pause of {limits.transfer_s:g} s, "
        "got fewer: send the request again, at once"
    )


def crowded(limits: ConnectionLimits) -> DubitoError:
    """A connection beyond those that there may be."""
    return UnavailableError(
        f"connections: expected at most {limits.connections}, got one more, and all are in use: "
        "try again later",
        retry_after_s=1.0,
    )


def written(
    error: DubitoError | str, url: bytes, headers: Iterable[Header], always: Iterable[Header]
) -> bytes:
    """A whole reply with the one error body; the connection ends behind it.

    Args:
        error: what is refused; a text: why it is no HTTP, as the parser says.
        url: of the request, as far as it is known.
        headers: of the request, as far as they are known.
        always: headers of every reply.
    """
    id = callers_id(next((value for name, value in headers if name == b"x-request-id"), b""))
    id = id or hashlib.blake2b(url, digest_size=_DIGEST_BYTES).hexdigest()
    response = _malformed(error, id) if isinstance(error, str) else error_response(error, id)
    lines = [*always, *response.raw_headers, (b"x-request-id", id.encode())]
    status = HTTPStatus(response.status_code)
    head = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
    head += [name + b": " + value for name, value in lines]
    return b"\r\n".join([*head, b"connection: close", b"", bytes(response.body)])


def _malformed(reason: str, id: str) -> Response:
    shown = _SHOWN.get(reason, "a request of HTTP/1.1, got something else")
    detail = f"expected {shown}: correct what sends it"
    return status_response(HTTPStatus.BAD_REQUEST, detail, id)
