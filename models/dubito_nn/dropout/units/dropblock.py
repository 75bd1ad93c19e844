"""DropBlock: contiguous blocks of a feature map.

Seeds s ~ Bernoulli(γ) at every place where a whole block fits, each drops a block of size b per
axis, overlaps count once, and what is left is scaled up:

    γ = p / bⁿ · Π fᵢ / Π (fᵢ - b + 1)       fᵢ sizes of the map, n its axes
    y = x · m · (K Π fᵢ) / Σ m               Σ over the channels and places of ONE row

The authors normalise by the count over the whole batch, which makes a row depend on its
batch-mates; here each row has its own count. A row in which everything is dropped is zero.
γ is the authors' choice: because blocks overlap, the share that is dropped is a little below p.

Dimensions: B rows, K channels, then the places of the map.
Source: Ghiasi, Lin, Le 2018, arXiv:1810.12890; the schedule of p: section 3 there, and `schedules`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from dubito_nn.dropout.masks import check_axes, check_fixed, keep_mask
from dubito_nn.dropout.probability import Probability


class _DropBlock(nn.Module):
    """What the forms for 1 and 2 axes of places share."""

    drop_prob = Probability()
    _axes: tuple[int, str]
    _pool: Callable[[Tensor, int, int], Tensor]

    def __init__(self, drop_prob: float = 0.1, block_size: int = 7) -> None:
        super().__init__()
        is_count = isinstance(block_size, int) and not isinstance(block_size, bool)
        if not is_count or block_size < 1:
            raise ValueError(
                f"expected a whole block_size of at least 1, got {block_size!r}: "
                "1 drops single places"
            )
        self.drop_prob = drop_prob
        self.block_size = block_size

    def seed_prob(self, places: tuple[int, ...]) -> float:
        """Return γ for a map of that size.

        Args:
            places: Size of the map along each axis.

        Raises:
            ValueError: A block is larger than the map.
        """
        self._check_fit(places)
        positions = math.prod(size - self.block_size + 1 for size in places)
        block = math.prod(self.block_size for _ in places)
        return self.drop_prob * math.prod(places) / positions / block

    def forward(self, x: Tensor) -> Tensor:
        """Drop blocks in training mode; return x itself in eval mode."""
        check_axes(x, *self._axes)
        places = tuple(x.shape[2:])
        for size in places:
            check_fixed(
                size,
                "size of a map that DropBlock drops from, which its rate follows from",
                "leave that axis out of free_dims and export one bundle per size, or resize",
            )
        self._check_fit(places)
        if not self.training or self.drop_prob == 0.0:
            return x
        positions = [size - self.block_size + 1 for size in places]
        seeds = 1.0 - keep_mask(x, (*x.shape[:2], *positions), self.seed_prob(places))
        mask = 1.0 - self._blocks(seeds)
        num_kept = mask.flatten(1).sum(1).clamp_min(1.0).reshape(-1, *[1] * (x.ndim - 1))
        return x * mask * (x.shape[1] * math.prod(places) / num_kept)

    def extra_repr(self) -> str:
        """Show p and b."""
        return f"drop_prob={self.drop_prob}, block_size={self.block_size}"

    def _blocks(self, seeds: Tensor) -> Tensor:
        edges = (self.block_size - 1,) * (2 * (seeds.ndim - 2))
        return self._pool(functional.pad(seeds, edges), self.block_size, 1)

    def _check_fit(self, places: tuple[int, ...]) -> None:
        if min(places) < self.block_size:
            raise ValueError(
                f"expected a map of at least {self.block_size} along every axis, got {places}: "
                f"lower block_size={self.block_size}, or put DropBlock where the map is larger"
            )


class DropBlock1d(_DropBlock):
    """DropBlock on a sequence: runs of b neighbours in one channel.

    y = x · m · K f / Σ m.    (B, K, f) -> (B, K, f)

    Args:
        drop_prob: p, in [0, 1]: the share of units to drop, before overlaps.
        block_size: b, in places; 1 drops single units, f whole channels.

    Raises:
        ValueError: An argument is out of range, the input has other than 3 axes, or a block is
            longer than the sequence.

    Source: Ghiasi, Lin, Le 2018, arXiv:1810.12890, with one axis.
    """

    _axes = (3, "(rows, channels, length)")
    _pool = staticmethod(functional.max_pool1d)


class DropBlock2d(_DropBlock):
    """DropBlock on an image: squares of b x b neighbours in one channel.

    y = x · m · K f₁ f₂ / Σ m.    (B, K, f₁, f₂) -> (B, K, f₁, f₂)

    Args:
        drop_prob: p, in [0, 1]: the share of units to drop, before overlaps.
        block_size: b, in places; 1 drops single units, f₁ = f₂ whole channels.

    Raises:
        ValueError: An argument is out of range, the input has other than 4 axes, or a block is
            larger than the map.

    Source: Ghiasi, Lin, Le 2018, arXiv:1810.12890, algorithm 1, with a count per row.
    """

    _axes = (4, "(rows, channels, height, width)")
    _pool = staticmethod(functional.max_pool2d)
