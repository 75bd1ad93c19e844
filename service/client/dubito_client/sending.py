"""When a call is sent again, and after how long. No I/O here: the shells of `client` wait.

A refusal that says nothing was begun (429, 507) is waited for, whatever was asked. What may have
been done already (503, a connection that broke) is asked again only where that leaves the same
state. An answer's `Retry-After` is honoured; without it waits grow from half a second to eight.
"""

from __future__ import annotations

import random
import time

import httpx

from dubito_client.calls import Call
from dubito_client.errors import DeadlineError, DubitoError, UnreachableError, problem

_NOT_BEGUN = frozenset({429, 507})
_NOT_NOW = _NOT_BEGUN | {503}
_NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_BROKEN = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError)
_FIRST_S, _LONGEST_S = 0.5, 8.0
_SPREAD = 0.1  # so that those who were refused together do not come back together


class Attempts:
    """The attempts of one call.

    Args:
        call: what is asked.
        patience_s: no attempt begins later than this after the first.
    """

    def __init__(self, call: Call[object], patience_s: float) -> None:
        self._call = call
        self._ends_s = time.monotonic() + patience_s
        self._pause_s = _FIRST_S

    def after_answer(self, response: httpx.Response) -> float | None:
        """Seconds to wait before the next attempt; None: this is the answer.

        Raises:
            DubitoError: what the answer tells of, where waiting is in vain.
        """
        code = response.status_code
        if response.is_success or code in self._call.answers:
            return None
        error = problem(response)
        if code not in (_NOT_NOW if self._call.is_repeatable else _NOT_BEGUN):
            raise error
        return self._wait_s(error)

    def after_failure(self, failure: httpx.RequestError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            UnreachableError: there was no answer, and waiting is in vain.
            DeadlineError: the same, since the time for it is over.
        """
        is_late = isinstance(failure, httpx.ReadTimeout | httpx.WriteTimeout)
        error = (DeadlineError if is_late else UnreachableError)(
            f"{self._call.method} {self._call.path}: expected an answer, got none "
            f"({type(failure).__name__}: {failure}): "
            + ("allow more time by `timeout_s`" if is_late else _remedy(failure))
        )
        if not isinstance(failure, _BROKEN if self._call.is_repeatable else _NOT_CONNECTED):
            raise error from failure
        try:
            return self._wait_s(error)
        except DubitoError:
            raise error from failure

    def _wait_s(self, error: DubitoError) -> float:
        asked_s = error.retry_after_s or self._pause_s  # 0 seconds would not be a wait
        self._pause_s = min(2 * self._pause_s, _LONGEST_S)
        wait_s = asked_s * random.uniform(1.0, 1.0 + _SPREAD)
        if time.monotonic() + wait_s > self._ends_s:
            raise error
        return wait_s


def _remedy(failure: httpx.RequestError) -> str:
    """What to do where no answer came."""
    if isinstance(failure, httpx.LocalProtocolError):
        return "correct the key: no line breaks, blanks or other characters that no header has"
    if "CERTIFICATE_VERIFY_FAILED" in str(failure):
        return "trust the server's certificate, by `http=httpx.Client(verify=...)`"
    return "check the address and the server"
