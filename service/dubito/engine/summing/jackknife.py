"""The bias of the mutual information in T, from sums over groups of consecutive samples.

Its job: keep at most 64 sums, whatever T: single samples first; whenever there are 64 groups and
another sample comes, neighbours are joined and groups become twice as long. So what is kept
depends on the samples alone, and not on a T known beforehand.

Dimensions: T samples, B rows, C classes, G groups.

Source: Busing, Meijer, Van der Leeden 1999 (unequal groups), Statistics and Computing 9:3.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dubito.engine.calling.columns import Column
from dubito.engine.kernels.constants import constant

MAX_GROUPS = 64


class Groups:
    """Sums of probabilities over groups of consecutive samples.

    Args:
        most: groups that are kept, an even number.
    """

    def __init__(self, most: int = MAX_GROUPS) -> None:
        self.size = 1
        self._most = most
        self._count = 0
        self._sum_GBC: Tensor | None = None

    def add(self, probs_TBC: Tensor) -> None:
        """Take in the next samples, in order of t."""
        before, first, self._count = self.size, self._count, self._count + len(probs_TBC)
        self.size = group_size(self._count, self._most)
        place_T = torch.arange(first, self._count, device=probs_TBC.device) // self.size
        shape = (-(-self._count // self.size), *probs_TBC.shape[1:])
        sum_GBC = probs_TBC.new_zeros(shape).index_add_(0, place_T, probs_TBC)
        if self._sum_GBC is not None:
            place_G = torch.arange(len(self._sum_GBC), device=probs_TBC.device)
            sum_GBC.index_add_(0, place_G * before // self.size, self._sum_GBC)
        self._sum_GBC = sum_GBC

    def correction(self, mean_BC: Tensor) -> Tensor:
        """What the jackknife adds to H[p̄], not below 0 since H is concave, (B,).

        G·H - Σ_j (1 - m_j/T)·H_(j) - H, with H_(j) the entropy without group j of m_j samples

        Args:
            mean_BC: p̄.
        """
        assert self._sum_GBC is not None
        rest_G = self._count - sizes_of(self._count, self.size)
        entropy_B = torch.special.entr(mean_BC).sum(-1)
        if len(rest_G) < 2:
            return torch.zeros_like(entropy_B)
        rest_G11 = constant(tuple(rest_G), mean_BC).reshape(-1, *(1,) * mean_BC.ndim)
        without_GBC = (mean_BC * self._count - self._sum_GBC) / rest_G11
        entropy_GBC = torch.special.entr(without_GBC.clamp_min(0)) * rest_G11
        correction_B = (len(rest_G) - 1) * entropy_B - entropy_GBC.sum((0, -1)) / self._count
        corrected_B: Tensor = correction_B.clamp_min(0)
        return corrected_B

    def take(self, rows: Tensor) -> Groups:
        """Return the groups of some rows."""
        part = Groups(self._most)
        part.size, part._count = self.size, self._count
        part._sum_GBC = None if self._sum_GBC is None else self._sum_GBC[:, rows]
        return part


def group_size(count: int, most: int) -> int:
    """Samples of each group but the last: the least power of 2 with which there are few enough.

    Args:
        count: T.
        most: groups.
    """
    size = 1
    while count > most * size:
        size *= 2
    return size


def sizes_of(count: int, size: int) -> Column:
    """How many samples there are in each group, m_j.

    Args:
        count: T.
        size: of each but the last.
    """
    first_G = np.arange(0, count, size)
    return np.minimum(first_G + size, count).astype(np.float64) - first_G
