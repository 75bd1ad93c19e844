"""Multiplicative Gaussian noise, with a fixed or a learned variance.

y = x · (1 + σ ε),  ε ~ Normal(0, 1),  σ² = p / (1-p)

Mean and variance are those of inverted dropout with the same p. In eval mode the noise is left
out, and the mean is kept exactly.

Sources: Srivastava et al. 2014, JMLR 15, section 10; Kingma, Salimans, Welling 2015,
arXiv:1506.02557, for a learned variance.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dubito_nn.dropout.probability import Probability, checked

# Of the polynomial that approximates the negative divergence; Kingma 2015, appendix C.
_C1, _C2, _C3 = 1.16145124, -1.50204118, 0.58629921


class GaussianDropout(nn.Module):
    """Gaussian noise on single units, its variance fixed by p.

    y = x · (1 + √(p / (1-p)) ε), one ε per element.    (...) -> (...)

    Args:
        drop_prob: p, in [0, 1); the variance grows without bound towards 1.

    Raises:
        ValueError: p is out of range.

    Source: Srivastava et al. 2014, JMLR 15, section 10.
    """

    drop_prob = Probability(below_one=True)

    def __init__(self, drop_prob: float = 0.5) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by noise in training mode; return x itself in eval mode."""
        if not self.training or self.drop_prob == 0.0:
            return x
        deviation = math.sqrt(self.drop_prob / (1.0 - self.drop_prob))
        return x * (1.0 + deviation * torch.randn_like(x))

    def extra_repr(self) -> str:
        """Show p."""
        return f"drop_prob={self.drop_prob}"


class LearnedGaussianDropout(nn.Module):
    """Gaussian noise on single units, with a variance α per unit that is learned.

    y = x · (1 + √α ε),  α = p / (1-p) < 1.    (..., K) -> (..., K)

    The objective needs the divergence of the noise from a log-uniform prior on the weights,
    (scale) · Σ_k -(½ log α + c₁ α + c₂ α² + c₃ α³), up to a constant: `regularisation()`.

    Args:
        num_features: K.
        drop_prob_init: p at the start, in (0, ½): the approximation holds for α ≤ 1, so α is
            the logistic function of the parameter.
        divergence_weight: Factor of the divergence; 1 / N for a loss that is a mean over N rows.

    Raises:
        ValueError: An argument is out of its range.

    Source: Kingma, Salimans, Welling 2015, arXiv:1506.02557, sections 3.1 and 3.2, appendix C.
    """

    def __init__(
        self, num_features: int, *, drop_prob_init: float = 0.2, divergence_weight: float = 0.0
    ) -> None:
        super().__init__()
        checked(drop_prob_init, name="drop_prob_init")
        if num_features < 1 or not 0.0 < drop_prob_init < 0.5 or divergence_weight < 0.0:
            raise ValueError(
                "expected at least 1 feature, drop_prob_init in (0, 0.5) and a divergence_weight "
                f"of at least 0, got {num_features}, {drop_prob_init} and {divergence_weight}: "
                "start at 0.2, and take 1 / (number of rows) as weight"
            )
        self.divergence_weight = divergence_weight
        start = math.log(drop_prob_init / (1.0 - 2.0 * drop_prob_init))
        self.variance_logit_K = nn.Parameter(torch.full((num_features,), start))

    @property
    def variances(self) -> Tensor:
        """α of every unit, below 1."""
        return torch.sigmoid(self.variance_logit_K)

    @property
    def drop_prob(self) -> Tensor:
        """The mean over units of α / (1+α): the p of plain dropout with that variance."""
        return (self.variances / (1.0 + self.variances)).mean()

    def regularisation(self) -> Tensor:
        """Return the weighted divergence from the prior, up to a constant, in nats per row."""
        alpha = self.variances
        negative = 0.5 * alpha.log() + _C1 * alpha + _C2 * alpha**2 + _C3 * alpha**3
        return -self.divergence_weight * negative.sum()

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by noise in training mode; return x itself in eval mode."""
        return x * (1.0 + self.variances.sqrt() * torch.randn_like(x)) if self.training else x

    def extra_repr(self) -> str:
        """Show what is learned."""
        return (
            f"num_features={len(self.variance_logit_K)}, "
            f"drop_prob={self.drop_prob.item():.4g} (learned)"
        )
