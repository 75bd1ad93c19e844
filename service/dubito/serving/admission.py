"""Room for a request: time of the device and a place before its body is read, bytes as they come.

Flow: `look`, before anything of a body is read → `holding` → bytes as they come → `Held.expect`,
once the body is there → decoded, and queued with its own work (`turns/entrance.py`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from dubito.errors import QueueFullError
from dubito.models.memory import trim
from dubito.serving.passage import Passage
from dubito.serving.turns.backlog import WaitingLine
from dubito.serving.worker import Reservation, Worker

_RETRY_AFTER_S = 1.0
_MUCH_BYTES = 32 * 2**20


@dataclass(frozen=True)
class QueueState:
    """What stands before the device, and what was refused.

    Args:
        ahead_s: seconds of work that waits or is under way, but for jobs behind all requests.
        work: rows x samples that hold a place.
        body_bytes: of bodies that are being read, decoded or queued.
        refused: how many requests were refused since the start, by the reason: `wait` (too much
            work ahead), `deadline` (it cannot be met), `places` (rows x samples), `bytes`.
    """

    ahead_s: float
    work: int
    body_bytes: int
    refused: Mapping[str, int]


class Held:
    """A place in the queue and room for a body; both are given back by who gave them.

    Args:
        admission: gives the room.
        reservation: the place, which grows when its size is known.
    """

    def __init__(self, admission: Admission, reservation: Reservation) -> None:
        self._admission = admission
        self.reservation = reservation
        self.num_bytes = 0

    def expect(self, line: WaitingLine, deadline_s: float | None) -> None:
        """See that there is still time, now that the body is there.

        Args:
            line: where the request will stand.
            deadline_s: when it has to be answered, on the clock of `time.monotonic`; None: never.

        Raises:
            QueueFullError: it would wait too long.
        """
        self.reservation.expect(line, deadline_s, self._admission.passage.ahead_s)

    def take(self, num_bytes: int) -> None:
        """Take room for bytes that have come.

        Raises:
            QueueFullError: nothing is free, and other bodies hold some of it.
        """
        self._admission._take(num_bytes, beside=self.num_bytes)
        self.num_bytes += num_bytes


class Admission:
    """Time and a place in the queue of the device, and room for the bytes of bodies.

    What a body announces is a claim, and takes no room. One body may always be read when there is
    no other.

    Args:
        worker: owns the device.
        max_pending_bytes: maximum number of bytes of all bodies at once.

    Attributes:
        passage: bodies that are decoded, and replies that are written.
    """

    def __init__(self, worker: Worker, max_pending_bytes: int) -> None:
        self._worker = worker
        self._limit = max_pending_bytes
        self.passage = Passage(time.monotonic)
        self._held = self._freed = 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of all bodies that hold room now."""
        return self._held

    @property
    def queued(self) -> QueueState:
        """What stands before the device now."""
        entrance = self._worker.entrance
        work = self._worker.queued_work
        return QueueState(entrance.ahead_s(), work, self._held, dict(entrance.refused))

    def look(self, line: WaitingLine, deadline_s: float | None, border_s: float = 0.0) -> None:
        """See that there is time for a request, before its body is read.

        Args:
            line: where it will stand.
            deadline_s: when it has to be answered, on the clock of `time.monotonic`; None: never.
            border_s: seconds that it waits for whoever receives and sends.

        Raises:
            QueueFullError: it would wait too long.
        """
        self._worker.entrance.look(line, deadline_s, self.passage.ahead_s + border_s)

    @contextmanager
    def holding(self) -> Iterator[Held]:
        """A place and room that grows with the body; both given back at the end.

        Raises:
            QueueFullError: no place is free.
            UnavailableError: the server drains.
        """
        reservation = self._worker.reserve(1)
        held = Held(self, reservation)
        try:
            yield held
        finally:
            reservation.release()
            with self._lock:
                self._held -= held.num_bytes
                self._freed += held.num_bytes

    def give_back(self) -> bool:
        """Return the memory of past bodies to the system, once none is held and there were many.

        It takes some milliseconds, in which nothing is held up; call it in a thread, now and then.

        Returns:
            Whether there was some.
        """
        with self._lock:
            if self._held or self._freed < _MUCH_BYTES:
                return False
            self._freed = 0
        trim()
        return True

    def _take(self, num_bytes: int, *, beside: int) -> None:
        with self._lock:
            if self._held > beside and self._held + num_bytes > self._limit:
                self._worker.entrance.refused["bytes"] += 1
                raise QueueFullError(
                    f"bytes of bodies: at most {self._limit} at once, {self._held} are held, "
                    f"{num_bytes} more have come: try again later",
                    retry_after_s=_RETRY_AFTER_S,
                )
            self._held += num_bytes
