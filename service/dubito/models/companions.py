"""Servers that answer in each other's place, such as replicas behind Ray, told what one was asked.

    load, unload   → all do it
    an alias moves → those that have some version of the model loaded load the new one beforehand

Only then is the change acknowledged: a request after it finds the version warm at every server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Move:
    """A version that comes or goes.

    Args:
        action: by which request.
        model: its name.
        number: of the version.
    """

    action: Literal["load", "unload", "alias"]
    model: str
    number: int


class Companions:
    """The other servers, as one reaches them; nobody until it is said how."""

    def __init__(self) -> None:
        self._tellers: list[Callable[[Move], None]] = []

    def tell_by(self, teller: Callable[[Move], None]) -> None:
        """Have a function tell them; it returns once they are done, or gave up."""
        self._tellers.append(teller)

    def tell(self, move: Move) -> None:
        """Tell them what was asked here."""
        for teller in self._tellers:
            teller(move)
