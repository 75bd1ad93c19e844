"""Spatial dropout: whole channels, since neighbours in a feature map carry the same information.

y = x · m / (1-p),  m ~ Bernoulli(1-p), one number per row and channel.

Dimensions: B rows, K channels, then the places of the map.
Source: Tompson, Goroshin, Jain, LeCun, Bregler 2015, arXiv:1411.4280.
"""

from __future__ import annotations

from torch import Tensor, nn

from dubito_nn.dropout.masks import check_axes, inverted_mask
from dubito_nn.dropout.probability import Probability


class _Spatial(nn.Module):
    """What the forms for 1, 2 and 3 axes of places share."""

    drop_prob = Probability()
    _axes: tuple[int, str]

    def __init__(self, drop_prob: float = 0.1) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Drop channels in training mode; return x itself in eval mode."""
        check_axes(x, *self._axes)
        if not self.training or self.drop_prob == 0.0:
            return x
        shape = (x.shape[0], x.shape[1], *[1] * (x.ndim - 2))
        return x * inverted_mask(x, shape, self.drop_prob)

    def extra_repr(self) -> str:
        """Show p."""
        return f"drop_prob={self.drop_prob}"


class SpatialDropout1d(_Spatial):
    """Dropout of whole channels of a sequence.

    y = x · m / (1-p), m of shape (B, K, 1).    (B, K, length) -> the same

    Args:
        drop_prob: p, in [0, 1].

    Raises:
        ValueError: p is out of range, or the input has other than 3 axes.

    Source: Tompson et al. 2015, arXiv:1411.4280.
    """

    _axes = (3, "(rows, channels, length)")


class SpatialDropout2d(_Spatial):
    """Dropout of whole channels of an image.

    y = x · m / (1-p), m of shape (B, K, 1, 1).    (B, K, height, width) -> the same

    Args:
        drop_prob: p, in [0, 1].

    Raises:
        ValueError: p is out of range, or the input has other than 4 axes.

    Source: Tompson et al. 2015, arXiv:1411.4280.
    """

    _axes = (4, "(rows, channels, height, width)")


class SpatialDropout3d(_Spatial):
    """Dropout of whole channels of a volume.

    y = x · m / (1-p), m of shape (B, K, 1, 1, 1).    (B, K, depth, height, width) -> the same

    Args:
        drop_prob: p, in [0, 1].

    Raises:
        ValueError: p is out of range, or the input has other than 5 axes.

    Source: Tompson et al. 2015, arXiv:1411.4280, with a third axis.
    """

    _axes = (5, "(rows, channels, depth, height, width)")
