"""The Gaussian over the last map of many classes, by the largest eigenpairs of their factor.

What these leave, each class has by itself:

    B ≈ Q diag(μ) Qᵀ beside d      d_c = (B_cc - Σ_k μ_k q_ck²) / ρ_c,  ρ_c = 1 - Σ_k q_ck²

    Σ = Q diag_k(V_k) Qᵀ + √W (I - Q Qᵀ) √W
    V_k = Σ_g u_g² / (λ_g μ_k + δ),  W = diag_c Σ_g u_g² / (λ_g d_c + δ)

The trace of B is kept. With all eigenpairs ρ is 0, and Σ that of `posterior`. No matrix of C·C and
none of C·G is made.

Dimensions: B rows, F features, G of them in the frame, C classes, R eigenpairs.
Source: Daxberger et al. 2021, arXiv:2106.14806, for Σ with all eigenpairs; the rest is our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubito.engine.laplace.posterior import turned

MOST_NUMBERS = 2**24  # of the eigenvectors
_AT_ONCE = 2**21  # numbers of precisions
_NOTHING = 1e-12  # of a class beside the eigenpairs


@dataclass(frozen=True, eq=False)
class LowRankPosterior:
    """A Gaussian over the last map of many classes, whose mean is the trained one.

    Args:
        rotation: the frame of the features, in its columns, (F, F).
        of_directions: λ of every direction, 1 of the bias, (G,).
        frame: Q, (C, R), in 32 bits.
        of_outputs: μ, (R,).
        of_classes: d, (C,).
        rest: ρ, (C,).
        prior_precision: δ, ().
    """

    rotation: Tensor
    of_directions: Tensor
    frame: Tensor
    of_outputs: Tensor
    of_classes: Tensor
    rest: Tensor
    prior_precision: Tensor

    def directions(self, features_BF: Tensor) -> Tensor:
        """The numbers u of some rows, (B, G), in the type and on the device of the features."""
        return turned(features_BF, self.rotation, len(self.of_directions))

    def along(self, squares_BG: Tensor) -> Tensor:
        """V of every eigenpair, (B, R), of rows with some u²."""
        return squares_BG @ self._inverse(self.of_outputs, squares_BG)

    def beside(self, squares_BG: Tensor) -> Tensor:
        """W of every class, (B, C), 0 where the eigenpairs leave nothing of it."""
        made_BC = squares_BG.new_empty(len(squares_BG), len(self.of_classes))
        step = max(1, _AT_ONCE // squares_BG.shape[1])
        for start in range(0, len(self.of_classes), step):
            some = slice(start, start + step)
            made_BC[:, some] = squares_BG @ self._inverse(self.of_classes[some], squares_BG)
        return made_BC.mul_((self.rest > _NOTHING).to(made_BC))

    def variances(self, features_BF: Tensor) -> Tensor:
        """Variance of every score, (B, C), in float64: the diagonal of Σ."""
        squares_BG = self.directions(features_BF.double()).square()
        own_BC = self.beside(squares_BG).mul_(self.rest.to(squares_BG))
        return own_BC.addmm_(self.along(squares_BG), self.frame.to(squares_BG).square().T)

    def covariances(self, features_BF: Tensor) -> Tensor:
        """Σ of every row, (B, C, C), in float64."""
        squares_BG = self.directions(features_BF.double()).square()
        frame_CR = self.frame.to(squares_BG)
        kept_BCC = torch.einsum("cr,br,dr->bcd", frame_CR, self.along(squares_BG), frame_CR)
        left_CC = -frame_CR @ frame_CR.T
        left_CC.diagonal().copy_(self.rest)
        root_BC = self.beside(squares_BG).sqrt()
        return kept_BCC + root_BC[:, :, None] * left_CC * root_BC[:, None, :]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What is stored of it, by name."""
        return {item.name: getattr(self, item.name).numpy() for item in fields(self)}

    @classmethod
    def is_stored(cls, stored: Mapping[str, NDArray[np.generic]]) -> bool:
        """Whether arrays are those of such a one."""
        return set(stored) == {item.name for item in fields(cls)}

    @classmethod
    def from_arrays(cls, stored: Mapping[str, NDArray[np.generic]]) -> LowRankPosterior:
        """Return what `arrays` gave."""
        return cls(*(torch.from_numpy(np.asarray(stored[item.name])) for item in fields(cls)))

    def _inverse(self, precisions_C: Tensor, like: Tensor) -> Tensor:
        """1 / (λ_g μ_c + δ), (G, c)."""
        directions_G1, prior = self.of_directions.to(like)[:, None], self.prior_precision.to(like)
        return (directions_G1 * precisions_C.to(like) + prior).reciprocal_()
