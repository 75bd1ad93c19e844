"""A self-normalising network: SELU, LeCun's initialisation, alpha dropout.

    x -> linear selu alpha -> ... -> linear selu alpha -> head

Dimensions: B rows, F features, D outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from dubito_nn.dropout.units.alpha import AlphaDropout


class SELUNetwork(nn.Module):
    """Linear maps and SELU, alpha dropout after each: activations keep mean 0 and variance 1.

    (B, F) -> (B, D)

    Args:
        num_features: F; standardise them, the fixed point is that of mean 0 and variance 1.
        hidden: Units of each hidden layer; at least one layer.
        num_outputs: D, classes or targets.
        drop_prob: p; 0.05 to 0.1 is usual.

    Raises:
        ValueError: There is no hidden layer, or p is out of range.

    Source: Klambauer, Unterthiner, Mayr, Hochreiter 2017, arXiv:1706.02515.
    """

    def __init__(
        self,
        num_features: int,
        hidden: Sequence[int],
        num_outputs: int,
        *,
        drop_prob: float = 0.05,
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("expected at least one hidden layer, got none: pass hidden=(64, 64)")
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise((num_features, *hidden)):
            layers += [_linear(fan_in, fan_out), nn.SELU(), AlphaDropout(drop_prob)]
        self.body = nn.Sequential(*layers)
        self.head = _linear(hidden[-1], num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, (B, D)."""
        outputs: Tensor = self.head(self.body(x))
        return outputs


def _linear(fan_in: int, fan_out: int) -> nn.Linear:
    layer = nn.Linear(fan_in, fan_out)
    nn.init.normal_(layer.weight, std=1.0 / math.sqrt(fan_in))
    nn.init.zeros_(layer.bias)
    return layer
