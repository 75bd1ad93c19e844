"""Sums of probabilities over groups of consecutive samples, as the kernels make them.

Its job: kernels sum over at most 16 samples; longer groups are made of these, and joined when the
samples become more, by the rule of `jackknife.py`.

Dimensions: T samples, N numbers, G groups.
"""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from dubito.engine.draws.strata import BLOCK
from dubito.engine.summing.cuda.columns import rows_of
from dubito.engine.summing.jackknife import group_size


class GroupSums:
    """Sums over groups of samples.

    Args:
        most: that are kept.
    """

    def __init__(self, most: int) -> None:
        self.size = 1
        self._most, self._count = most, 0
        self.sums: Tensor | None = None

    def of_chunk(self, samples: int) -> int:
        """Samples that a kernel is to sum, of a chunk to come."""
        return min(group_size(self._count + samples, self._most), BLOCK)

    def add(self, sums_GN: Tensor, samples: int, size: int) -> None:
        """Take in the sums of the next samples.

        Args:
            sums_GN: over each group of a chunk.
            samples: of the chunk.
            size: of each but the last, as `of_chunk` says.
        """
        before, first, self._count = self.size, self._count, self._count + samples
        self.size = group_size(self._count, self._most)
        left_over = first % self.size // size  # groups of this size that one is begun with
        sums_GN = _joined(sums_GN, self.size // size, left_over)
        if self.sums is not None:
            old_GN = _joined(self.sums, self.size // before, 0)
            if left_over:
                sums_GN[0] += old_GN[-1]
                old_GN = old_GN[:-1]
            sums_GN = torch.cat([old_GN, sums_GN])
        self.sums = sums_GN

    def take(self, rows: Tensor, count: int) -> GroupSums:
        """Return the groups of some rows, of so many."""
        assert self.sums is not None
        part = copy(self)
        part.sums = rows_of(self.sums, rows, count)
        return part


def _joined(sums_GN: Tensor, factor: int, begun: int) -> Tensor:
    """Sums over so many groups each, the first of which lacks some that were begun with."""
    if factor == 1:
        return sums_GN
    after = -(begun + len(sums_GN)) % factor
    padded = torch.nn.functional.pad(sums_GN, (0, 0, begun, after))
    return padded.reshape(-1, factor, sums_GN.shape[1]).sum(1)
