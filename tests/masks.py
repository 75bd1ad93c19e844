"""Exact moments over all masks of a small network.

Dimensions: M masks, B rows, C outputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor


def over_all_masks(
    run: Callable[[Tensor], Tensor], count: int, drop_prob: float
) -> tuple[Tensor, Tensor]:
    """Exact mean and covariance of run(mask), (B, C), over all masks of `count` numbers."""
    values, chances = [], []
    with torch.no_grad():
        for bits in itertools.product((0.0, 1.0), repeat=count):
            values.append(run(torch.tensor(bits, dtype=torch.float64)))
            kept = sum(bits)
            chances.append((1 - drop_prob) ** kept * drop_prob ** (count - kept))
    all_MBC, chance_M = torch.stack(values), torch.tensor(chances, dtype=torch.float64)
    mean = torch.einsum("m,mbc->bc", chance_M, all_MBC)
    off = all_MBC - mean
    return mean, torch.einsum("m,mbc,mbd->bcd", chance_M, off, off)
