"""From a network with learned noise to a smaller one.

Its job: take the drowned weights out of every sparse layer, and out of a chain of layers the units
that nothing reads any more. A unit goes where all its outgoing weights are pruned, so the smaller
network computes the same function, noise included.

Source: Molchanov, Ashukha, Vetrov 2017, arXiv:1701.05369, section 5, for the first step.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from dubito_nn.dropout.units.gaussian import GaussianDropout
from dubito_nn.dropout.units.standard import Dropout, OriginalDropout
from dubito_nn.dropout.weights.sparse import SparseConv2d, SparseLinear

Network = TypeVar("Network", bound=nn.Module)
_Layer = SparseLinear | SparseConv2d

# Modules that treat every unit, or every channel, alone and in order.
_UNIT_BY_UNIT = (
    nn.Identity,
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.Flatten,
    nn.Dropout,
    Dropout,
    OriginalDropout,
    GaussianDropout,
)


def pruned(network: Network) -> Network:
    """Return a copy without the weights above their threshold, and smaller where that is possible.

    Inside every `nn.Sequential`, units between two sparse layers go if all weights that read them
    are pruned and the modules between treat units one by one.

    Args:
        network: With sparse layers anywhere in it; left as it is.

    Raises:
        ValueError: There is no sparse layer, or no weight of one survives.
    """
    smaller = copy.deepcopy(network)
    layers = [module for module in smaller.modules() if isinstance(module, _Layer)]
    if not layers:
        raise ValueError(
            "expected a network with SparseLinear or SparseConv2d layers, got none: "
            "train with those to learn which weights can go"
        )
    for layer in layers:
        layer.prune()
        if not layer.is_kept.any():
            raise ValueError(
                f"expected a weight below log α = {layer.threshold} in every layer, got none in "
                f"{layer}: lower divergence_weight or train longer"
            )
    for module in smaller.modules():
        if isinstance(module, nn.Sequential):
            _drop_unread_units(module)
    return smaller


def compression(network: nn.Module) -> float:
    """Return how many times fewer weights survive than the sparse layers hold.

    Σ weights / Σ weights with log α below the threshold; 1 without sparse layers.

    Args:
        network: Before or after `pruned`; of the smaller network what is left counts.
    """
    layers = [module for module in network.modules() if isinstance(module, _Layer)]
    total = sum(layer.is_kept.numel() for layer in layers)
    surviving = sum(int(layer.survivors().sum()) for layer in layers)
    return total / max(surviving, 1) if layers else 1.0


def _drop_unread_units(chain: nn.Sequential) -> None:
    """Narrow every two sparse layers of a chain with nothing but units between them."""
    before: int | None = None
    for index, module in enumerate(chain):
        if isinstance(module, _Layer):
            if before is not None:
                _narrow(chain, before, index)
            before = index
        elif not isinstance(module, _UNIT_BY_UNIT):
            before = None


def _narrow(chain: nn.Sequential, before: int, after: int) -> None:
    """Take the units that the sparse layer `after` does not read out of the one `before` it."""
    writer, reader = chain[before], chain[after]
    assert isinstance(writer, _Layer)
    assert isinstance(reader, _Layer)
    if not _hand_on_units(writer, reader, list(chain)[before + 1 : after]):
        return
    units = writer.is_kept.shape[0]
    inputs = reader.is_kept.shape[1]
    is_read = reader.is_kept.transpose(0, 1).reshape(units, -1).any(dim=1)
    units_read = torch.nonzero(is_read).flatten()
    width = inputs // units
    columns = (
        units_read[:, None] * width + torch.arange(width, device=units_read.device)
    ).flatten()
    chain[before] = _selected(writer, units_read, 0)
    chain[after] = _selected(reader, columns, 1)


def _hand_on_units(writer: _Layer, reader: _Layer, between: list[nn.Module]) -> bool:
    """Whether unit k of one is inputs k·n to (k+1)·n - 1 of the other."""
    flat = any(isinstance(module, nn.Flatten) for module in between)
    if isinstance(reader, SparseConv2d):
        return isinstance(writer, SparseConv2d) and not flat
    inputs, units = reader.is_kept.shape[1], writer.is_kept.shape[0]
    return inputs == units if isinstance(writer, SparseLinear) else flat and inputs % units == 0


def _selected(layer: _Layer, places: Tensor, axis: int) -> _Layer:
    """A copy with some outputs (axis 0) or inputs (axis 1) alone."""
    twin = copy.deepcopy(layer)
    inner = twin.layer
    inner.weight = nn.Parameter(inner.weight.detach().index_select(axis, places))
    twin.log_variance = nn.Parameter(twin.log_variance.detach().index_select(axis, places))
    twin.is_kept = twin.is_kept.index_select(axis, places)
    if axis == 0 and inner.bias is not None:
        inner.bias = nn.Parameter(inner.bias.detach()[places])
    out_size, in_size = inner.weight.shape[:2]
    if isinstance(inner, nn.Linear):
        inner.out_features, inner.in_features = out_size, in_size
    else:
        inner.out_channels, inner.in_channels = out_size, in_size
    return twin
