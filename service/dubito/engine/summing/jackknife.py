"""The bias of the mutual information in T, from sums over groups of consecutive samples.

Its job: keep at most 64 sums, whatever T: single samples first; whenever there are 64 groups and
another sample comes, neighbours are joined and groups become twice as long. So what is kept
depends on the samples alone, and not on a T known beforehand.

Dimensions: T samples, B rows, C classes, G groups.

Source: Busing, Meijer, Van der Leeden 1999 (unequal groups), Statistics and Computing 9:3.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Generic

import numpy as np
from torch import Tensor

from dubito.engine.calling.columns import Column
from dubito.engine.summing.arrays import A, concat, entr, not_below_zero, numbers, taken

MAX_GROUPS = 64


class Groups(Generic[A]):
    """Sums of probabilities over groups of consecutive samples.

    Args:
        most: groups that are kept, an even number.
    """

    def __init__(self, most: int = MAX_GROUPS) -> None:
        self.size = 1
        self._most = most
        self._count = 0
        self._sums_GBC: list[A] = []  # of some groups after the others

    def add(self, probs_TBC: A) -> None:
        """Take in the next samples, in order of t."""
        while probs_TBC.shape[0]:
            if self._count == self._most * self.size:
                sum_GBC = self._joined()
                self._sums_GBC = [sum_GBC[::2] + sum_GBC[1::2]]
                self.size *= 2
            fitting_TBC = probs_TBC[: self._most * self.size - self._count]
            probs_TBC = probs_TBC[fitting_TBC.shape[0] :]
            self._fill(fitting_TBC)

    def _fill(self, probs_TBC: A) -> None:
        """Add samples to the last group until it is full, then to new ones."""
        begun = self._count % self.size
        self._count += probs_TBC.shape[0]
        if self.size == 1:
            self._sums_GBC.append(probs_TBC)
            return
        sum_GBC = self._joined()
        parts = [sum_GBC]
        if begun:
            last_TBC = probs_TBC[: self.size - begun]
            parts = [sum_GBC[:-1], sum_GBC[-1:] + last_TBC.sum(0)]
            probs_TBC = probs_TBC[last_TBC.shape[0] :]
        whole = probs_TBC.shape[0] // self.size * self.size
        if whole:
            shape = (-1, self.size, *probs_TBC.shape[1:])
            parts.append(probs_TBC[:whole].reshape(shape).sum(1))
        if whole < probs_TBC.shape[0]:
            parts.append(probs_TBC[whole:].sum(0)[None])
        self._sums_GBC = [concat(parts)]

    def _joined(self) -> A:
        self._sums_GBC = [concat(self._sums_GBC)]
        return self._sums_GBC[0]

    @property
    def number(self) -> int:
        """Number of groups, G."""
        return -(-self._count // self.size)

    def entropy(self, mean_BC: A) -> A:
        """Σ_j (T - m_j)·H_(j), with H_(j) the entropy without group j of m_j samples, (B,).

        Args:
            mean_BC: p̄.
        """
        count = self._count
        rest_G = numbers(_rests(self.number, self.size, count), mean_BC)
        rest_G11 = rest_G.reshape((-1, *(1,) * mean_BC.ndim))
        without_GBC = mean_BC * count - self._joined()
        without_GBC /= rest_G11
        entropy_GBC = entr(not_below_zero(without_GBC))
        entropy_GBC *= rest_G11
        total_B: A = entropy_GBC.sum(0).sum(-1)
        return total_B

    def take(self, rows: Tensor) -> Groups[A]:
        """Return the groups of some rows."""
        part: Groups[A] = Groups(self._most)
        part.size, part._count = self.size, self._count
        part._sums_GBC = [
            taken(sum_GBC.swapaxes(0, 1), rows).swapaxes(0, 1) for sum_GBC in self._sums_GBC
        ]
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
    return np.maximum((groups - 1) * entropy_B - rest_B / count, 0.0)


@lru_cache(maxsize=64)
def _rests(groups: int, size: int, count: int) -> tuple[float, ...]:
    """How many samples there are without each group, T - m_j, G of them."""
    return (*(float(count - size),) * (groups - 1), float(size * (groups - 1)))
