"""A multi-layer perceptron with dropout before its linear maps, for classes or for real targets.

    x -> [dropout] linear relu -> dropout linear relu -> ... -> dropout head

Dimensions: B rows, F features, D outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from dubito_nn.dropout.family import DropoutFamily, StandardFamily


class MLP(nn.Module):
    """Linear maps and ReLU, with a layer of dropout before each map but, by default, the first.

    (B, F) -> (B, D), or with `heteroscedastic` the pair mean (B, D), log_variance (B, D).

    Args:
        num_features: F.
        hidden: Units of each hidden layer; at least one layer.
        num_outputs: D, classes or targets.
        dropout: The kind of dropout and its rates.
        drop_inputs: Whether the inputs are dropped as well.
        heteroscedastic: Whether a second head gives the logarithm of the noise variance, in
            squared units of the target.

    Raises:
        ValueError: There is no hidden layer.

    Source: Kendall and Gal 2017, arXiv:1703.04977, for the pair of heads.
    """

    def __init__(
        self,
        num_features: int,
        hidden: Sequence[int],
        num_outputs: int,
        *,
        dropout: DropoutFamily | None = None,
        drop_inputs: bool = False,
        heteroscedastic: bool = False,
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("expected at least one hidden layer, got none: pass hidden=(50,)")
        family = StandardFamily() if dropout is None else dropout
        layers: list[nn.Module] = []
        for index, (fan_in, fan_out) in enumerate(pairwise((num_features, *hidden))):
            linear = nn.Linear(fan_in, fan_out)
            if index > 0 or drop_inputs:
                layers.append(family.dense(linear))
            layers += [linear, nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.mean = nn.Linear(hidden[-1], num_outputs)
        self.mean_dropout = family.dense(self.mean)
        self.log_variance: nn.Linear | None = None
        if heteroscedastic:
            self.log_variance = nn.Linear(hidden[-1], num_outputs)
            self.log_variance_dropout = family.dense(self.log_variance)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the outputs, or with two heads the pair mean, log_variance."""
        hidden = self.body(x)
        mean: Tensor = self.mean(self.mean_dropout(hidden))
        if self.log_variance is None:
            return mean
        log_variance: Tensor = self.log_variance(self.log_variance_dropout(hidden))
        return mean, log_variance
