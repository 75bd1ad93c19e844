"""Perceptrons of one shape trained at the same time as one module, each as if it were alone.

    x (B, S, F) -> for each of S networks: drop, linear, relu, ..., drop, linear -> (B, S)

A step of so small a network is nearly all overhead, and S of them in one product cost far less
than S steps. Nothing is shared but the order of the rows: `squared_error` adds up the errors of the
S outputs, so each weight's gradient is that of its own network's error, and Adam treats each weight
alone.

Dimensions: S networks, B rows, F features, I and O units in and out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from dubito_nn.networks import MLP

_WORDS = 2**16  # the fineness of a drop probability here
_PER_DRAW = 4  # words of 16 bits in one draw of 64


class SideBySide(nn.Module):
    """Networks with one output each, with dropout before every map, the inputs included.

    Args:
        networks: Perceptrons of the same sizes; each has its own drop probability. `give_back`
            writes the trained weights to them.
    """

    thresholds: Tensor  # (S, 1, 1) both
    scales: Tensor

    def __init__(self, networks: Sequence[MLP]) -> None:
        super().__init__()
        self._networks = tuple(networks)
        layers = zip(*(_linears(network) for network in networks), strict=True)
        self.maps = nn.ModuleList(_Maps(layer) for layer in layers)
        dropped = [round(_drop_prob(network) * _WORDS) for network in networks]
        counts_S11 = torch.tensor(dropped)[:, None, None]
        self.register_buffer("thresholds", (counts_S11 - _WORDS // 2).to(torch.int16))
        self.register_buffer("scales", _WORDS / (_WORDS - counts_S11))

    def forward(self, x_BSF: Tensor) -> Tensor:
        """Return the outputs, (B, S)."""
        first, *others = self.maps
        value = self._mapped(x_BSF.transpose(0, 1), first)
        for layer in others:
            value = self._mapped(value.relu(), layer)
        return value.squeeze(2).transpose(0, 1)

    def give_back(self) -> tuple[MLP, ...]:
        """Write the weights to the networks and return them, in evaluation mode."""
        with torch.no_grad():
            for place, network in enumerate(self._networks):
                for layer, linear in zip(self.maps, _linears(network), strict=True):
                    linear.weight.copy_(layer.weight_SIO[place].T)
                    linear.bias.copy_(layer.bias_S1O[place, 0])
                network.eval()
        return self._networks

    def _mapped(self, value_SBI: Tensor, layer: nn.Module) -> Tensor:
        """Drop units with each network's p, scale those kept by 1/(1-p), and map."""
        if not self.training:
            return layer(value_SBI, 1.0)
        # Four numbers out of each draw: the masks are what training waits for.
        draws = torch.empty(-(-value_SBI.numel() // _PER_DRAW), dtype=torch.int64)
        words = draws.random_(-(2**63), None).view(torch.int16)
        words_SBI = words[: value_SBI.numel()].view(value_SBI.shape)
        kept_SBI = (words_SBI >= self.thresholds).float()
        return layer(value_SBI * kept_SBI, self.scales)


class _Maps(nn.Module):
    """One linear map of each network."""

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        super().__init__()
        weights = torch.stack([linear.weight.detach().T for linear in linears])
        biases = torch.stack([linear.bias.detach() for linear in linears])
        self.weight_SIO = nn.Parameter(weights.contiguous())
        self.bias_S1O = nn.Parameter(biases.unsqueeze(1))

    def forward(self, value_SBI: Tensor, scale_S11: Tensor | float) -> Tensor:
        """Return (S, B, O), the weights multiplied by a scale."""
        weight_SIO = self.weight_SIO * scale_S11
        if weight_SIO.shape[2] > 1:
            return torch.baddbmm(self.bias_S1O, value_SBI, weight_SIO)
        # For one output a sum is twice as fast as a product of matrices.
        product_SBI = value_SBI * weight_SIO.transpose(1, 2)
        return product_SBI.sum(dim=2, keepdim=True) + self.bias_S1O


def _linears(network: MLP) -> list[nn.Linear]:
    return [module for module in network.modules() if isinstance(module, nn.Linear)]


def _drop_prob(network: MLP) -> float:
    """The one p of all its layers of dropout.

    Raises:
        ValueError: They differ, or one is missing.
    """
    found = [module.p for module in network.modules() if isinstance(module, nn.Dropout)]
    if len(found) != len(_linears(network)) or any(a != b for a, b in pairwise(found)):
        raise ValueError(
            f"expected dropout with one p before every map, got {found}: "
            "build MLP(..., dropout=StandardFamily(p), drop_inputs=True)"
        )
    return float(found[0])
