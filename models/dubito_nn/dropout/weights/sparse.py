"""Sparse variational dropout: noise that is learned for every weight, until most weights drown.

Every weight has a normal posterior w ~ Normal(θ, σ²), with noise-to-signal ratio α = σ²/θ². Under
a log-uniform prior the divergence depends on α alone:

    -KL ≈ Σ k₁ s(k₂ + k₃ log α) - ½ log(1 + 1/α) - k₁        s the logistic function

It pulls α upward; weights with log α above a threshold (3: p = α/(1+α) > 0.95) are pruned.
Sampling moves the noise to the output, the local reparametrisation, with the same distribution
for every row:

    y = θ x + b + √(σ² x²) ε,  ε ~ Normal(0, 1)               per row
    y = (θ + σ ε) x + b                                       per batch: one network for all rows

In eval mode y = θ x + b with the pruned weights at 0.

Dimensions: B rows, O outputs or channels.
Sources: Kingma, Salimans, Welling 2015, arXiv:1506.02557, for the local reparametrisation;
Molchanov, Ashukha, Vetrov 2017, arXiv:1701.05369, equation 14 for the divergence.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from dubito_nn.dropout.masks import Per, check_per
from dubito_nn.dropout.weights.maps import mapped

_K1, _K2, _K3 = 0.63576, 1.87320, 1.48695
_LOG_VARIANCE_INIT = -10.0
_EPSILON = 1e-8


class _Sparse(nn.Module):
    """What the linear and the convolutional form share, around a layer that holds θ and b."""

    is_kept: Tensor

    def __init__(
        self,
        layer: nn.Linear | nn.Conv2d,
        *,
        divergence_weight: float,
        threshold: float,
        per: Per,
    ) -> None:
        super().__init__()
        if divergence_weight < 0.0:
            raise ValueError(
                f"expected a divergence_weight of at least 0, got {divergence_weight}: "
                "1 / (number of training rows) is the variational bound"
            )
        self.layer = layer
        self.log_variance = nn.Parameter(torch.full_like(layer.weight, _LOG_VARIANCE_INIT))
        self.register_buffer("is_kept", torch.ones_like(layer.weight))
        self.divergence_weight = divergence_weight
        if math.isnan(threshold):
            raise ValueError("expected a threshold of log α, got nan: use 3, where p is 0.95")
        self.threshold = threshold
        self.per = check_per(per)

    @property
    def log_alpha(self) -> Tensor:
        """Return log α = log σ² - log θ² of every weight, between -10 and 10."""
        signal = torch.log(self.layer.weight.square() + _EPSILON)
        return (self.log_variance - signal).clamp(-10.0, 10.0)

    @property
    def drop_prob(self) -> Tensor:
        """The mean of α / (1+α) over the weights that are not pruned, a scalar."""
        num_kept = self.is_kept.sum().clamp_min(1.0)
        return (torch.sigmoid(self.log_alpha) * self.is_kept).sum() / num_kept

    def regularisation(self) -> Tensor:
        """Return divergence_weight · KL, in nats per row.

        KL ≈ Σ k₁ + ½ log(1 + 1/α) - k₁ s(k₂ + k₃ log α). Source: Molchanov 2017, equation 14.
        """
        log_alpha = self.log_alpha
        divergence = (
            _K1 + 0.5 * functional.softplus(-log_alpha) - _K1 * torch.sigmoid(_K2 + _K3 * log_alpha)
        )
        return self.divergence_weight * (divergence * self.is_kept).sum()

    def survivors(self) -> Tensor:
        """Return 1 for weights with log α below the threshold that are not pruned yet, else 0."""
        return (self.log_alpha < self.threshold).to(self.is_kept.dtype) * self.is_kept

    @torch.no_grad()
    def prune(self) -> None:
        """Take weights above the threshold out for good, mean and noise, in every mode."""
        self.is_kept.copy_(self.survivors())
        self.layer.weight.mul_(self.is_kept)

    def forward(self, x: Tensor) -> Tensor:
        """Sample in training mode; in eval mode use θ, with weights above the threshold at 0."""
        layer, mean = self.layer, self.layer.weight * self.is_kept
        if not self.training:
            return mapped(layer, x, layer.weight * self.survivors(), layer.bias)
        variance = self.log_variance.exp() * self.is_kept
        if self.per == "batch":
            noise = torch.randn_like(mean)
            return mapped(layer, x, mean + variance.sqrt() * noise, layer.bias)
        y = mapped(layer, x, mean, layer.bias)
        spread = mapped(layer, x.square(), variance, None)
        return y + (spread + _EPSILON).sqrt() * torch.randn_like(y)

    def extra_repr(self) -> str:
        """Show what is learned."""
        return f"drop_prob={self.drop_prob.item():.4g} (learned), per={self.per!r}"


class SparseLinear(_Sparse):
    """A linear layer with learned noise on every weight.

    y = θ x + b + √(σ² x²) ε.    (..., in_features) -> (..., out_features)

    Args:
        in_features: Of a row.
        out_features: O.
        bias: Whether there is a b; it has no noise.
        divergence_weight: Factor of the divergence in `regularisation()`: 1 / N for a loss that is
            a mean over N rows, raised from 0 in the first epochs (the attribute may be set).
        threshold: log α above which a weight is pruned.
        per: `row`: noise of its own for every row; `batch`: one network for all rows of a call.
            The attribute may be set after training.

    Raises:
        ValueError: An argument is out of range.

    Source: Molchanov, Ashukha, Vetrov 2017, arXiv:1701.05369.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        divergence_weight: float = 0.0,
        threshold: float = 3.0,
        per: Per = "row",
    ) -> None:
        super().__init__(
            nn.Linear(in_features, out_features, bias=bias),
            divergence_weight=divergence_weight,
            threshold=threshold,
            per=per,
        )


class SparseConv2d(_Sparse):
    """A convolution with learned noise on every weight.

    y = θ * x + b + √(σ² * x²) ε, * the convolution.    (B, in, height, width) -> (B, O, ...)

    Args:
        in_channels: Of the map.
        out_channels: O.
        kernel_size: Along both axes.
        stride: Along both axes.
        padding: Along both axes, zeros.
        bias: Whether there is a b; it has no noise.
        divergence_weight: Factor of the divergence in `regularisation()`, as for `SparseLinear`.
        threshold: log α above which a weight is pruned.
        per: `row`: noise of its own for every row; `batch`: one network for all rows of a call.
            The attribute may be set after training.

    Raises:
        ValueError: An argument is out of range.

    Source: Molchanov, Ashukha, Vetrov 2017, arXiv:1701.05369, section 4.2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        divergence_weight: float = 0.0,
        threshold: float = 3.0,
        per: Per = "row",
    ) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias),
            divergence_weight=divergence_weight,
            threshold=threshold,
            per=per,
        )
