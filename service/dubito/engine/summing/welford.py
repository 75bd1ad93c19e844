"""Running mean and spread, merged by Chan's rule; never E[x²] - E[x]².

Source: Chan, Golub, LeVeque 1983.
"""

from __future__ import annotations

from torch import Tensor


class RunningMean:
    """Running mean and sum of squared deviations over the first axis, once there is a sample."""

    mean: Tensor
    squares: Tensor

    def __init__(self) -> None:
        self.count = 0

    def add(self, chunk_TBD: Tensor) -> None:
        """Take in some samples."""
        count, first = chunk_TBD.shape[0], chunk_TBD[0]
        from_first = chunk_TBD - first  # so that equal samples have no spread at all
        offset = from_first.sum(0) / count
        mean = first + offset
        from_first -= offset
        from_first *= from_first
        squares = from_first.sum(0)  # var_mean over the first axis is 10x slower
        if self.count == 0:
            self.count, self.mean, self.squares = count, mean, squares
            return
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.squares = self.squares + squares + delta * delta * (self.count * count / total)
        self.count = total

    def take(self, rows: Tensor) -> RunningMean:
        """Return the moments of some rows."""
        part = RunningMean()
        if self.count:
            part.count = self.count
            part.mean, part.squares = self.mean[rows], self.squares[rows]
        return part
