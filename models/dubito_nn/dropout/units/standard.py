"""Standard dropout of single units, in the inverted and in the original form.

    inverted    training  y = x · m / (1-p)     evaluation  y = x
    original    training  y = x · m             evaluation  y = x · (1-p)

with m ~ Bernoulli(1-p) for every element. What follows sees the same network up to the scale of
its weights: weights trained with the original form are those of the inverted form divided by 1-p.

Source: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, Dropout: a simple way to
prevent neural networks from overfitting, JMLR 15; sections 4 and 10 (the inverted form).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from dubito_nn.dropout.masks import keep_mask
from dubito_nn.dropout.probability import Probability


class Dropout(nn.Module):
    """Inverted dropout of single units; the same as `torch.nn.Dropout`.

    y = x · m / (1-p) in training mode, y = x in eval mode.    (...) -> (...)

    Args:
        drop_prob: p, in [0, 1].

    Raises:
        ValueError: p is out of range.

    Source: Srivastava et al. 2014, JMLR 15, section 10.
    """

    drop_prob = Probability()

    def __init__(self, drop_prob: float = 0.5) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Drop units in training mode."""
        return functional.dropout(x, self.drop_prob, self.training)

    def extra_repr(self) -> str:
        """Show p."""
        return f"drop_prob={self.drop_prob}"


class OriginalDropout(nn.Module):
    """Dropout as first published: nothing is scaled in training, all is at test time.

    y = x · m in training mode, y = x · (1-p) in eval mode.    (...) -> (...)

    The layer scales its output, which for the linear map that follows is the same as scaling the
    weights: the weight scaling inference rule.

    Args:
        drop_prob: p, in [0, 1].

    Raises:
        ValueError: p is out of range.

    Source: Srivastava et al. 2014, JMLR 15, section 4; Hinton et al. 2012, arXiv:1207.0580.
    """

    drop_prob = Probability()

    def __init__(self, drop_prob: float = 0.5) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Drop units in training mode; scale all of them in eval mode."""
        if self.drop_prob == 0.0:
            return x
        if self.training:
            return x * keep_mask(x, x.shape, self.drop_prob)
        return x * (1.0 - self.drop_prob)

    def extra_repr(self) -> str:
        """Show p."""
        return f"drop_prob={self.drop_prob}"
