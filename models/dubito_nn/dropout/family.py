"""Which dropout a network uses: a family makes the layer for each place.

A network asks for a layer before a linear map or before a convolution and does not know the kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import nn

from dubito_nn.dropout.units.concrete import (
    ConcreteDropout,
    ConcreteDropout2d,
    concrete_regularisers,
)


class DropoutFamily(Protocol):
    """Makes one layer of dropout for each place that a network names."""

    def dense(self, following: nn.Linear) -> nn.Module:
        """Return a layer for the units that `following` takes."""
        ...

    def spatial(self, following: nn.Conv2d) -> nn.Module:
        """Return a layer for the channels that `following` takes."""
        ...


@dataclass(frozen=True)
class StandardFamily:
    """Inverted dropout with fixed probabilities: y = x · m / (1-p), m ~ Bernoulli(1-p).

    Args:
        drop_prob: p for units.
        spatial_drop_prob: p for whole channels.

    Source: Srivastava et al. 2014, Dropout; Tompson et al. 2015, arXiv:1411.4280, for channels.
    """

    drop_prob: float = 0.5
    spatial_drop_prob: float = 0.1

    def dense(self, following: nn.Linear) -> nn.Module:
        """Return plain dropout of units."""
        return nn.Dropout(self.drop_prob)

    def spatial(self, following: nn.Conv2d) -> nn.Module:
        """Return dropout of whole channels."""
        return nn.Dropout2d(self.spatial_drop_prob)


@dataclass(frozen=True)
class ConcreteFamily:
    """Concrete dropout: each layer learns its own probability.

    Args:
        num_rows: N, the rows trained on.
        length_scale: l of the prior on the weights; larger keeps them and p smaller.
        drop_prob_init: p of every layer at the start.

    Source: Gal, Hron, Kendall 2017, arXiv:1705.07832.
    """

    num_rows: int
    length_scale: float = 1e-2
    drop_prob_init: float = 0.1

    def dense(self, following: nn.Linear) -> nn.Module:
        """Return concrete dropout of units, regularised with the weight of `following`."""
        weight_regulariser, dropout_regulariser = self._regularisers()
        return ConcreteDropout(
            following.in_features,
            following=following,
            drop_prob_init=self.drop_prob_init,
            weight_regulariser=weight_regulariser,
            dropout_regulariser=dropout_regulariser,
        )

    def spatial(self, following: nn.Conv2d) -> nn.Module:
        """Return concrete dropout of channels, regularised with the weight of `following`."""
        weight_regulariser, dropout_regulariser = self._regularisers()
        return ConcreteDropout2d(
            following.in_channels,
            following=following,
            drop_prob_init=self.drop_prob_init,
            weight_regulariser=weight_regulariser,
            dropout_regulariser=dropout_regulariser,
        )

    def _regularisers(self) -> tuple[float, float]:
        return concrete_regularisers(self.num_rows, self.length_scale)
