"""A small U-shaped network for segmentation, with DropBlock where the map is small.

    image -> down, down, ... -> bottom -> up, up, ... -> one score per class and place
               └───────────── joined at the same size ─────┘

    step = conv relu [block] conv relu [block]       block: DropBlock, from the second size on

Dimensions: B rows, C classes, height and width of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from dubito_nn.dropout.units.dropblock import DropBlock2d


class UNet(nn.Module):
    """Halves the image once per further entry of `channels`, and comes back up.

    (B, depth, height, width) -> logits (B, C, height, width)

    Args:
        depth: Channels of an image.
        num_classes: C.
        channels: Of the largest map, the next smaller one, ...; at least two.
        drop_prob: p of DropBlock.
        block_size: Its b, at most the size of the smallest map.

    Raises:
        ValueError: p is out of range, there are fewer than two sizes, or, when it runs, the image
            cannot be halved so often.

    Source: Ronneberger, Fischer, Brox 2015, arXiv:1505.04597; Ghiasi, Lin, Le 2018,
    arXiv:1810.12890.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int,
        *,
        channels: Sequence[int] = (16, 32),
        drop_prob: float = 0.1,
        block_size: int = 3,
    ) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ValueError(f"expected at least two sizes, got {channels}: pass (16, 32)")
        rates = [None, *[drop_prob] * (len(channels) - 1)]
        self.down = nn.ModuleList(
            _step(fan_in, fan_out, rate, block_size)
            for (fan_in, fan_out), rate in zip(pairwise((depth, *channels)), rates, strict=True)
        )
        self.up = nn.ModuleList(
            _step(small + large, large, rate, block_size)
            for (large, small), rate in zip(pairwise(channels), rates[:-1], strict=True)
        )
        self.head = nn.Conv2d(channels[0], num_classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of every place, (B, C, height, width)."""
        halvings = len(self.down) - 1
        if min(x.shape[2:]) % 2**halvings or max(x.shape[2:]) % 2**halvings:
            raise ValueError(
                f"expected height and width divisible by {2**halvings}, got {tuple(x.shape[2:])}: "
                "pad the images, or pass fewer channels"
            )
        skips: list[Tensor] = []
        for step in self.down:
            x = step(x if not skips else functional.max_pool2d(x, 2))
            skips.append(x)
        for larger, step in zip(reversed(skips[:-1]), reversed(list(self.up)), strict=True):
            upper = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = step(torch.cat([larger, upper], dim=1))
        logits: Tensor = self.head(x)
        return logits


class PlaceProbabilities(nn.Module):
    """Makes of a segmentation network one that can be exported: flat rows in and out.

    (B, depth · height · width) -> softmax over classes, flat: (B, C · height · width)

    To be exported as task "regression" with output "mean": then `mean` is the probability of every
    class at every place, and `epistemic_variance` how far the samples differ about it.

    Args:
        network: (B, depth, height, width) -> logits (B, C, height, width).
        image_shape: Depth, height and width of an image.
    """

    def __init__(self, network: nn.Module, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.network = network
        self.image_shape = image_shape

    def forward(self, x: Tensor) -> Tensor:
        """Return the probabilities, class by class, row by row of the image."""
        logits: Tensor = self.network(x.reshape(-1, *self.image_shape))
        return logits.softmax(dim=1).flatten(1)


def _step(fan_in: int, fan_out: int, drop_prob: float | None, block_size: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (fan_in, fan_out):
        layers += [nn.Conv2d(channels, fan_out, kernel_size=3, padding=1), nn.ReLU()]
        if drop_prob is not None:
            layers.append(DropBlock2d(drop_prob, block_size))
    return nn.Sequential(*layers)
