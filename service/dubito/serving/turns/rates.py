"""How long work takes: learned from calls that ran, kind by kind.

A call of work w, in rows x samples, takes

    seconds(w) = fixed + slope · w,    fixed, slope ≥ 0,

by least squares with weights 1 / w, since what a call takes is a sum over its work and varies with
it. Every call makes those before it count less, so that the line follows the machine. One call that
took much longer than the line says moves it by a bounded part, for it may have met a pause of the
machine; one that was much faster halves what is remembered, for no pause makes a call fast.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from cachetools import LRUCache

Kind = tuple[Hashable, Hashable]
"""What is done, and how; of a way not seen yet the cost is that of the same thing otherwise."""

_MEMORY = 0.9  # weight of the past at every call
_LONGER = 3.0  # times what was expected, that one call may count for
_SHORTER = 1 / 3
_SPREAD = 0.05  # of the work, relative, from which on a fixed part can be told from a slope
_KINDS = 1000


@dataclass(frozen=True)
class CallCost:
    """What calls of a kind take.

    Args:
        fixed_s: seconds of every call.
        slope_s: seconds per row and sample.
    """

    fixed_s: float
    slope_s: float

    def seconds(self, work: float) -> float:
        """Seconds of one call."""
        return self.fixed_s + self.slope_s * work


class _Line:
    """Weighted sums of past calls of one kind, u = 1 / w: Σu, Σuw, Σut, Σuww, Σuwt."""

    def __init__(self) -> None:
        self._sums = [0.0] * 5
        self.cost = CallCost(0.0, 0.0)

    def learn(self, work: int, seconds: float) -> None:
        """Take in one call."""
        memory, wanted_s = _MEMORY, self.cost.seconds(work)
        if self._sums[0]:
            seconds = min(seconds, max(_LONGER * wanted_s, 1e-6))
            memory = _MEMORY if seconds > _SHORTER * wanted_s else _MEMORY / 2
        new = (1 / work, 1.0, seconds / work, float(work), seconds)
        self._sums = [memory * past + one for past, one in zip(self._sums, new, strict=True)]
        self.cost = self._fitted()

    def _fitted(self) -> CallCost:
        u, uw, ut, uww, uwt = self._sums
        mean_w, mean_t = uw / u, ut / u
        variance = uww / u - mean_w**2
        if variance <= (_SPREAD * mean_w) ** 2:
            return CallCost(0.0, uwt / uww)
        slope_s = max(0.0, (uwt / u - mean_w * mean_t) / variance)
        fixed_s = mean_t - slope_s * mean_w
        return CallCost(fixed_s, slope_s) if fixed_s >= 0 else CallCost(0.0, uwt / uww)


class CallCosts:
    """The costs of all kinds; the least recently used are forgotten."""

    def __init__(self) -> None:
        self._lines: LRUCache[Hashable, _Line] = LRUCache(_KINDS)

    def learn(self, kind: Kind, work: int, seconds: float) -> None:
        """Take in one call.

        Args:
            kind: of the call.
            work: its rows x samples; at least 1.
            seconds: that it had the device.
        """
        for key in (kind, kind[0]):
            self._lines.setdefault(key, _Line()).learn(work, seconds)

    def cost(self, kind: Kind) -> CallCost | None:
        """What calls of a kind take; None where none has run."""
        line = self._lines.get(kind) or self._lines.get(kind[0])
        return None if line is None else line.cost
