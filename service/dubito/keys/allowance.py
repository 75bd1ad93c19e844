"""How many requests a key may send in a second, and have at once, to this server.

The rate is that of the generic cell rate algorithm: each request moves a theoretical arrival time
by 1 / rate, and is refused where that time lies more than a burst ahead. A burst is the requests
of one second, at least one.

Source: ITU-T I.371, annex A.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from dubito.errors import KeyLimitError

_BUSY_S = 1.0


class Allowance:
    """What one key has left.

    Args:
        rate: requests per second; None: no limit.
        concurrency: requests at once; None: no limit.
        clock: seconds.
    """

    def __init__(
        self,
        rate: float | None,
        concurrency: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._concurrency = concurrency
        self._clock = clock
        self._lock = threading.Lock()
        self._arrival_s = 0.0  # theoretical, of the next request
        self._num_open = 0

    def begin(self) -> None:
        """Let one request begin; `end` follows in every case where this does not raise.

        Raises:
            KeyLimitError: it is one too many, now.
        """
        with self._lock:
            if self._concurrency is not None and self._num_open >= self._concurrency:
                raise KeyLimitError(
                    f"requests at once: expected at most {self._concurrency} with this key, got "
                    "one more: wait for a reply before the next",
                    retry_after_s=_BUSY_S,
                )
            if self._rate is not None:
                self._count(self._rate)
            self._num_open += 1

    def end(self) -> None:
        """A request is answered."""
        with self._lock:
            self._num_open -= 1

    def _count(self, rate: float) -> None:
        now_s = self._clock()
        burst_s = max(1.0, 1.0 / rate)
        arrival_s = max(self._arrival_s, now_s) + 1.0 / rate
        if arrival_s - now_s > burst_s * (1 + 1e-9):
            raise KeyLimitError(
                f"requests per second: expected at most {rate:g} with this key, got more: wait as "
                "long as Retry-After says",
                retry_after_s=arrival_s - now_s - burst_s,
            )
        self._arrival_s = arrival_s
