"""Running mean and spread, merged by Chan's rule; never E[x²] - E[x]².

Source: Chan, Golub, LeVeque 1983.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """Running mean and sum of squared deviations over the first axis."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())

    def add(self, chunk_TBD: Tensor) -> None:
        """Take in some samples."""
        count = len(chunk_TBD)
        mean = chunk_TBD.mean(0)
        squares = (chunk_TBD - mean).square_().sum(0)  # var_mean over the first axis is 10x slower
        if self.count == 0:
            self.count, self.mean, self.squares = count, mean, squares
            return
        total = self.count + count
        delta = mean - self.mean
        self.squares = self.squares + squares + delta.square() * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def variance(self) -> Tensor:
        """M2 / T, so that a decomposition into parts adds up."""
        return self.squares / self.count

    def take(self, rows: Tensor) -> Moments:
        """The same of some rows."""
        part = Moments()
        if self.count:
            part.count, part.mean, part.squares = self.count, self.mean[rows], self.squares[rows]
        return part
