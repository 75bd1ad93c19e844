"""Batch-norm statistics taken again without dropout: the mend for the variance shift.

Dropout before a batch-norm makes activations vary more while training than in evaluation mode,
1/(1-p) times for zero-mean activations. The running variance is that of training, so one pass in
evaluation mode is scaled wrongly at every norm. Passing the training rows once more with dropout
off mends it.

It mends the one pass of `method: point`. Samples are drawn with dropout on, for which the
statistics of training are right: leave those alone in a network whose samples are what counts.

Source: Li et al. 2019, arXiv:1801.05134, section 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dubito_nn.training.modes import Mode, device_of, in_mode
from dubito_nn.training.seeding import seeded


@torch.no_grad()
def reestimate_batch_norm(network: nn.Module, inputs: Tensor, *, batch_size: int = 256) -> int:
    """Replace, in place, the running statistics of every batch-norm by those without dropout.

    Means over minibatches, weighted by their rows, of their mean and variance.

    Args:
        network: Only its running statistics change; weights and modes stay.
        inputs: Rows it was trained on, (N, ...), at least 2.
        batch_size: Rows at a time; the norms after the first see each other's batch statistics.

    Returns:
        The number of batch-norms; 0 where there is nothing to do.

    Raises:
        ValueError: There are fewer than 2 rows.
    """
    norms = [norm for _, norm in _norms(network)]
    if not norms:
        return 0
    if len(inputs) < 2:
        raise ValueError(f"expected at least 2 rows to take a variance of, got {len(inputs)}")
    momenta = [norm.momentum for norm in norms]
    counts = [norm.num_batches_tracked for norm in norms]
    counts = [None if count is None else count.clone() for count in counts]
    num_seen = 0
    with in_mode(network, "point"):
        for norm in norms:
            norm.train()
        for rows in _batches(inputs, batch_size):
            num_seen += len(rows)
            for norm in norms:
                norm.momentum = len(rows) / num_seen  # the first batch replaces what was there
            network(rows.to(device_of(network)))
    for norm, momentum, count in zip(norms, momenta, counts, strict=True):
        norm.momentum = momentum
        if count is not None and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.copy_(count)
    return len(norms)


@torch.no_grad()
def variance_shift(
    network: nn.Module, inputs: Tensor, *, mode: Mode = "point", seed: int = 0
) -> dict[str, float]:
    """Return how much the variance at each batch-norm differs from the one it scales by.

    actual variance / running variance, averaged over channels; 1 is no shift.

    Args:
        network: Unchanged.
        inputs: Rows, (N, ...), in one batch.
        mode: In which the rows are passed: without dropout, or as samples are drawn.
        seed: Of the masks in sampling mode.

    Source: Li et al. 2019, arXiv:1801.05134, equation 7 (whose ratio is the inverse).
    """
    ratios: dict[str, float] = {}
    device = device_of(network)
    with in_mode(network, mode), seeded(seed, device), _watched(network, ratios):
        network(inputs.to(device))
    return ratios


@contextmanager
def _watched(network: nn.Module, ratios: dict[str, float]) -> Iterator[None]:
    """Write the ratio of every batch-norm that runs inside the block into `ratios`."""

    def watch(
        path: str, norm: nn.modules.batchnorm._BatchNorm
    ) -> torch.utils.hooks.RemovableHandle:
        def look(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            channels_first = args[0].transpose(0, 1).flatten(1)
            running = norm.running_var
            if running is not None:
                ratio = channels_first.var(dim=1) / running.clamp_min(1e-12)
                ratios[path] = float(ratio.mean())

        return norm.register_forward_pre_hook(look)

    handles = [watch(path, norm) for path, norm in _norms(network)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _norms(network: nn.Module) -> Iterator[tuple[str, nn.modules.batchnorm._BatchNorm]]:
    for path, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
            yield path, module


def _batches(inputs: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """Minibatches of about equal size, so that none is left with a single row."""
    count = max(1, min(len(inputs) // 2, round(len(inputs) / batch_size)))
    return torch.tensor_split(inputs, count)
