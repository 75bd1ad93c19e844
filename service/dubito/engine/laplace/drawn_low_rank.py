"""Scores of many classes drawn from the Gaussian.

Sample t adds to the scores of a row

    Q (√v ∘ E_t) u + √W (I - Q Qᵀ) F_t ẑ      E_t, F_t standard normal, (R, G) and (C, J); |ẑ| = 1

which has exactly the row's Σ. The first part has what rows have in common as it is. For the second
a map of C·G numbers would be drawn; ẑ has in their place the 16 directions that count most, and
16 random mixtures of the others, so that between rows its correlation is off by a quarter of that
of the others, about. With at most 32 directions none is mixed.

Dimensions: T samples, B rows, G directions, J of them and mixtures, C classes, R eigenpairs.
Source: Johnson and Lindenstrauss 1984, for the mixtures.
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
from dubito.engine.laplace.drawn_maps import SCORES_AT_ONCE, SITE
from dubito.engine.laplace.kept_draws import KeptDraws
from dubito.engine.laplace.low_rank import LowRankPosterior

_KEPT, _MIXED = 16, 16
_BESIDE, _MIXTURES = SITE.index + 1, SITE.index + 2  # further sites


@dataclass(eq=False)
class DrawnLowRank:
    """Draws from one posterior on one device; those of the last key are kept where they fit.

    Args:
        posterior: drawn from.
        device: of the scores.
        budget_bytes: that what is kept may take.
    """

    posterior: LowRankPosterior
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
        z_BJ = torch.nn.functional.normalize(u_BG @ self._mixtures)
        deviation_BC = self.posterior.beside(u_BG.square()).sqrt_()
        most = SCORES_AT_ONCE // max(1, deviation_BC.numel())
        step = min(draws.step(count, most) for draws in (self._along, self._beside))
        for start in range(0, count, step):
            samples = range(start, min(start + step, count))
            noise_TBC = z_BJ @ self._beside.of(samples, count, key)
            noise_TBC -= noise_TBC @ self._frame @ self._frame.T
            noise_TBC *= deviation_BC
            noise_TBC += u_BG @ self._along.of(samples, count, key) @ self._frame.T
            yield noise_TBC

    @cached_property
    def _frame(self) -> Tensor:
        return self.posterior.frame.to(self.device)

    @cached_property
    def _mixtures(self) -> Tensor:
        """From u to z before it is brought to length 1, (G, J)."""
        chosen = self.posterior
        usual = (chosen.of_classes * chosen.rest).sum() / chosen.rest.sum().clamp_min(1e-30)
        usual_G = 1 / (chosen.of_directions * usual + chosen.prior_precision)
        num_directions = len(usual_G)
        if num_directions <= _KEPT + _MIXED:
            return usual_G.sqrt().diag().float().to(self.device)
        order_G = (chosen.of_directions * usual_G).argsort(descending=True)
        mixed = num_directions - _KEPT
        drawn = normals(_MIXTURES, 0, range(1), range(mixed * _MIXED)).reshape(mixed, _MIXED)
        made_GJ = torch.zeros(num_directions, _KEPT + _MIXED)
        made_GJ[order_G[:_KEPT], torch.arange(_KEPT)] = 1
        made_GJ[order_G[_KEPT:], _KEPT:] = drawn / _MIXED**0.5
        return (usual_G.sqrt()[:, None] * made_GJ).float().to(self.device)

    @cached_property
    def _along(self) -> KeptDraws:
        """(√v ∘ E_t)ᵀ, (t, G, R)."""
        chosen = self.posterior
        precisions_GR = chosen.of_directions[:, None] * chosen.of_outputs + chosen.prior_precision
        return self._kept(SITE.index, precisions_GR.rsqrt().float())

    @cached_property
    def _beside(self) -> KeptDraws:
        """F_tᵀ, (t, J, C)."""
        shape = (self._mixtures.shape[1], len(self.posterior.of_classes))
        return self._kept(_BESIDE, torch.ones(1, 1).expand(shape))

    def _kept(self, site: int, deviation: Tensor) -> KeptDraws:
        shape = (deviation.shape[0], deviation.shape[1])

        def made(samples: range, key: Key) -> Tensor:
            drawn = normals(site, key.seed, samples, range(deviation.numel()), kind=key.draw)
            return drawn.reshape(-1, *shape).mul_(deviation).to(self.device)

        return KeptDraws(made, shape, self.device, self.budget_bytes // 2)
