"""Alpha dropout: for SELU networks, keeps mean 0 and variance 1.

Dropped units go to α' = -λα, the value of SELU far on the left, and an affine map brings mean and
variance back:

    y = a · (x · m + α' · (1-m)) + b,    m ~ Bernoulli(1-p)
    a = ((1-p) (1 + p α'²))^(-½),        b = -a · p · α'

Source: Klambauer, Unterthiner, Mayr, Hochreiter 2017, Self-normalizing neural networks,
arXiv:1706.02515.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from dubito_nn.dropout.masks import keep_mask
from dubito_nn.dropout.probability import Probability

_LAMBDA, _ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
SELU_FLOOR = -_LAMBDA * _ALPHA
"""The limit of SELU(x) for x → -∞."""


class AlphaDropout(nn.Module):
    """Alpha dropout of single units, after a SELU.

    y = a · (x · m + α' · (1-m)) + b, one m per element.    (...) -> (...)

    Args:
        drop_prob: p, in [0, 1).

    Raises:
        ValueError: p is out of range.

    Source: Klambauer et al. 2017, arXiv:1706.02515.
    """

    drop_prob = Probability(below_one=True)

    def __init__(self, drop_prob: float = 0.1) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Drop units in training mode; return x itself in eval mode."""
        if not self.training or self.drop_prob == 0.0:
            return x
        return _dropped(x, keep_mask(x, x.shape, self.drop_prob), self.drop_prob)

    def extra_repr(self) -> str:
        """Show p."""
        return f"drop_prob={self.drop_prob}"


class FeatureAlphaDropout(nn.Module):
    """Alpha dropout of whole channels, after a SELU.

    y = a · (x · m + α' · (1-m)) + b, one m per row and channel.    (B, K, ...) -> (B, K, ...)

    Args:
        drop_prob: p, in [0, 1).

    Raises:
        ValueError: p is out of range, or the input has fewer than 2 axes.

    Source: Klambauer et al. 2017, arXiv:1706.02515; Tompson et al. 2015 for dropping channels.
    """

    drop_prob = Probability(below_one=True)

    def __init__(self, drop_prob: float = 0.1) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Drop channels in training mode; return x itself in eval mode."""
        if x.ndim < 2:
            raise ValueError(
                f"expected an input of shape (rows, channels, ...), got {tuple(x.shape)}: "
                "use AlphaDropout for single units"
            )
        if not self.training or self.drop_prob == 0.0:
            return x
        shape = (x.shape[0], x.shape[1], *[1] * (x.ndim - 2))
        return _dropped(x, keep_mask(x, shape, self.drop_prob), self.drop_prob)

    def extra_repr(self) -> str:
        """Show p."""
        return f"drop_prob={self.drop_prob}"


def _dropped(x: Tensor, mask: Tensor, drop_prob: float) -> Tensor:
    scale = 1.0 / math.sqrt((1.0 - drop_prob) * (1.0 + drop_prob * SELU_FLOOR**2))
    shift = -scale * drop_prob * SELU_FLOOR
    return scale * (x * mask + SELU_FLOOR * (1.0 - mask)) + shift
