"""What was fitted to one network and is on its device, by the numbers of the fits."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cachetools import LRUCache

from dubito.errors import InputError

_MOST_HELD = 4
_Fitted = TypeVar("_Fitted")


@dataclass(eq=False)
class HeldFits(Generic[_Fitted]):
    """At most four fits of a method at once; the least recently used are evicted first.

    Args:
        method: that draws from them.
    """

    method: str
    _by_number: LRUCache[int, _Fitted] = field(default_factory=lambda: LRUCache(_MOST_HELD))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, number: int, fitted: _Fitted) -> None:
        """Hold a fit under its number."""
        with self._lock:
            self._by_number[number] = fitted

    def __contains__(self, number: object) -> bool:
        """Whether a fit of that number is here."""
        with self._lock:
            return number in self._by_number

    def get(self, number: int | None) -> _Fitted:
        """The fit of a number.

        Raises:
            InputError: it is not here.
        """
        with self._lock:
            found = None if number is None else self._by_number.get(number)
        if found is None:
            raise InputError(
                f"method `{self.method}` expects a fit of the network, got {number or 'none'}, "
                "which is not loaded: fit one, and name it in `fit`"
            )
        return found
