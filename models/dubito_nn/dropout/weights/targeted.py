"""Targeted dropout: only what matters least may be dropped, so that it can be pruned later.

The γ · n entries of lowest magnitude are candidates, every one is dropped with probability p:

    weights      |w|, among the weights that come into one unit
    units        ‖w‖₂ of the weights that come into a unit, among the units of a layer
    activations  |x|, among the activations of one row

Nothing is scaled: the rest of the network is to learn to do without the candidates. In eval mode
all is kept; `prune()` then removes the candidates for good.

Dimensions: B rows, K units.
Source: Gomez, Zhang, Kamalakara, Madaan, Swersky, Gal, Hinton 2019 (2018 at the workshop),
Learning sparse networks using targeted dropout, arXiv:1905.13678; sections 3 and 4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dubito_nn.dropout.masks import keep_mask
from dubito_nn.dropout.probability import Probability
from dubito_nn.dropout.weights.maps import LinearMap, along_units, check_map, mapped


class _Targeted(nn.Module):
    """The share of candidates, and the p of each."""

    drop_prob = Probability()
    targeted_share = Probability()

    def __init__(self, targeted_share: float = 0.5, drop_prob: float = 0.5) -> None:
        super().__init__()
        self.targeted_share = targeted_share
        self.drop_prob = drop_prob

    @property
    def is_dropping(self) -> bool:
        """Whether a forward pass may drop anything."""
        return self.training and self.drop_prob > 0.0 and self.targeted_share > 0.0

    def extra_repr(self) -> str:
        """Show γ and p."""
        return f"targeted_share={self.targeted_share}, drop_prob={self.drop_prob}"


class TargetedWeightDropout(_Targeted):
    """A linear or convolutional layer whose smallest weights are dropped.

    y = (W ∘ (1 - c ∘ (1-M))) x + b, c the candidates, M ~ Bernoulli(1-p), one mask for all rows.

    Args:
        layer: It is held as the child `layer`; the shapes are its own.
        targeted_share: γ, the share of a unit's incoming weights that are candidates, in [0, 1].
        drop_prob: p of a candidate, in [0, 1].

    Raises:
        ValueError: An argument is out of range, or the layer is of another kind.

    Source: Gomez et al. 2019, arXiv:1905.13678, section 4.
    """

    def __init__(
        self, layer: LinearMap, targeted_share: float = 0.5, drop_prob: float = 0.5
    ) -> None:
        super().__init__(targeted_share, drop_prob)
        self.layer = check_map(layer)

    def candidates(self) -> Tensor:
        """Return c, of the weight's shape: 1 for weights that may be dropped."""
        return _lowest(self.layer.weight.detach().abs().flatten(1), self.targeted_share).reshape(
            self.layer.weight.shape
        )

    def forward(self, x: Tensor) -> Tensor:
        """Drop candidates in training mode; use all weights in eval mode."""
        weight = self.layer.weight
        if self.is_dropping:
            weight = weight * _thinned(self.candidates(), weight.shape, self.drop_prob)
        return mapped(self.layer, x, weight, self.layer.bias)

    @torch.no_grad()
    def prune(self) -> int:
        """Set the candidates to 0 in place and return how many there are."""
        chosen = self.candidates()
        self.layer.weight.mul_(1.0 - chosen)
        return int(chosen.sum())


class TargetedUnitDropout(_Targeted):
    """A linear or convolutional layer whose units with the shortest weights are dropped.

    y = (W x) ∘ (1 - c ∘ (1-m)) + b, m ~ Bernoulli(1-p), one number per row and unit.

    Args:
        layer: It is held as the child `layer`; the shapes are its own.
        targeted_share: γ, the share of the units that are candidates, in [0, 1].
        drop_prob: p of a candidate, in [0, 1].

    Raises:
        ValueError: An argument is out of range, or the layer is of another kind.

    Source: Gomez et al. 2019, arXiv:1905.13678, section 4.
    """

    def __init__(
        self, layer: LinearMap, targeted_share: float = 0.5, drop_prob: float = 0.5
    ) -> None:
        super().__init__(targeted_share, drop_prob)
        self.layer = check_map(layer)

    def candidates(self) -> Tensor:
        """Return c, of shape (K,): 1 for units that may be dropped."""
        return _lowest(self.layer.weight.detach().flatten(1).norm(dim=1), self.targeted_share)

    def forward(self, x: Tensor) -> Tensor:
        """Drop candidates in training mode; use all units in eval mode."""
        layer = self.layer
        if not self.is_dropping:
            return mapped(layer, x, layer.weight, layer.bias)
        chosen_K = self.candidates()
        kept_BK = _thinned(chosen_K, (x.shape[0], len(chosen_K)), self.drop_prob)
        y = mapped(layer, x, layer.weight, None)
        if isinstance(layer, nn.Linear):
            kept_BK = kept_BK.reshape(x.shape[0], *[1] * (x.ndim - 2), len(chosen_K))
        y = y * along_units(layer, kept_BK)
        return y if layer.bias is None else y + along_units(layer, layer.bias)

    @torch.no_grad()
    def prune(self) -> int:
        """Set the candidates' weights to 0 in place and return how many units that are."""
        chosen = self.candidates()
        self.layer.weight.mul_((1.0 - chosen).reshape(-1, *[1] * (self.layer.weight.ndim - 1)))
        return int(chosen.sum())


class TargetedActivationDropout(_Targeted):
    """Dropout of the weakest activations of a row.

    y = x ∘ (1 - c ∘ (1-m)), m ~ Bernoulli(1-p), one number per element.    (B, ...) -> (B, ...)

    Args:
        targeted_share: γ, the share of a row's activations that are candidates, in [0, 1].
        drop_prob: p of a candidate, in [0, 1].

    Raises:
        ValueError: An argument is out of range.

    Source: The rule of Gomez et al. 2019, arXiv:1905.13678, on activations in the place of weights.
    """

    def candidates(self, x: Tensor) -> Tensor:
        """Return c, of the shape of x: 1 for activations that may be dropped."""
        return _lowest(x.detach().abs().flatten(1), self.targeted_share).reshape(x.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Drop candidates in training mode; return x itself in eval mode."""
        if not self.is_dropping:
            return x
        return x * _thinned(self.candidates(x), x.shape, self.drop_prob)


def _lowest(magnitude: Tensor, share: float) -> Tensor:
    """1 for the ⌊share · n⌋ lowest along the last axis; of equal ones the first."""
    count = int(share * magnitude.shape[-1] + 1e-9)
    rank = torch.argsort(torch.argsort(magnitude, dim=-1, stable=True), dim=-1, stable=True)
    return (rank < count).to(magnitude.dtype)


def _thinned(chosen: Tensor, shape: tuple[int, ...], drop_prob: float) -> Tensor:
    """1 - c ∘ (1-m): what is kept, in the shape of the draw."""
    return 1.0 - chosen * (1.0 - keep_mask(chosen, shape, drop_prob))
