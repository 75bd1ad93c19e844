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
from dubito.engine.laplace.kept_draws import KeptDraws
from dubito.engine.laplace.posterior import Posterior
from dubito_nn import Site

SITE = Site(2**20, "normal", "normal", None, False, (1,), "weight", "", None)  # as no network has
SCORES_AT_ONCE = 2**20


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

    @property
    def left(self) -> float:
        """What a stratified draw leaves of a linear effect."""
        return remainder(SITE)

    def noise(self, features_BF: Tensor, count: int, key: Key) -> Iterator[Tensor]:
        """What T samples add to the scores of some rows: some (t, B, C) after the others.

        Args:
            features_BF: of the rows.
            count: T.
            key: of the draws.
        """
        u_BG = self.posterior.directions(features_BF.float())
        num_outputs = self.posterior.variance.shape[0]
        step = self._maps.step(count, SCORES_AT_ONCE // (max(1, len(u_BG)) * num_outputs))
        for start in range(0, count, step):
            yield u_BG @ self._maps.of(range(start, min(start + step, count)), count, key)

    @cached_property
    def _maps(self) -> KeptDraws:
        """(Q_B (√v ∘ E_t))ᵀ of some samples, (t, G, C)."""
        deviation_GC = self.posterior.variance.sqrt().float().T.contiguous()
        frame_CC = self.posterior.frame.float().T
        num_directions, num_outputs = deviation_GC.shape

        def made(samples: range, key: Key) -> Tensor:
            places = range(deviation_GC.numel())
            drawn = normals(SITE.index, key.seed, samples, places, kind=key.draw)
            scaled_TGC = drawn.reshape(-1, *deviation_GC.shape).mul_(deviation_GC)
            return (scaled_TGC @ frame_CC).to(self.device)

        return KeptDraws(made, (num_directions, num_outputs), self.device, self.budget_bytes)
