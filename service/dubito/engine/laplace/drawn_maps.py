"""Last maps drawn from the Gaussian.

Sample t adds to the scores of every row

    Q_B (√v ∘ E_t) u      E_t standard normal, (C, G)

with E_t from the same counter-based words as all draws, keyed by (seed, t): the same map for all
rows, so that what rows have in common is right. Of one row the sum is exactly Gaussian with its Σ.

Dimensions: T samples, B rows, G directions, C outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dubito.engine.calling.sampling import Key
from dubito.engine.draws.masks import normals
from dubito.engine.draws.strata import remainder
from dubito.engine.laplace.posterior import Posterior
from dubito_nn import Site

_SITE = Site(2**20, "normal", "normal", None, False, (1,), "weight", "", None)  # as no network has
_DRAWN_AT_ONCE = 2**19  # numbers of maps: as words and in float64 they take eight times as much
_SCORES_AT_ONCE = 2**20


@dataclass(eq=False)
class DrawnMaps:
    """Draws from one posterior on one device; those of the last key are kept where they fit.

    Args:
        posterior: drawn from.
        device: of the scores.
        budget_bytes: that kept maps may take.
    """

    posterior: Posterior
    device: torch.device
    budget_bytes: int
    _kept: tuple[Key, Tensor] | None = None

    @property
    def left(self) -> float:
        """What a stratified draw leaves of a linear effect."""
        return remainder(_SITE)

    def noise(self, features_BF: Tensor, count: int, key: Key) -> Iterator[Tensor]:
        """What T samples add to the scores of some rows: some (t, B, C) after the others.

        Args:
            features_BF: of the rows.
            count: T.
            key: of the draws.
        """
        u_BG = self.posterior.directions(features_BF.float())
        num_outputs, num_directions = self.posterior.variance.shape
        step = max(1, _SCORES_AT_ONCE // (max(1, len(u_BG)) * num_outputs))
        if not self._fits(count):
            step = max(1, min(step, _DRAWN_AT_ONCE // (num_outputs * num_directions)))
        for start in range(0, count, step):
            yield u_BG @ self._maps(range(start, min(start + step, count)), count, key)

    def _maps(self, samples: range, count: int, key: Key) -> Tensor:
        if not self._fits(count):
            return self._made(samples, key)
        if self._kept is None or self._kept[0] != key or len(self._kept[1]) < count:
            num_outputs, num_directions = self.posterior.variance.shape
            step = max(1, _DRAWN_AT_ONCE // (num_outputs * num_directions))
            whole = torch.empty(count, num_directions, num_outputs, device=self.device)
            for start in range(0, count, step):
                some = range(start, min(start + step, count))
                whole[some.start : some.stop] = self._made(some, key)
            self._kept = key, whole
        return self._kept[1][samples.start : samples.stop]

    def _fits(self, count: int) -> bool:
        return 4 * count * self.posterior.variance.numel() <= self.budget_bytes

    def _made(self, samples: range, key: Key) -> Tensor:
        """(Q_B (√v ∘ E_t))ᵀ of some samples, (t, G, C)."""
        deviation_GC, frame_CC = self._parts
        places = range(deviation_GC.numel())
        drawn = normals(_SITE.index, key.seed, samples, places, kind=key.draw)
        scaled_TGC = drawn.reshape(-1, *deviation_GC.shape).mul_(deviation_GC)
        return (scaled_TGC @ frame_CC).to(self.device)

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor]:
        """√v, (G, C), and Q_Bᵀ, in 32 bits on the processor."""
        deviation_GC = self.posterior.variance.sqrt().float().T.contiguous()
        return deviation_GC, self.posterior.frame.float().T
