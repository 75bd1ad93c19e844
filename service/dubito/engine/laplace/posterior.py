"""The Gaussian over the last map, in the frame in which its precision is diagonal.

Of a row with features φ, u are its numbers in the frame of the features:

    classes     u = (Q_Aᵀ φ, 1)      v_gc = 1 / (λ_g μ_c + δ), and of the bias 1 / (μ_c + δ)
    numbers     u = Qᵀ (φ, 1)        v_gc = α_c² / (λ_g + ς²)

    covariance of the scores     Σ = Q_B diag_c(Σ_g u_g² v_gc) Q_Bᵀ

The bias is a block of its own, as in laplace-torch, whose `KronLLLaplace` this is (undamped). A
matrix over all pairs of weights is never made.

Dimensions: B rows, F features, G of them in the frame, C outputs.
Source: Daxberger et al. 2021, arXiv:2106.14806; Bigi et al. 2024, arXiv:2403.02251; probit: MacKay
1992, The evidence framework applied to classification networks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Posterior:
    """A Gaussian over the last map, whose mean is the trained one.

    Args:
        rotation: the frame of the features, in its columns: (F, F), or (F + 1, F + 1) where a
            constant feature is turned with the others.
        frame: the frame of the outputs, (C, C).
        variance: v of every direction, (C, G).
    """

    rotation: Tensor
    frame: Tensor
    variance: Tensor

    def directions(self, features_BF: Tensor) -> Tensor:
        """The numbers u of some rows, (B, G), in the type and on the device of the features."""
        return turned(features_BF, self.rotation, self.variance.shape[1])

    def variances(self, features_BF: Tensor) -> Tensor:
        """Variance of every score, (B, C), in float64: the diagonal of Σ."""
        in_frame_BC = self._in_frame(features_BF)
        return in_frame_BC @ self.frame.square().T.to(in_frame_BC)

    def covariances(self, features_BF: Tensor) -> Tensor:
        """Σ of every row, (B, C, C), in float64."""
        in_frame_BC = self._in_frame(features_BF)
        frame_CC = self.frame.to(in_frame_BC)
        return torch.einsum("ck,bk,dk->bcd", frame_CC, in_frame_BC, frame_CC)

    def _in_frame(self, features_BF: Tensor) -> Tensor:
        u_BG = self.directions(features_BF.double())
        return u_BG.square() @ self.variance.T.to(u_BG)

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """What is stored of it, by name."""
        return {item.name: getattr(self, item.name).numpy() for item in fields(self)}

    @classmethod
    def from_arrays(cls, stored: Mapping[str, NDArray[np.generic]]) -> Posterior:
        """Return what `arrays` gave."""
        parts = (torch.from_numpy(stored[item.name].astype(np.float64)) for item in fields(cls))
        return cls(*parts)


def probit(scores_BC: Tensor, variance_BC: Tensor) -> Tensor:
    """Probabilities of Gaussian logits, approximately: softmax(z / sqrt(1 + π/8 Var z)), (B, C).

    One score is that of the second of two classes, and its row is then (1 - p, p).
    """
    shrunk_BC = scores_BC / (1 + math.pi / 8 * variance_BC).sqrt()
    if shrunk_BC.shape[1] == 1:
        shrunk_BC = torch.cat([torch.zeros_like(shrunk_BC), shrunk_BC], 1)
    return shrunk_BC.softmax(-1)


def turned(features_BF: Tensor, rotation: Tensor, num_directions: int) -> Tensor:
    """Features in the frame, (B, G), with a constant one before the turn or after it.

    Args:
        features_BF: of some rows.
        rotation: in its columns, (F, F) or (F + 1, F + 1).
        num_directions: G.
    """
    rotation = rotation.to(features_BF)
    ones_B1 = features_BF.new_ones(len(features_BF), 1)
    if len(rotation) > features_BF.shape[1]:
        return torch.cat([features_BF, ones_B1], 1) @ rotation
    turned_BF = features_BF @ rotation
    if num_directions == len(rotation):
        return turned_BF
    return torch.cat([turned_BF, ones_B1], 1)
