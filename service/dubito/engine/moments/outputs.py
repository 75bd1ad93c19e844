"""Moments of the declared outputs, and fixed points that have them.

What a head says of its outputs is an average over 256 points z_n = m + Σ^½ ξ_n, where the ξ_n are
Sobol points through Φ⁻¹, whitened, so that the mean of the z_n is m and their covariance is Σ. It
is full for up to 128 outputs of a last linear map, else diagonal. Where Σ = L Lᵀ is given by its
factor L of few directions, z_n = m + L ξ_n at 64 points.

Dimensions: N nodes, B rows, C classes, D outputs, R directions.
Source: Sobol' 1967; Owen 2003, Quasi-Monte Carlo sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from scipy.special import ndtri
from torch import Tensor

from dubito.engine.calling.sampling import NUM_LEARNED, NUM_NODES
from dubito.engine.moments.values import Spread
from dubito.errors import InputError

MAX_JOINT = 128
_SEED = 20_000  # of the scrambling, the same for every prediction


@dataclass(frozen=True, eq=False)
class OutputMoments:
    """Moments of the declared outputs; of log-probabilities and probabilities: of their logits.

    Args:
        mean: (B, C), or (B, 2, D) for a pair of heads.
        variance: the same shape.
        covariance: (B, C, C) of the outputs of a last linear map; None: they count as independent.
        factors: L, (B, C, R), of outputs in one axis, in place of a covariance.
    """

    mean: Tensor
    variance: Tensor
    covariance: Tensor | None
    factors: Tensor | None = None

    @classmethod
    def of(cls, value: Spread) -> OutputMoments:
        """Return the moments of a value."""
        is_joint = value.joint is not None and value.mean.shape[-1] <= MAX_JOINT
        covariance = value.joint() if is_joint and value.joint is not None else None
        if covariance is not None:
            return cls(value.mean, covariance.diagonal(dim1=-2, dim2=-1), covariance)
        return cls(value.mean, value.total(), None)

    @classmethod
    def joined(cls, parts: Sequence[OutputMoments]) -> OutputMoments:
        """The rows of several parts, on the CPU in float64."""
        mean, variance, covariance = (
            None
            if any(getattr(part, name) is None for part in parts)
            else torch.cat([getattr(part, name).cpu().double() for part in parts])
            for name in ("mean", "variance", "covariance")
        )
        assert mean is not None
        assert variance is not None
        return cls(mean, variance, covariance)

    def at_nodes(self) -> Tensor:
        """Points with these moments, (N, B, ...), in float64."""
        return self.nodes_inside().double().permute(2, 0, 1).reshape(-1, *self.mean.shape)

    def nodes_inside(self) -> Tensor:
        """Return the fixed points of outputs in one axis, nodes last, (B, D, N)."""
        if self.factors is not None:
            at_NR = fixed_points(self.factors.shape[-1], NUM_LEARNED).to(self.factors)
            return self.factors @ at_NR.T + self.mean.flatten(1).unsqueeze(-1)
        mean_BD = self.mean.double().flatten(1)
        off_DN = fixed_points(mean_BD.shape[1]).to(mean_BD.device).T
        if self.covariance is None or mean_BD.shape[1] == 1:
            noise_BDN = self.variance.double().flatten(1).sqrt().unsqueeze(-1) * off_DN
        else:
            noise_BDN = _root(self.covariance.double()) @ off_DN
        return noise_BDN.add_(mean_BD.unsqueeze(-1))


@lru_cache(maxsize=16)
def fixed_points(dims: int, count: int = NUM_NODES) -> Tensor:
    """N points with mean 0 and covariance I, (N, dims), in float64.

    Args:
        dims: of a point.
        count: N, a power of two.

    Raises:
        InputError: more dimensions than the Sobol sequence has.
    """
    from scipy.stats import qmc

    if dims > qmc.Sobol.MAXDIM:
        raise InputError(
            f"method `moments` takes at most {qmc.Sobol.MAXDIM} outputs, got {dims}: use `mc`"
        )
    uniform = qmc.Sobol(dims, scramble=True, rng=_SEED).random(count)
    normal = torch.from_numpy(ndtri(uniform))
    normal = normal - normal.mean(0)
    if dims > MAX_JOINT:
        return normal / normal.square().mean(0).sqrt()
    root: Tensor = torch.linalg.cholesky(normal.T @ normal / count)
    white: Tensor = torch.linalg.solve_triangular(root, normal.T, upper=False).T
    return white.contiguous()


def _root(covariance_BCC: Tensor) -> Tensor:
    """Σ^½; a little is added to the diagonal where Σ has no full rank; nan where Σ overflowed."""
    diagonal = covariance_BCC.diagonal(dim1=-2, dim2=-1)
    floor = 1e-9 * diagonal.amax(-1).clamp_min(1e-30)
    eye = torch.eye(covariance_BCC.shape[-1], dtype=torch.float64, device=covariance_BCC.device)
    factor = torch.linalg.cholesky_ex(covariance_BCC + floor[:, None, None] * eye)
    root: Tensor = factor.L
    if bool(factor.info.any()):
        values, vectors = torch.linalg.eigh(covariance_BCC.nan_to_num(0.0, 0.0, 0.0))
        root = vectors * values.clamp_min(0).sqrt().unsqueeze(-2)
    is_known_B11 = covariance_BCC.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    return root.where(is_known_B11, float("nan"))
