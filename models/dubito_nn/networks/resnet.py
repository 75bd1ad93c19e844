"""A small residual network with stochastic depth and DropBlock.

    rows -> image -> stem -> stages of [ relu(skip + drop(f)) ] -> mean over places -> dropout head

    f = conv norm relu [block] conv norm [block]     block: DropBlock, in the last stages

Blocks are dropped the likelier the deeper they are, p_l = p l / L.

Dimensions: B rows, C classes, K channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from dubito_nn.dropout.schedules import linear_over_depth
from dubito_nn.dropout.stochastic_depth import StochasticDepth
from dubito_nn.dropout.units.dropblock import DropBlock2d


class ResNet(nn.Module):
    """Stages of two blocks each; every stage but the first halves the image.

    (B, depth · height · width) -> (B, C); rows are flat, as they arrive over HTTP.

    Args:
        image_shape: Depth, height and width of an image.
        channels: K of each stage.
        num_classes: C.
        drop_prob: p of units before the head.
        stochastic_depth: p of the last block's branch.
        dropblock: p of DropBlock in the last stages.
        dropblock_stages: How many of the last stages have it.
        block_size: Its b, at most the size of the last stage's map.

    Raises:
        ValueError: A p is out of range, there is no stage, or the map of the last one is smaller
            than a block.

    Source: He et al. 2016, arXiv:1512.03385; Huang et al. 2016, arXiv:1603.09382; Ghiasi, Lin, Le
    2018, arXiv:1810.12890, which puts DropBlock into the last groups.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (1, 8, 8),
        *,
        channels: Sequence[int] = (16, 32),
        num_classes: int = 10,
        drop_prob: float = 0.1,
        stochastic_depth: float = 0.1,
        dropblock: float = 0.1,
        dropblock_stages: int = 1,
        block_size: int = 3,
    ) -> None:
        super().__init__()
        smallest = _last_size(image_shape, len(channels))
        if not channels or smallest < block_size:
            raise ValueError(
                f"expected at least one stage and a last map of at least {block_size}, got "
                f"{len(channels)} stages that leave {smallest} of {image_shape}: use fewer stages "
                "or a smaller block_size"
            )
        depth_probs = iter(linear_over_depth(stochastic_depth, 2 * len(channels)))
        self.num_inputs = math.prod(image_shape)
        self.stem = nn.Sequential(
            nn.Unflatten(1, image_shape), *_convolution(image_shape[0], channels[0]), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        fan_in = channels[0]
        for stage, fan_out in enumerate(channels):
            block_prob = dropblock if stage >= len(channels) - dropblock_stages else None
            for index in range(2):
                stride = 2 if stage > 0 and index == 0 else 1
                drop = StochasticDepth(next(depth_probs))
                blocks.append(_Block(fan_in, fan_out, stride, drop, block_prob, block_size))
                fan_in = fan_out
        self.blocks = nn.Sequential(*blocks)
        self.head_dropout = nn.Dropout(drop_prob)
        self.head = nn.Linear(fan_in, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (B, C)."""
        feature_BK = self.blocks(self.stem(x)).mean(dim=(2, 3))
        logits: Tensor = self.head(self.head_dropout(feature_BK))
        return logits


class _Block(nn.Module):
    """Two convolutions beside a skip connection."""

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        stride: int,
        drop: StochasticDepth,
        dropblock: float | None,
        block_size: int,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_convolution(fan_in, fan_out, stride), nn.ReLU()]
        if dropblock is not None:
            layers.append(DropBlock2d(dropblock, block_size))
        layers += _convolution(fan_out, fan_out)
        if dropblock is not None:
            layers.append(DropBlock2d(dropblock, block_size))
        self.branch = nn.Sequential(*layers)
        self.drop = drop
        is_same = stride == 1 and fan_in == fan_out
        self.skip = (
            nn.Identity()
            if is_same
            else nn.Sequential(*_convolution(fan_in, fan_out, stride, size=1))
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.skip(x) + self.drop(self.branch(x)))


def _convolution(fan_in: int, fan_out: int, stride: int = 1, size: int = 3) -> list[nn.Module]:
    convolution = nn.Conv2d(fan_in, fan_out, size, stride, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(fan_out)]


def _last_size(image_shape: tuple[int, int, int], stages: int) -> int:
    """The smaller side of the map after the last stage; a stride of 2 rounds up."""
    size = min(image_shape[1:])
    for _ in range(stages - 1):
        size = (size + 1) // 2
    return size
