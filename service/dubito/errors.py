"""The one tree of errors; every class carries the HTTP status it is answered with.

A message says what was expected, what was got, and the remedy.

    DubitoError
    ├── InputError                 422  rows, bounds, names, fields
    │   └── BundleRefusedError     422  a bundle that is damaged, hostile or of another format
    ├── UnauthorizedError          401
    ├── ForbiddenError             403
    ├── NotFoundError              404
    ├── SlowRequestError           408
    ├── ConflictError              409
    ├── PreconditionFailedError    412
    ├── TooLargeError              413
    ├── UnsupportedMediaTypeError  415
    ├── QueueFullError             429  with Retry-After
    │   └── KeyLimitError          429  of one key
    ├── HeadersTooLargeError       431
    ├── UnavailableError           503  with Retry-After
    ├── DamagedError               503  what is stored is damaged or missing
    ├── DeadlineError              504
    └── StorageFullError           507
"""

from __future__ import annotations

from typing import ClassVar


class DubitoError(Exception):
    """Whatever Dubito refuses or fails to do.

    Args:
        detail: message meant for the caller.
        retry_after_s: when to try again.
        operator: message meant for whoever runs the server, in place of `detail`: the error as
            text. It may name paths of the machine.
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "internal error"
    kind: ClassVar[str] = "internal"

    def __init__(
        self, detail: str, *, retry_after_s: float | None = None, operator: str | None = None
    ) -> None:
        super().__init__(operator or detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class InputError(DubitoError):
    """Input that cannot be used, for its shape, type, bounds or names."""

    status = 422
    title = "input refused"
    kind = "input"


class BundleRefusedError(InputError):
    """A bundle that is damaged, hostile or of an unknown format; nothing of it is stored."""

    title = "bundle refused"
    kind = "bundle"


class UnauthorizedError(DubitoError):
    """No key, or a wrong one."""

    status = 401
    title = "no valid key"
    kind = "unauthorized"


class ForbiddenError(DubitoError):
    """A key that does not open what is asked."""

    status = 403
    title = "key does not open this"
    kind = "forbidden"


class NotFoundError(DubitoError):
    """An unknown model, version, alias or path."""

    status = 404
    title = "not found"
    kind = "not-found"


class SlowRequestError(DubitoError):
    """Headers or a body that took longer to come than they may."""

    status = 408
    title = "request too slow"
    kind = "slow"


class ConflictError(DubitoError):
    """The present state does not allow the change."""

    status = 409
    title = "conflict"
    kind = "conflict"


class PreconditionFailedError(DubitoError):
    """`If-Match` names a state that is no longer the present one."""

    status = 412
    title = "precondition failed"
    kind = "precondition"


class TooLargeError(DubitoError):
    """A body over the limit, before or after decompression."""

    status = 413
    title = "body too large"
    kind = "too-large"


class UnsupportedMediaTypeError(DubitoError):
    """A content type that the route does not read."""

    status = 415
    title = "content type not understood"
    kind = "media-type"


class QueueFullError(DubitoError):
    """More rows x samples wait than the queue may hold."""

    status = 429
    title = "queue full"
    kind = "queue-full"


class KeyLimitError(QueueFullError):
    """More requests in a second, or at once, than a key may send."""

    title = "limit of the key reached"
    kind = "key-limit"


class HeadersTooLargeError(DubitoError):
    """More headers, or longer ones, than a request may have."""

    status = 431
    title = "headers too large"
    kind = "headers"


class UnavailableError(DubitoError):
    """Draining, or not ready yet."""

    status = 503
    title = "not ready"
    kind = "unavailable"


class DamagedError(DubitoError):
    """Something stored that is missing, or has other bytes than it had: nobody is to wait for it.

    Args:
        what: it is, such as `object 02cb...`.
        why: it cannot be read, for whoever runs the server.
    """

    status = 503
    title = "stored data damaged"
    kind = "damaged"

    def __init__(self, what: str, why: str) -> None:
        super().__init__(
            f"{what} is damaged or missing: ask whoever runs the server to restore it",
            operator=f"{what} {why}: `dubito registry check` says what else is; restore it from a "
            "backup, or delete what names it",
        )


class DeadlineError(DubitoError):
    """The caller's deadline passed before the answer was there."""

    status = 504
    title = "deadline passed"
    kind = "deadline"


class StorageFullError(DubitoError):
    """No room is left for what has to be written; nothing of it is stored."""

    status = 507
    title = "disk full"
    kind = "disk-full"
