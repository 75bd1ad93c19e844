"""What dropout has done to a network: sparsity, correlation, norms, and what hangs on one unit.

Each layer with weights is looked at through what it takes in: the activations of the layer before,
after their nonlinearity. Every figure that depends on activations is taken twice, with dropout off
and with the masks of one draw on.

Dimensions: B rows, K units or channels of a layer's input.

Source: Srivastava et al. 2014, Dropout, section 7.1 and 7.2 (co-adaptation and sparsity); Morcos et
al. 2018, arXiv:1803.06959, for single units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from dubito_nn.training.losses import Loss
from dubito_nn.training.modes import Mode, device_of, mean_loss, outputs_of
from dubito_nn.training.weights import unit_norms, weights_of

# An activation counts as zero below this share of the root mean square of its layer.
_SILENT = 1e-3
# Numbers per unit at most, over rows and positions of a map.
_MAX_VALUES = 4096


@dataclass(frozen=True)
class Activations:
    """What was seen of the activations that a layer takes, in one mode.

    Attributes:
        sparsity: Share of activations that are zero (below 0.001 of the root mean square), 0 to 1.
        silent_units: Share of units that are zero in every row, 0 to 1.
        correlation: Mean |correlation| between pairs of units over the rows, 0 to 1.
        largest_sensitivity: The largest increase of the loss when one unit is set to zero.
        mean_sensitivity: Its mean over the units that were tried.
    """

    sparsity: float
    silent_units: float
    correlation: float
    largest_sensitivity: float
    mean_sensitivity: float


@dataclass(frozen=True)
class LayerDiagnosis:
    """What was found of a layer that has weights.

    Attributes:
        path: Of the module.
        num_units: K, units or channels that it takes.
        mean_norm: Of the weights into each of its own units, ‖w_unit‖₂.
        largest_norm: Likewise.
        point: Activations with dropout off.
        masked: Activations with dropout on, one draw of the masks.
    """

    path: str
    num_units: int
    mean_norm: float
    largest_norm: float
    point: Activations
    masked: Activations


@dataclass(frozen=True)
class _Watched:
    path: str
    module: nn.Module
    weight: nn.Parameter
    axis: int
    num_units: int


def diagnose(
    network: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss: Loss,
    *,
    max_units: int = 64,
    seed: int = 0,
) -> tuple[LayerDiagnosis, ...]:
    """Look at every layer that multiplies its input by weights: linear maps and convolutions.

    Args:
        network: Unchanged.
        inputs: Some hundred rows, (B, ...), at least 2.
        targets: Theirs.
        loss: The mean over rows that sensitivities are measured in.
        max_units: Units per layer for correlation and sensitivity, drawn by the seed: each costs a
            pass over the rows in each mode.
        seed: Of the masks and of the units drawn.

    Raises:
        ValueError: There are fewer than 2 rows, or the network has no such layer.
    """
    if len(inputs) < 2 or max_units < 1:
        raise ValueError(
            f"expected at least 2 rows and 1 unit, got {len(inputs)} and {max_units}: pass some "
            "hundred held-out rows"
        )
    layers = _layers(network, inputs)
    if not layers:
        raise ValueError("expected a network with linear layers or convolutions, got none")
    device = device_of(network)

    def activations(layer: _Watched, mode: Mode) -> Activations:
        def run() -> float:
            return mean_loss(network, inputs, targets, loss, mode=mode, seed=seed)

        return _activations(layer, run, max_units, torch.Generator().manual_seed(seed))

    diagnoses = []
    for layer in layers:
        norm_K = unit_norms(layer.module, layer.weight.detach()).to(device)
        diagnoses.append(
            LayerDiagnosis(
                path=layer.path,
                num_units=layer.num_units,
                mean_norm=float(norm_K.mean()),
                largest_norm=float(norm_K.max()),
                point=activations(layer, "point"),
                masked=activations(layer, "sampling"),
            )
        )
    return tuple(diagnoses)


def _layers(network: nn.Module, inputs: Tensor) -> list[_Watched]:
    """The layers that a pass calls with a tensor whose units can be told, in the order of calls."""
    owners = {id(module): (path, module, weight) for path, module, weight in weights_of(network)}
    layers: list[_Watched] = []

    def look(module: nn.Module, args: tuple[object, ...]) -> None:
        path, _, weight = owners[id(module)]
        axis = _unit_axis(args[0], module, weight) if args else None
        if axis is not None and all(layer.module is not module for layer in layers):
            name = path.rpartition(".")[0] or "(the network itself)"
            layers.append(_Watched(name, module, weight, axis, args[0].shape[axis]))  # type: ignore[attr-defined]

    handles = [module.register_forward_pre_hook(look) for _, module, _ in owners.values()]
    try:
        outputs_of(network, inputs[:2])
    finally:
        for handle in handles:
            handle.remove()
    return layers


def _unit_axis(taken: object, module: nn.Module, weight: Tensor) -> int | None:
    """Where the units lie in what a layer takes: last for linear maps, second for convolutions."""
    if not isinstance(taken, Tensor) or not taken.is_floating_point():
        return None
    if weight.ndim == 2 and taken.ndim >= 2 and weight.shape[1] == taken.shape[-1]:
        return taken.ndim - 1
    is_map = weight.ndim >= 3 and taken.ndim == weight.ndim
    return 1 if is_map and getattr(module, "in_channels", None) == taken.shape[1] else None


def _activations(
    layer: _Watched, run: Callable[[], float], max_units: int, generator: torch.Generator
) -> Activations:
    """Measure one layer: once with its units as they are, and once without each of them."""
    batches: list[Tensor] = []

    def look(taken: Tensor) -> None:
        batches.append(taken.movedim(layer.axis, -1).flatten(0, -2))

    with _hooked(layer, look):
        plain_loss = run()
    value_BK = torch.cat(batches).detach().float()
    value_BK = value_BK[torch.randperm(len(value_BK), generator=generator)[:_MAX_VALUES]]
    units = torch.randperm(layer.num_units, generator=generator)[:max_units].tolist()
    is_zero_BK = value_BK.abs() <= _SILENT * value_BK.square().mean().sqrt()
    increases = []
    for unit in units:
        with _hooked(layer, partial(_without, axis=layer.axis, unit=unit)):
            increases.append(run() - plain_loss)
    return Activations(
        sparsity=float(is_zero_BK.float().mean()),
        silent_units=float(is_zero_BK.all(dim=0).float().mean()),
        correlation=_correlation(value_BK[:, units]),
        largest_sensitivity=max(increases),
        mean_sensitivity=sum(increases) / len(increases),
    )


@contextmanager
def _hooked(layer: _Watched, change: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Let `change` see, and replace, what the layer takes; None leaves it as it is."""

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        replaced = change(args[0])
        return None if replaced is None else (replaced, *args[1:])

    handle = layer.module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _without(taken: Tensor, axis: int, unit: int) -> Tensor:
    changed = taken.clone()
    changed.select(axis, unit).zero_()
    return changed


def _correlation(value_BK: Tensor) -> float:
    """Mean absolute correlation between different units that vary; 0 where fewer than two do."""
    centred_BK = value_BK - value_BK.mean(dim=0)
    norm_K = centred_BK.norm(dim=0)
    varies_K = norm_K > 1e-6 * norm_K.max().clamp_min(1e-30)
    unit_BK = centred_BK[:, varies_K] / norm_K[varies_K]
    count = unit_BK.shape[1]
    if count < 2:
        return 0.0
    total = (unit_BK.T @ unit_BK).abs().sum() - count
    return min(1.0, max(0.0, float(total / (count * (count - 1)))))
