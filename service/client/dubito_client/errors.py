"""What can go wrong, by the same names as on the server, with its own words.

    DubitoError
    ├── InputError                 422  rows, bounds, names, fields; or what cannot be sent at all
    │   └── BundleRefusedError     422  a bundle that is damaged, hostile or of another format
    ├── UnauthorizedError          401
    ├── ForbiddenError             403
    ├── NotFoundError              404
    ├── SlowRequestError           408
    ├── ConflictError              409
    ├── PreconditionFailedError    412
    ├── TooLargeError              413
    ├── UnsupportedMediaTypeError  415
    ├── QueueFullError             429
    │   └── KeyLimitError          429  of one key
    ├── HeadersTooLargeError       431
    ├── UnavailableError           503
    │   └── UnreachableError            no answer came at all
    ├── DamagedError               503
    ├── DeadlineError              504
    ├── StorageFullError           507
    └── ReplyError                      an answer that no Dubito server gives

Flow: an answer that is no success → `problem` → the class that its `type` names, else its status.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import httpx

_TYPE = "urn:dubito:error:"
_MAX_WORDS = 200


class DubitoError(Exception):
    """Whatever is refused, or fails.

    Args:
        detail: what was expected, what came, and what to do about it.
        code: status of the answer; None where there was none.
        request_id: under which the server's log has it.
        retry_after_s: when to try again, as the server says.
        fields: what was refused, by path, where single fields were.
    """

    status: ClassVar[int | None] = 500
    kind: ClassVar[str | None] = "internal"

    def __init__(
        self,
        detail: str,
        *,
        code: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail if request_id is None else f"{detail} (request {request_id})")
        self.detail = detail
        self.code = code
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.fields = dict(fields or {})


class InputError(DubitoError):
    """What was given cannot be used: shape, type, bounds, names."""

    status: ClassVar[int | None] = 422
    kind: ClassVar[str | None] = "input"


class BundleRefusedError(InputError):
    """A bundle that is damaged, hostile or of an unknown format; nothing of it is stored."""

    kind: ClassVar[str | None] = "bundle"


class UnauthorizedError(DubitoError):
    """No key, or a wrong one."""

    status: ClassVar[int | None] = 401
    kind: ClassVar[str | None] = "unauthorized"


class ForbiddenError(DubitoError):
    """A key without the scope that the route needs."""

    status: ClassVar[int | None] = 403
    kind: ClassVar[str | None] = "forbidden"


class NotFoundError(DubitoError):
    """An unknown model, version, alias, pool, job or path."""

    status: ClassVar[int | None] = 404
    kind: ClassVar[str | None] = "not-found"


class SlowRequestError(DubitoError):
    """Headers or a body that took longer to come than they may."""

    status: ClassVar[int | None] = 408
    kind: ClassVar[str | None] = "slow"


class ConflictError(DubitoError):
    """The present state does not allow the change."""

    status: ClassVar[int | None] = 409
    kind: ClassVar[str | None] = "conflict"


class PreconditionFailedError(DubitoError):
    """The revision that was named is no longer the present one."""

    status: ClassVar[int | None] = 412
    kind: ClassVar[str | None] = "precondition"


class TooLargeError(DubitoError):
    """A body over the limit."""

    status: ClassVar[int | None] = 413
    kind: ClassVar[str | None] = "too-large"


class UnsupportedMediaTypeError(DubitoError):
    """A content type that the route does not read."""

    status: ClassVar[int | None] = 415
    kind: ClassVar[str | None] = "media-type"


class QueueFullError(DubitoError):
    """More waits than the queue may hold, and still did when patience was at its end."""

    status: ClassVar[int | None] = 429
    kind: ClassVar[str | None] = "queue-full"


class KeyLimitError(QueueFullError):
    """More requests in a second, or at once, than the key may send."""

    kind: ClassVar[str | None] = "key-limit"


class HeadersTooLargeError(DubitoError):
    """More headers, or longer ones, than a request may have."""

    status: ClassVar[int | None] = 431
    kind: ClassVar[str | None] = "headers"


class UnavailableError(DubitoError):
    """Draining, or not ready yet, and still so when patience was at its end."""

    status: ClassVar[int | None] = 503
    kind: ClassVar[str | None] = "unavailable"


class UnreachableError(UnavailableError):
    """No answer came: nobody listens there, or the connection broke."""

    status = None
    kind = None


class DamagedError(DubitoError):
    """Something stored is damaged or missing: whoever runs the server has to restore it."""

    status: ClassVar[int | None] = 503
    kind: ClassVar[str | None] = "damaged"


class DeadlineError(DubitoError):
    """The time that the request was given passed before the answer was there."""

    status: ClassVar[int | None] = 504
    kind: ClassVar[str | None] = "deadline"


class StorageFullError(DubitoError):
    """The server has no room for what has to be written; nothing of it is stored."""

    status: ClassVar[int | None] = 507
    kind: ClassVar[str | None] = "disk-full"


class ReplyError(DubitoError):
    """An answer that no Dubito server gives: of a proxy, of another program, or cut off."""

    status = None
    kind = None


def problem(response: httpx.Response) -> DubitoError:
    """The error that an answer tells of, or its status where the body is not Dubito's.

    Args:
        response: no success, and read to its end.
    """
    code, told = response.status_code, _told(response)
    name = str(told.get("type", "")).removeprefix(_TYPE)
    kinds = {kind.kind: kind for kind in _tree(DubitoError) if kind.kind} | {"fields": InputError}
    codes = {kind.status: kind for kind in reversed([*_tree(DubitoError)]) if kind.status}
    if not told:
        kind = codes.get(code, ReplyError)
        return kind(_foreign(response), code=code, retry_after_s=retry_after_s(response))
    fields = told.get("fields", ())
    return kinds.get(name, codes.get(code, DubitoError))(
        str(told["detail"]),
        code=code,
        request_id=str(told.get("request_id") or "") or None,
        retry_after_s=retry_after_s(response),
        fields={str(field["path"]): str(field["message"]) for field in _mappings(fields)},
    )


def retry_after_s(response: httpx.Response) -> float | None:
    """The seconds of `Retry-After`; None where it is not there, or a date."""
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _tree(kind: type[DubitoError]) -> Iterator[type[DubitoError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _tree(below)


def _told(response: httpx.Response) -> Mapping[str, object]:
    """The body of an error, empty where it is not Dubito's."""
    try:
        told = response.json()
    except ValueError:
        return {}
    is_ours = isinstance(told, dict) and str(told.get("type", "")).startswith(_TYPE)
    return told if is_ours and "detail" in told else {}


def _mappings(value: object) -> list[Mapping[str, object]]:
    entries = value if isinstance(value, Sequence) else ()
    return [entry for entry in entries if isinstance(entry, Mapping) and "path" in entry]


def _foreign(response: httpx.Response) -> str:
    told = " ".join(response.text.split())[:_MAX_WORDS]
    to = response.headers.get("location")
    return (
        f"expected the answer of a Dubito server, got {response.status_code} "
        f"{'to ' + to if to else response.headers.get('content-type', 'without a type')} from "
        f"{response.url.copy_with(query=None)}: check the address, and any proxy before it"
        + (f". It says: {told}" if told else "")
    )
