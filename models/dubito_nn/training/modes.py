"""The two modes in which a trained network is asked, put on for the length of a block.

`point`: evaluation mode, one pass, weight scaling. `sampling`: dropout rolls its dice, while norms
that keep running statistics use them, as when samples are served.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from dubito_nn.training.losses import Loss, Output
from dubito_nn.training.seeding import seeded

Mode = Literal["point", "sampling"]


@contextmanager
def in_mode(network: nn.Module, mode: Mode) -> Iterator[None]:
    """Put a network into a mode; afterwards every module is in the one it was in."""
    before = {module: module.training for module in network.modules()}
    network.train(mode == "sampling")
    for module in network.modules():
        if getattr(module, "track_running_stats", False):
            module.eval()
    try:
        yield
    finally:
        for module, is_training in before.items():
            module.training = is_training


def device_of(network: nn.Module) -> torch.device:
    """Return where the network's first parameter or buffer lies; the CPU where it has none."""
    for tensor in (*network.parameters(), *network.buffers()):
        return tensor.device
    return torch.device("cpu")


def outputs_of(
    network: nn.Module,
    inputs: Tensor,
    *,
    mode: Mode = "point",
    seed: int = 0,
    batch_size: int = 512,
) -> Output:
    """Return the network's output on all rows, one pass, without gradients, on its own device.

    Args:
        network: Unchanged.
        inputs: Rows, (N, ...).
        mode: With dropout or without.
        seed: Of the masks; each row has its own.
        batch_size: Rows at a time.
    """
    device = device_of(network)
    with in_mode(network, mode), seeded(seed, device), torch.no_grad():
        parts = [network(rows.to(device)) for rows in torch.split(inputs, batch_size)]
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    first, second = zip(*parts, strict=True)
    return torch.cat(first), torch.cat(second)


def mean_loss(
    network: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss: Loss,
    *,
    mode: Mode = "point",
    seed: int = 0,
    batch_size: int = 512,
) -> float:
    """Return the loss on all rows, one pass, regularisers left out."""
    output = outputs_of(network, inputs, mode=mode, seed=seed, batch_size=batch_size)
    return float(loss(output, targets.to(device_of(network))))


def has_dropout(network: nn.Module, inputs: Tensor) -> bool:
    """Whether two passes in sampling mode differ: something random is active, whatever its class.

    Args:
        network: Unchanged.
        inputs: A few rows.
    """
    first, *others = (_flat(outputs_of(network, inputs, mode="sampling", seed=k)) for k in range(8))
    return any(not torch.equal(first, other) for other in others)


def _flat(output: Output) -> Tensor:
    return output.flatten() if isinstance(output, Tensor) else torch.cat([*output], 1).flatten()
