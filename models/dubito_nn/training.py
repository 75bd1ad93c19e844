"""One training loop: losses, regularisers of the layers, weight decay, progress.

    permute rows -> minibatch -> [augment] -> loss + total_regularisation -> Adam, one-cycle rate

Every random number comes from the seed: the generators of torch are forked while the loop runs and
stand afterwards where they stood before. The same seed on the same machine gives the same network.

Dimensions: B rows of a minibatch, N rows in all, C classes, D outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dubito_nn.dropout.regularised import total_regularisation

Output = Tensor | tuple[Tensor, Tensor]
Loss = Callable[[Output, Tensor], Tensor]
Augmentation = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Progress:
    """What is known after an epoch.

    Attributes:
        epoch: Epochs done, from 1.
        epochs: Epochs in all.
        loss: Mean over the rows of the epoch, regularisers included, in nats for a likelihood.
        drop_probs: The learned drop probabilities by module path.
    """

    epoch: int
    epochs: int
    loss: float
    drop_probs: dict[str, float]


@dataclass(frozen=True)
class TrainingResult:
    """How a training went.

    Attributes:
        losses: One mean per epoch, regularisers included.
        drop_probs: The learned drop probabilities by module path, at the end.
    """

    losses: tuple[float, ...]
    drop_probs: dict[str, float]


def train(
    network: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    loss: Loss,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    augment: Augmentation | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> TrainingResult:
    """Train a network in place and leave it in eval mode on the device.

    mean over rows of loss + Σ regularisation() + weight_decay / 2 · ‖W‖²

    Args:
        network: Its weights change; nothing else outside of it does.
        inputs: Rows, shape (N, ...).
        targets: Class indices (N,) or values (N, D), as the loss takes them.
        loss: Takes the network's output and the targets, returns the mean over rows.
        epochs: Passes over the rows.
        batch_size: Rows of a minibatch; the last one of an epoch may be smaller.
        learning_rate: The peak of the one-cycle schedule (Smith 2018, arXiv:1708.07120).
        weight_decay: λ of the penalty λ/2 · ‖W‖², on weights of two and more axes: not on biases,
            norms and learned drop probabilities.
        augment: Gives other inputs and targets for those of a minibatch, drawing from torch's own
            generator, which the seed sets.
        seed: Of the order of rows, the masks and the augmentation.
        device: Where the network is trained.
        progress: Called after each epoch; what it raises ends the training.

    Raises:
        ValueError: The rows of inputs and targets differ in number, there are none, or a setting is
            out of range.
        FloatingPointError: The loss is not finite.
    """
    _check(inputs, targets, epochs, batch_size, learning_rate, weight_decay)
    place = torch.device(device)
    network.to(place).train()
    steps = epochs * math.ceil(len(inputs) / batch_size)
    optimiser = torch.optim.Adam(_groups(network, weight_decay), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps)
    order = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    with seeded(seed, place):
        for epoch in range(1, epochs + 1):
            total = torch.zeros((), dtype=torch.float64, device=place)
            for rows in torch.split(torch.randperm(len(inputs), generator=order), batch_size):
                x, y = inputs[rows].to(place), targets[rows].to(place)
                x, y = (x, y) if augment is None else augment(x, y)
                objective = loss(network(x), y) + total_regularisation(network)
                optimiser.zero_grad()
                objective.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
                total += objective.detach() * len(rows)
            losses.append(_finite(total.item() / len(inputs), epoch))
            if progress is not None:
                progress(Progress(epoch, epochs, losses[-1], learned_drop_probs(network)))
    network.eval()
    return TrainingResult(tuple(losses), learned_drop_probs(network))


def learned_drop_probs(network: nn.Module) -> dict[str, float]:
    """Return the learned drop probabilities by module path: tensors that need a gradient."""
    found = {path: getattr(module, "drop_prob", None) for path, module in network.named_modules()}
    return {
        path: p.detach().item()
        for path, p in found.items()
        if isinstance(p, Tensor) and p.requires_grad
    }


def cross_entropy(output: Output, labels: Tensor) -> Tensor:
    """Return the mean over rows of -Σ_c q_c log softmax(output)_c, in nats.

    Args:
        output: Logits, (B, C).
        labels: Class indices (B,), int64, or probabilities q (B, C).
    """
    return functional.cross_entropy(_single(output), labels)


def squared_error(output: Output, target_BD: Tensor) -> Tensor:
    """Return the mean over rows of Σ_d (y - ŷ)², in squared units of the target."""
    return (_single(output) - target_BD).square().sum(dim=1).mean()


def gaussian_nll(output: Output, target_BD: Tensor) -> Tensor:
    """Return the mean over rows of -log N(y; μ, exp s), summed over outputs, in nats.

    ½ Σ_d (s + (y - μ)² exp(-s) + log 2π)

    Args:
        output: The pair μ (B, D), s (B, D), s the logarithm of the variance.
        target_BD: y.

    Raises:
        TypeError: The network has one head.

    Source: Kendall and Gal 2017, arXiv:1703.04977, equation 8.
    """
    if isinstance(output, Tensor):
        raise TypeError(
            "gaussian_nll expects the pair mean, log_variance, got one tensor: "
            "give the network a second head (heteroscedastic=True)"
        )
    mean_BD, log_variance_BD = output
    squared_BD = (target_BD - mean_BD).square() * torch.exp(-log_variance_BD)
    return 0.5 * (log_variance_BD + squared_BD + math.log(2.0 * math.pi)).sum(dim=1).mean()


@contextmanager
def seeded(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Seed torch's generators, of the CPU and of the device, inside the block alone.

    Args:
        seed: Of both.
        device: A CUDA device is forked and seeded as well.
    """
    place = torch.device(device)
    index = (
        torch.cuda.current_device() if place.type == "cuda" and place.index is None else place.index
    )
    devices = [index] if place.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed: that would seed every CUDA device, and they are not all forked.
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return [
        {"params": weights, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _single(output: Output) -> Tensor:
    if isinstance(output, Tensor):
        return output
    raise TypeError(
        "this loss expects one tensor, got a pair: use gaussian_nll for mean and log_variance"
    )


def _finite(loss: float, epoch: int) -> float:
    if math.isfinite(loss):
        return loss
    raise FloatingPointError(
        f"expected a finite loss, got {loss} in epoch {epoch}: "
        "lower learning_rate, and look for extreme values in inputs and targets"
    )


def _check(
    inputs: Tensor,
    targets: Tensor,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
) -> None:
    if len(inputs) == 0 or len(inputs) != len(targets):
        raise ValueError(
            f"expected as many targets as inputs and at least one, got {len(inputs)} inputs and "
            f"{len(targets)} targets: pass one target per row"
        )
    if min(epochs, batch_size) < 1 or learning_rate <= 0.0 or weight_decay < 0.0:
        raise ValueError(
            "expected epochs and batch_size of at least 1, a positive learning_rate and a "
            f"weight_decay of at least 0, got {epochs}, {batch_size}, {learning_rate} and "
            f"{weight_decay}: change the one out of range"
        )
