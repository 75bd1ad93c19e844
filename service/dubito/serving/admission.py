"""Room for a request, taken before its body is read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dubito.errors import QueueFullError
from dubito.serving.worker import Reservation, Worker

_RETRY_AFTER_S = 1.0


class Admission:
    """A place in the queue of the device, and room for the body.

    One body may always be read when there is no other.

    Args:
        worker: owns the device.
        max_pending_bytes: maximum number of bytes of all bodies at once.
    """

    def __init__(self, worker: Worker, max_pending_bytes: int) -> None:
        self._worker = worker
        self._limit = max_pending_bytes
        self._held = 0
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, body_bytes: int) -> Iterator[Reservation]:
        """A place, which grows when its size is known, and room; both given back at the end.

        Args:
            body_bytes: length of the body, or the limit where it does not say.

        Raises:
            QueueFullError: nothing is free.
            UnavailableError: the server drains.
        """
        reservation = self._worker.reserve(1)
        try:
            self._take(body_bytes)
            try:
                yield reservation
            finally:
                with self._lock:
                    self._held -= body_bytes
        finally:
            reservation.release()

    def _take(self, body_bytes: int) -> None:
        with self._lock:
            if self._held and self._held + body_bytes > self._limit:
                raise QueueFullError(
                    f"bytes of bodies: at most {self._limit} at once, {self._held} are held, "
                    f"{body_bytes} more were asked: try again later",
                    retry_after_s=_RETRY_AFTER_S,
                )
            self._held += body_bytes
