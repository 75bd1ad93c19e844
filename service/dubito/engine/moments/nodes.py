"""Quadrature nodes of a site's distribution, so that E g(ω) = Σ_k w_k g(ω_k).

bernoulli   0 and 1: exact for any g
normal      Gauss and Hermite, 64 nodes: exact for polynomials below degree 128
uniform     u = σ(t) on a grid of t with weights u (1-u) Δt, 1024 nodes: for g smooth in logit(u),
            which a relaxed mask of temperature .1 still is, the error is below 1e-9

Dimensions: K nodes.
Source: Trefethen and Weideman 2014, The exponentially convergent trapezoidal rule, SIAM Review 56.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from dubito_nn import Site

_NUM_NORMAL, _NUM_UNIFORM = 64, 1024
_LOGIT_END = 32.0  # beyond it lies 1e-14 of the uniform distribution


def nodes_of(site: Site) -> tuple[Tensor, Tensor]:
    """Nodes ω_K and weights w_K of a site, in float64, each of shape (K,)."""
    if site.distribution == "bernoulli":
        mean = site.bernoulli_mean  # a layer may draw with another number than its p
        return _double([0.0, 1.0]), _double([1 - mean, mean])
    return _normal() if site.distribution == "normal" else _uniform()


@cache
def _normal() -> tuple[Tensor, Tensor]:
    return gauss_hermite(_NUM_NORMAL)


@cache
def gauss_hermite(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the standard normal distribution, each (K,), in float64."""
    at_K, weight_K = np.polynomial.hermite_e.hermegauss(count)
    return torch.from_numpy(at_K), torch.from_numpy(weight_K / weight_K.sum())


@cache
def _uniform() -> tuple[Tensor, Tensor]:
    at_K = torch.linspace(-_LOGIT_END, _LOGIT_END, _NUM_UNIFORM, dtype=torch.float64).sigmoid()
    weight_K = at_K * (1 - at_K)
    return at_K, weight_K / weight_K.sum()


def _double(numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)
