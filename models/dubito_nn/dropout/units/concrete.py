"""Concrete dropout: the drop probability is learned by gradient descent.

The Bernoulli mask is relaxed to a continuous one, through which the gradient reaches p. One
uniform number u per unit (dense) or per channel (spatial) is all the randomness:

    z = σ((log p - log(1-p) + log u - log(1-u)) / temperature)        near 1: dropped
    y = x · (1-z) / (1-p)

In training mode the layer always rolls its dice, and samples are served with the same relaxed
mask. In eval mode it is the identity: weight scaling, as for the inverted form of plain dropout.
That keeps the mean approximately, since the mean of the relaxed z is not exactly p (with
temperature 0.1 at p = 0.1 it is 0.1012).

The objective needs one term per layer, for the linear map with weight W that follows:

    weight_regulariser · ‖W‖² / (1-p)  +  dropout_regulariser · K · (p log p + (1-p) log(1-p))

K is the number of units or channels. The first keeps p from growing, the second, the negative
entropy of the masks, from shrinking; the more rows, the smaller both and the smaller p.

Dimensions: B rows, K features or channels.
Source: Gal, Hron, Kendall 2017, Concrete Dropout, arXiv:1705.07832.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dubito_nn.dropout.masks import check_axes

# Keeps the logarithms finite where float32 draws u = 0 or rounds 1-u to 0.
_EPSILON = 1e-7


Following = nn.Linear | nn.Conv1d | nn.Conv2d


class _Concrete(nn.Module):
    """What the dense and the spatial forms share: p, the relaxed mask, the regulariser.

    Args:
        num_features: K, units of a row or channels; they scale the entropy of the masks.
        following: The map that the layer precedes, for its ‖W‖²; None leaves that part out.
        drop_prob_init: p at the start, between 0 and 1, both excluded.
        temperature: Of the relaxation; 0 would be Bernoulli. None takes the authors' value.
        weight_regulariser: Factor of ‖W‖² / (1-p); see `concrete_regularisers`.
        dropout_regulariser: Factor of the negative entropy; see `concrete_regularisers`.
    """

    _precedes: type[Following]
    _temperature: float
    _axes: tuple[int, str] | None  # of the input; None where any will do

    def __init__(
        self,
        num_features: int,
        *,
        following: Following | None = None,
        drop_prob_init: float = 0.1,
        temperature: float | None = None,
        weight_regulariser: float = 0.0,
        dropout_regulariser: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.temperature = self._temperature if temperature is None else temperature
        self.weight_regulariser = weight_regulariser
        self.dropout_regulariser = dropout_regulariser
        self._check(drop_prob_init, following)
        self.p_logit = nn.Parameter(torch.tensor(math.log(drop_prob_init / (1.0 - drop_prob_init))))
        # In a tuple, since an attribute would become a child, and its weight belong to two modules.
        self._following = () if following is None else (following,)

    def forward(self, x: Tensor) -> Tensor:
        """Drop units or channels in training mode; return x itself in eval mode."""
        if self._axes is not None:
            check_axes(x, *self._axes)
        got = x.shape[-1 if self._axes is None else 1]
        if got != self.num_features:
            raise ValueError(
                f"expected {self.num_features} features, got {got} in {tuple(x.shape)}: "
                "num_features is the number of units or channels that the layer drops from"
            )
        if not self.training:
            return x
        return x * self._scale(torch.rand_like(x if self._axes is None else self._first_place(x)))

    @property
    def drop_prob(self) -> Tensor:
        """The learned drop probability p, a scalar through which gradients flow."""
        return torch.sigmoid(self.p_logit)

    def regularisation(self) -> Tensor:
        """Return the layer's term of the objective, in nats per row.

        weight_regulariser · ‖W‖² / (1-p) + dropout_regulariser · K · (p log p + (1-p) log(1-p))

        Without a following layer the first part is 0. Source: Gal 2017, equations 3 and 4.
        """
        p, keep = self.drop_prob, torch.sigmoid(-self.p_logit)
        negative_entropy = torch.xlogy(p, p) + torch.xlogy(keep, keep)
        term = self.dropout_regulariser * self.num_features * negative_entropy
        for layer in self._following:
            term = term + self.weight_regulariser * layer.weight.square().sum() / keep
        return term

    def extra_repr(self) -> str:
        """Show what is fixed and what is learned."""
        return (
            f"num_features={self.num_features}, drop_prob={self.drop_prob.item():.4g} (learned), "
            f"temperature={self.temperature:.4g}"
        )

    @staticmethod
    def _first_place(x: Tensor) -> Tensor:
        """One number for each row and channel, of the rank of x."""
        return x[:, :, :1] if x.ndim == 3 else x[:, :, :1, :1]

    def _scale(self, u: Tensor) -> Tensor:
        """Return (1-z) / (1-p) for uniform numbers u: what the input is multiplied by."""
        noise = torch.log(u + _EPSILON) - torch.log(1.0 - u + _EPSILON)
        kept = torch.sigmoid(-(self.p_logit + noise) / self.temperature)
        return kept / torch.sigmoid(-self.p_logit)

    def _check(self, drop_prob_init: float, following: Following | None) -> None:
        """Refuse arguments out of range, and a following layer of another kind or width."""
        if not 0.0 < drop_prob_init < 1.0:
            raise ValueError(
                f"expected drop_prob_init between 0 and 1, both excluded, got {drop_prob_init}: "
                "the layer learns its logarithms, start at 0.1"
            )
        if not 0.0 < self.temperature < math.inf:
            raise ValueError(
                f"expected a positive temperature, got {self.temperature}: "
                "use 0.1 for units, 0.67 for maps"
            )
        factors = (self.weight_regulariser, self.dropout_regulariser)
        if not all(0.0 <= factor < math.inf for factor in factors):
            raise ValueError(
                f"expected regularisers of at least 0, got {factors[0]} and {factors[1]}: "
                "use 0 to switch one off"
            )
        if self.num_features < 1:
            raise ValueError(
                f"expected at least 1 feature, got {self.num_features}: pass those of a row"
            )
        if following is None:
            return
        if not isinstance(following, self._precedes):
            raise ValueError(
                f"expected a following layer of the kind {self._precedes.__name__}, got "
                f"{type(following).__name__}: bind the layer that takes the output of this one"
            )
        is_linear = isinstance(following, nn.Linear)
        taken = following.in_features if is_linear else following.in_channels
        if taken != self.num_features:
            raise ValueError(
                f"expected a following layer with {self.num_features} inputs, got {taken}: "
                "bind the layer that takes the output of this one"
            )


class ConcreteDropout(_Concrete):
    """Concrete dropout of single units, before a linear map.

    y = x · (1-z) / (1-p), one u per element.    (..., K) -> (..., K)

    Args:
        num_features: K, the units of a row; they scale the entropy of the masks.
        following: The linear map that the layer precedes, for its ‖W‖²; None leaves that part out.
        drop_prob_init: p at the start, between 0 and 1, both excluded.
        temperature: Of the relaxation; 0 would be Bernoulli. The authors use 0.1, the default.
        weight_regulariser: Factor of ‖W‖² / (1-p); see `concrete_regularisers`.
        dropout_regulariser: Factor of the negative entropy; see `concrete_regularisers`.

    Raises:
        ValueError: An argument is out of its range, `following` is no linear map of K features, or
            the input has other than K features.

    Source: Gal, Hron, Kendall 2017, arXiv:1705.07832.
    """

    _precedes, _temperature, _axes = nn.Linear, 0.1, None


class ConcreteDropout1d(_Concrete):
    """Concrete dropout of whole channels of a sequence, before a convolution.

    y = x · (1-z) / (1-p), one u per row and channel.    (B, K, length) -> the same

    The arguments are those of `ConcreteDropout`, with K channels, a `Conv1d` that follows, and the
    authors' temperature of 2/3.

    Source: Gal, Hron, Kendall 2017, arXiv:1705.07832; Tompson et al. 2015 for dropping channels.
    """

    _precedes, _temperature = nn.Conv1d, 2.0 / 3.0
    _axes = (3, "(rows, channels, length)")


class ConcreteDropout2d(_Concrete):
    """Concrete dropout of whole channels of an image, before a convolution.

    y = x · (1-z) / (1-p), one u per row and channel.    (B, K, height, width) -> the same

    The arguments are those of `ConcreteDropout`, with K channels, a `Conv2d` that follows, and the
    authors' temperature of 2/3.

    Source: Gal, Hron, Kendall 2017, arXiv:1705.07832; Tompson et al. 2015 for dropping channels.
    """

    _precedes, _temperature = nn.Conv2d, 2.0 / 3.0
    _axes = (4, "(rows, channels, height, width)")


def concrete_regularisers(
    num_rows: int, length_scale: float, *, noise_precision: float | None = None
) -> tuple[float, float]:
    """Return (weight_regulariser, dropout_regulariser) for the loss that is trained with.

    classification, or regression with a second head for the noise: mean of -log p(y|x)
        weight_regulariser = l² / (2N),   dropout_regulariser = 1 / N
    regression with noise of known precision τ: mean of (y - ŷ)²
        weight_regulariser = l² / (τ N),  dropout_regulariser = 2 / (τ N)

    The second is the first times 2/τ, since (y - ŷ)² is -log p(y|x) times 2/τ, up to a constant.
    The authors' heteroscedastic loss is twice the mean of -log p, and so are their factors.

    Args:
        num_rows: N, the rows trained on.
        length_scale: l of the prior on the weights; larger keeps them and p smaller.
        noise_precision: τ, one over the variance of the noise, for the mean squared error; None
            for a loss that is a negative log-likelihood.

    Raises:
        ValueError: One of them is not positive.

    Source: Gal, Hron, Kendall 2017, arXiv:1705.07832, equation 2, with W the weights as used; Gal
    2016, Uncertainty in deep learning (thesis), for τ.
    """
    if num_rows < 1 or not 0.0 < length_scale < math.inf:
        raise ValueError(
            f"expected num_rows of at least 1 and a positive length_scale, got {num_rows} and "
            f"{length_scale}: pass the number of training rows and, say, 0.01"
        )
    if noise_precision is not None and not 0.0 < noise_precision < math.inf:
        raise ValueError(
            f"expected a positive noise_precision, got {noise_precision}: "
            "it is 1 / variance of the noise; None where the loss is a likelihood"
        )
    factor = 1.0 if noise_precision is None else 2.0 / noise_precision
    return factor * length_scale**2 / (2.0 * num_rows), factor / num_rows
