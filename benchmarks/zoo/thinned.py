"""Networks with the first and the last block of each stage, which export like those with all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor, nn


def thinned(network: nn.Module, run: Callable[[], Tensor]) -> nn.Module:
    """Take out blocks of one kind that stand in a row, as far as the network still runs.

    Args:
        network: changed in place.
        run: runs it; what it returns keeps its shape.
    """
    network.eval()
    expected = _shape(run)
    for container in list(network.modules()):
        parts = list(container.children())
        is_row = isinstance(container, (nn.Sequential, nn.ModuleList)) and len(parts) > 1
        if not is_row or len({type(part) for part in parts}) > 1:
            continue
        whole = container._modules
        for kept in ([parts[-1]], [parts[0], parts[-1]], [parts[0]]):
            container._modules = {str(place): part for place, part in enumerate(kept)}
            if _shape(run) == expected:
                break
        else:
            container._modules = whole
    return network


def _shape(run: Callable[[], Tensor]) -> torch.Size | None:
    with suppress(Exception), torch.no_grad():
        return run().shape
    return None
