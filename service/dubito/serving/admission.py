"""Room for a request, taken before its body is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dubito.serving.budget import Budget
from dubito.serving.worker import Reservation, Worker


class Admission:
    """A place in the queue of the device, and room for the body.

    Args:
        worker: owns the device.
        max_pending_bytes: most bytes of all bodies at once.
    """

    def __init__(self, worker: Worker, max_pending_bytes: int) -> None:
        self._worker = worker
        self._bodies = Budget("bytes of bodies", max_pending_bytes)

    @contextmanager
    def holding(self, body_bytes: int) -> Iterator[Reservation]:
        """A place, which grows when its size is known, and room; both given back at the end.

        Args:
            body_bytes: length of the body, or the limit where it does not say.

        Raises:
            QueueFullError: nothing is free.
            UnavailableError: the server drains.
        """
        place = self._worker.reserve(1)
        try:
            with self._bodies.holding(body_bytes):
                yield place
        finally:
            place.release()
