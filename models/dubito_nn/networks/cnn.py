"""A small convolutional network with dropout of channels and of units.

    rows -> image -> conv relu -> channel dropout conv relu -> pool
         -> dropout linear relu -> dropout head -> logits

Dimensions: B rows, C classes.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from dubito_nn.dropout.family import DropoutFamily, StandardFamily
from dubito_nn.networks.cosine import CosineHead


class CNN(nn.Module):
    """Two convolutions of 3 x 3, one pooling by 2, one hidden layer, one head.

    (B, depth · height · width) -> (B, C); rows are flat, as they arrive over HTTP.

    Args:
        image_shape: Depth, height and width of an image.
        channels: Channels after the first and after the second convolution.
        hidden: Units of the hidden layer.
        num_classes: C.
        dropout: The kind of dropout and its rates.
        cosine_scale: The largest logit of a head that scores by angle; None for a linear head.

    Raises:
        ValueError: The image is too small to be pooled.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (1, 8, 8),
        *,
        channels: tuple[int, int] = (32, 64),
        hidden: int = 128,
        num_classes: int = 10,
        dropout: DropoutFamily | None = None,
        cosine_scale: float | None = None,
    ) -> None:
        super().__init__()
        depth, height, width = image_shape
        if min(height, width) < 2:
            raise ValueError(
                f"expected images of at least 2 x 2, got {height} x {width}: "
                "pass image_shape=(depth, height, width)"
            )
        family = StandardFamily() if dropout is None else dropout
        first = nn.Conv2d(depth, channels[0], kernel_size=3, padding=1)
        second = nn.Conv2d(channels[0], channels[1], kernel_size=3, padding=1)
        linear = nn.Linear(channels[1] * (height // 2) * (width // 2), hidden)
        self.num_inputs = math.prod(image_shape)
        self.convolutions = nn.Sequential(
            nn.Unflatten(1, image_shape),
            first,
            nn.ReLU(),
            family.spatial(second),
            second,
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.hidden = nn.Sequential(family.dense(linear), linear, nn.ReLU())
        self.head: nn.Linear = (
            nn.Linear(hidden, num_classes)
            if cosine_scale is None
            else CosineHead(hidden, num_classes, scale=cosine_scale)
        )
        self.head_dropout = family.dense(self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (B, C)."""
        features = self.hidden(self.convolutions(x))
        logits: Tensor = self.head(self.head_dropout(features))
        return logits
