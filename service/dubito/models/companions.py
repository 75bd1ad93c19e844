"""Servers that answer in each other's place, such as replicas behind Ray, told what one was asked.

    load, unload   → all do it
    an alias moves → those that have some version of the model loaded load the new one beforehand
    a version is retired or gone → all free what it takes

Only then is the change acknowledged: a request after it finds the version warm at every server.
"""

from __future__ import annotations

from collections.abc import Callable

from dubito.registry.noting import Change


class Companions:
    """The other servers, as one reaches them; nobody until it is said how."""

    def __init__(self) -> None:
        self._tellers: list[Callable[[Change], None]] = []

    def tell_by(self, teller: Callable[[Change], None]) -> None:
        """Have a function tell them; it returns once they are done, or gave up."""
        self._tellers.append(teller)

    def tell(self, change: Change) -> None:
        """Tell them what was asked here."""
        for teller in self._tellers:
            teller(change)
