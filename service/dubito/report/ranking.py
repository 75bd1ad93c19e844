"""Rows in order, where rows whose keys tie count as the mean over their orders.

Flow: a key per row → `Ranking` → running sums over the order, read at any place of it, for every
resample. Within a group of tied keys a running sum is a straight line.

Dimensions: R resamples, B rows, G groups of tied keys, P places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dubito import ties
from dubito.report.statistics import Floats


@dataclass(frozen=True, slots=True)
class Ranking:
    """The rows by rising key: their order (B,), and where each group of tied keys begins (G,)."""

    order: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, key_B: Floats, least: float = ties.LEAST) -> Ranking:
        """Rows by rising key; `least` is that of a tie (`dubito.ties`)."""
        order_B = np.argsort(key_B, kind="stable")
        return cls(order_B, ties.starts(key_B[order_B], least))

    def running(self, value_RB: Floats) -> Floats:
        """Sums over the first 0, 1, ..., G groups, shape (R, G + 1)."""
        sum_RG = np.add.reduceat(value_RB[:, self.order], self.starts, axis=1)
        return np.pad(np.cumsum(sum_RG, axis=1), ((0, 0), (1, 0)))

    def read(self, row_RB: Floats, value_RB: Floats, rank_P: Floats) -> Floats:
        """Sums of a value, (R, B) or (B,), over the first `place_P` rows of each resample."""
        count_RG, sum_RG = self.running(row_RB), self.running(row_RB * value_RB)
        return np.stack(
            [
                np.interp(rank_P, count_G, sum_G)
                for count_G, sum_G in zip(count_RG, sum_RG, strict=True)
            ]
        )

    def means(self, row_RB: Floats, value_B: Floats) -> Floats:
        """Means of a value over the first i rows of each resample, i = 1..B, shape (R, B)."""
        rank_B = np.arange(1.0, len(value_B) + 1)
        return self.read(row_RB, value_B, rank_B) / rank_B
