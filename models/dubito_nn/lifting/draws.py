"""Draws for trying a lifted graph out: random ones, and constants that let most or least through.

Not the generator that serves: that one is counter-based and lives in the engine.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dubito_nn.manifest import Site
from dubito_nn.program import SiteSource

TOLERANCE = 1e-5
_COARSE = {torch.float16: 5e-3, torch.bfloat16: 5e-2}


def tolerance(value: Tensor) -> float:
    """Largest difference that still counts as the same, for a tensor of that type and size."""
    return _COARSE.get(value.dtype, TOLERANCE) * max(1.0, float(value.abs().max()))


def random_draws(sites: Sequence[Site]) -> SiteSource:
    """Fresh draws for every site, by the global generator; the same again when asked again."""
    drawn: dict[int, Tensor] = {}

    def draw(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if index not in drawn or tuple(drawn[index].shape) != size:
            drawn[index] = _random(sites[index], size)
        return drawn[index].to(dtype)

    return draw


def _random(site: Site, size: tuple[int, ...]) -> Tensor:
    if site.distribution == "normal":
        return torch.randn(size, dtype=torch.float64)
    uniform = torch.rand(size, dtype=torch.float64)
    if site.distribution == "uniform":
        return uniform
    return (uniform < site.bernoulli_mean).double()


_KEPT = {"bernoulli": 1.0, "uniform": 0.5, "normal": 0.0}
_DROPPED = {"bernoulli": 0.0, "uniform": 0.001, "normal": 1.0}


def kept_draws(sites: Sequence[Site]) -> SiteSource:
    """Every site where it lets most through."""

    def draw(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.full(size, _KEPT[sites[index].distribution], dtype=dtype)

    return draw


def dropped_draws(sites: Sequence[Site]) -> SiteSource:
    """Every site at its other end."""

    def draw(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.full(size, _DROPPED[sites[index].distribution], dtype=dtype)

    return draw
