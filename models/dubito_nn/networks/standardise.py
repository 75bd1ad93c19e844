"""Rows in their own units, standardised inside the network.

Dimensions: N rows, B rows of a batch, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """Subtract a mean and divide by a standard deviation, feature by feature.

    y = (x - mean) / standard_deviation    (B, F) -> (B, F)

    Put before a network, it lets whoever calls the service send rows in their own units. Neither
    figure is trained; both are stored with the weights.

    Args:
        rows_NF: The training rows, from which both are taken (ddof = 0).

    Raises:
        ValueError: A feature does not vary.
    """

    mean: Tensor
    standard_deviation: Tensor

    def __init__(self, rows_NF: Tensor) -> None:
        super().__init__()
        least, most = torch.aminmax(rows_NF, dim=0)
        # the deviation of a constant may round to something above 0
        rounding = 4 * torch.finfo(rows_NF.dtype).eps * torch.maximum(least.abs(), most.abs())
        constant = torch.nonzero(most - least <= rounding).flatten().tolist()
        if constant:
            raise ValueError(
                f"expected every feature to vary, got constant ones at {constant}: leave them out"
            )
        self.register_buffer("mean", rows_NF.mean(dim=0))
        self.register_buffer("standard_deviation", rows_NF.std(dim=0, correction=0))

    def forward(self, x: Tensor) -> Tensor:
        """Return the standardised rows."""
        return (x - self.mean) / self.standard_deviation
