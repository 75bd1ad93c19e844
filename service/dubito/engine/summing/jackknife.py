"""The bias of the mutual information in T, from sums over groups of consecutive samples.

Its job: keep at most 64 sums, whatever T: single samples first; whenever there are 64 groups and
another sample comes, neighbours are joined and groups become twice as long. So what is kept
depends on the samples alone, and not on a T known beforehand.

Dimensions: T samples, B rows, C classes, G groups.

Source: Busing, Meijer, Van der Leeden 1999 (unequal groups), Statistics and Computing 9:3.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from dubito.engine.prediction import Column
from dubito.engine.running.constants import constant

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
        self._sums_GBC: list[Tensor] = []  # of some groups after the others

    def add(self, probs_TBC: Tensor) -> None:
        """Take in the next samples, in order of t."""
        while len(probs_TBC):
            if self._count == self._most * self.size:
                sum_GBC = self._joined()
                self._sums_GBC = [sum_GBC[::2] + sum_GBC[1::2]]
                self.size *= 2
            fitting_TBC = probs_TBC[: self._most * self.size - self._count]
            probs_TBC = probs_TBC[len(fitting_TBC) :]
            self._fill(fitting_TBC)

    def _fill(self, probs_TBC: Tensor) -> None:
        first = self._count
        self._count += len(probs_TBC)
        if self.size == 1:
            self._sums_GBC.append(probs_TBC)
            return
        sum_GBC = self._joined()
        new = self.number - len(sum_GBC)
        sum_GBC = torch.cat([sum_GBC, probs_TBC.new_zeros(new, *probs_TBC.shape[1:])])
        places_T = torch.arange(first, self._count, device=probs_TBC.device) // self.size
        self._sums_GBC = [sum_GBC.index_add(0, places_T, probs_TBC)]

    def _joined(self) -> Tensor:
        if len(self._sums_GBC) > 1:
            self._sums_GBC = [torch.cat(self._sums_GBC)]
        return self._sums_GBC[0]

    @property
    def number(self) -> int:
        """How many groups there are, G."""
        return -(-self._count // self.size)

    def entropy(self, mean_BC: Tensor) -> Tensor:
        """Σ_j (T - m_j)·H_(j), with H_(j) the entropy without group j of m_j samples, (B,).

        Args:
            mean_BC: p̄.
        """
        count = self._count
        rest_G = constant(_rests(self.number, self.size, count), mean_BC)
        divisor = rest_G.view(-1, *(1,) * mean_BC.ndim)
        without_GBC = (mean_BC * count - self._joined()).div_(divisor).clamp_min_(0)
        entropy_GB = torch.special.entr(without_GBC).sum(-1)
        total_B: Tensor = (rest_G @ entropy_GB.flatten(1)).view(entropy_GB.shape[1:])
        return total_B

    def take(self, rows: Tensor) -> Groups:
        """The same of some rows."""
        part = Groups(self._most)
        part.size, part._count = self.size, self._count
        part._sums_GBC = [sum_GBC[:, rows] for sum_GBC in self._sums_GBC]
        return part


def correction(rest_B: Column, entropy_B: Column, groups: int, count: int) -> Column:
    """What the jackknife adds to H[p̄], not below 0 since H is concave.

    G·H - Σ_j (1 - m_j/T)·H_(j) - H

    Args:
        rest_B: as of `Groups.entropy`, on the host.
        entropy_B: H[p̄].
        groups: G; with fewer than 2 nothing is added.
        count: T.
    """
    if groups < 2:
        return np.zeros_like(entropy_B)
    added_B: Column = np.maximum((groups - 1) * entropy_B - rest_B / count, 0.0)
    return added_B


@lru_cache(maxsize=64)
def _rests(groups: int, size: int, count: int) -> tuple[float, ...]:
    """How many samples there are without each group, T - m_j, G of them."""
    return (*(float(count - size),) * (groups - 1), float(size * (groups - 1)))
