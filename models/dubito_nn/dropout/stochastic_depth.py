"""Stochastic depth, also called DropPath: the residual branch of a whole block is dropped.

h' = h + f(h) · m / (1-p),  m ~ Bernoulli(1-p)

The layer stands at the end of the branch and multiplies it; the identity path is left to the
network. One number m per row, or one for the batch, as first published.

Dimensions: B rows.
Sources: Huang, Sun, Liu, Sedra, Weinberger 2016, arXiv:1603.09382 (per batch, scaled at test
time); Larsson, Maire, Shakhnarovich 2017, arXiv:1605.07648 (drop-path).
"""

from __future__ import annotations

from torch import Tensor, nn

from dubito_nn.dropout.masks import Per, check_per, inverted_mask
from dubito_nn.dropout.probability import Probability


class StochasticDepth(nn.Module):
    """Dropout of a residual branch.

    y = x · m / (1-p), m of shape (B, 1, ...) or (1, 1, ...).    (B, ...) -> (B, ...)

    Args:
        drop_prob: p, in [0, 1]; `linear_over_depth` gives those of a stack of blocks.
        per: `row`: one number per row; `batch`: one number for all rows of a call.

    Raises:
        ValueError: An argument is out of range.

    Source: Huang et al. 2016, arXiv:1603.09382, in the inverted form.
    """

    drop_prob = Probability()

    def __init__(self, drop_prob: float = 0.1, per: Per = "row") -> None:
        super().__init__()
        self.drop_prob = drop_prob
        self.per = check_per(per)

    def forward(self, x: Tensor) -> Tensor:
        """Drop the branch in training mode; return x itself in eval mode."""
        if not self.training or self.drop_prob == 0.0:
            return x
        rows = x.shape[0] if self.per == "row" else 1
        return x * inverted_mask(x, (rows, *[1] * (x.ndim - 1)), self.drop_prob)

    def extra_repr(self) -> str:
        """Show p and what shares a number."""
        return f"drop_prob={self.drop_prob}, per={self.per!r}"
