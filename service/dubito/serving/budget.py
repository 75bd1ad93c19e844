"""A bound on what is held at once, such as the bytes of all bodies that are being read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dubito.errors import QueueFullError

_RETRY_AFTER_S = 1.0


class Budget:
    """So much of something, and no more at once.

    One request may always hold what it needs when nobody else holds anything.

    Args:
        name: of what, for the message: `bytes of bodies`.
        limit: how much.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._held = 0
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, amount: int) -> Iterator[None]:
        """Hold an amount until the end of the block.

        Raises:
            QueueFullError: others hold too much of it now.
        """
        with self._lock:
            if self._held and self._held + amount > self._limit:
                raise QueueFullError(
                    f"{self._name}: at most {self._limit} at once, {self._held} are held, "
                    f"{amount} more were asked: try again later",
                    retry_after_s=_RETRY_AFTER_S,
                )
            self._held += amount
        try:
            yield
        finally:
            with self._lock:
                self._held -= amount
