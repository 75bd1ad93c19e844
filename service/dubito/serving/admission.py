"""Room for a request: a place before its body is read, and bytes as they come."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dubito.errors import QueueFullError
from dubito.serving.worker import Reservation, Worker

_RETRY_AFTER_S = 1.0


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

    def take(self, num_bytes: int) -> None:
        """Take room for bytes that have come.

        Raises:
            QueueFullError: nothing is free, and other bodies hold some of it.
        """
        self._admission._take(num_bytes, beside=self.num_bytes)
        self.num_bytes += num_bytes


class Admission:
    """A place in the queue of the device, and room for the bytes of bodies.

    What a body announces is a claim, and takes no room. One body may always be read when there is
    no other.

    Args:
        worker: owns the device.
        max_pending_bytes: maximum number of bytes of all bodies at once.
    """

    def __init__(self, worker: Worker, max_pending_bytes: int) -> None:
        self._worker = worker
        self._limit = max_pending_bytes
        self._held = 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of all bodies that hold room now."""
        return self._held

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

    def _take(self, num_bytes: int, *, beside: int) -> None:
        with self._lock:
            if self._held > beside and self._held + num_bytes > self._limit:
                raise QueueFullError(
                    f"bytes of bodies: at most {self._limit} at once, {self._held} are held, "
                    f"{num_bytes} more have come: try again later",
                    retry_after_s=_RETRY_AFTER_S,
                )
            self._held += num_bytes
