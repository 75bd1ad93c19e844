"""What requests wait for beside the device: threads that decode bodies and write replies.

They take turns at one interpreter, so all of them together are measured as one that does one thing
after the other: while something is being done, the time from one end to the next is what one takes.
The first few say nothing, since they make ready what all others use.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dubito.serving.turns.job import Clock

_PAST = 0.99  # weight of the past at every end: many end at once, then none for a while
_FIRST, _FEW = 3, 4  # ends that say nothing, and those after which a mean is one
_LONGEST_S = 1.0  # between two ends, that counts: beyond it the machine stood still


class Passage:
    """How many bodies are being decoded and replies written, and how long one takes.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._count = 0
        self._since_s = 0.0  # the last end, or the beginning where nothing was being done
        self._seconds, self._ends = 0.0, -float(_FIRST)  # of late

    @property
    def ahead_s(self) -> float:
        """Seconds until all that has begun is done; 0 where too few were to tell."""
        return self._count * self._seconds / self._ends if self._ends >= _FEW - 1 else 0.0

    @contextmanager
    def passing(self) -> Iterator[None]:
        """One is decoded or written within the block."""
        with self._lock:
            if not self._count:
                self._since_s = self._clock()
            self._count += 1
        try:
            yield
        finally:
            with self._lock:
                now_s = self._clock()
                self._count -= 1
                took_s, self._since_s = min(now_s - self._since_s, _LONGEST_S), now_s
                if self._ends < 0.0:
                    self._ends += 1.0
                else:
                    self._seconds = _PAST * self._seconds + took_s
                    self._ends = _PAST * self._ends + 1.0
