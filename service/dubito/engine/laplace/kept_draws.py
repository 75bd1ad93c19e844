"""What was drawn for the last key, kept where it fits.

Dimensions: T samples; X, Y numbers of one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dubito.engine.calling.sampling import Key

_DRAWN_AT_ONCE = 2**19  # numbers: as words and in float64 they take eight times as much


@dataclass(eq=False)
class KeptDraws:
    """Draws of one kind.

    Args:
        make: gives those of some samples, (t, X, Y), under a key.
        shape: X and Y.
        device: where they are kept.
        budget_bytes: that they may take.
    """

    make: Callable[[range, Key], Tensor]
    shape: tuple[int, int]
    device: torch.device
    budget_bytes: int
    _kept: tuple[Key, Tensor] | None = None

    def step(self, count: int, most: int) -> int:
        """How many samples to ask for at once.

        Args:
            count: T.
            most: that suit the caller.
        """
        return max(1, most if self._fits(count) else min(most, self._at_once))

    def of(self, samples: range, count: int, key: Key) -> Tensor:
        """Those of some samples out of T, (t, X, Y)."""
        if not self._fits(count):
            return self.make(samples, key)
        if self._kept is None or self._kept[0] != key or len(self._kept[1]) < count:
            whole = torch.empty(count, *self.shape, device=self.device)
            for start in range(0, count, self._at_once):
                some = range(start, min(start + self._at_once, count))
                whole[some.start : some.stop] = self.make(some, key)
            self._kept = key, whole
        return self._kept[1][samples.start : samples.stop]

    @property
    def _at_once(self) -> int:
        return max(1, _DRAWN_AT_ONCE // (self.shape[0] * self.shape[1]))

    def _fits(self, count: int) -> bool:
        return 4 * count * self.shape[0] * self.shape[1] <= self.budget_bytes
