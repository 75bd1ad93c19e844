"""One training loop: losses, regularisers of the layers, penalties, constraints, early stopping.

    permute rows -> minibatch -> [augment] -> loss + terms of the layers + penalties
        -> [clip] -> Adam, one-cycle rate -> [max-norm]        after an epoch: [validation, stop]

Every random number comes from the seed: the generators of torch are forked while the loop runs and
stand afterwards where they stood before. The same seed on the same machine gives the same network,
watched on validation rows or not.

Dimensions: B rows of a minibatch, N rows in all, C classes, D outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dubito_nn.dropout.max_norm import constrain_max_norm
from dubito_nn.dropout.regularised import Regularised, regularised_layers, sum_of_terms
from dubito_nn.training.losses import Loss
from dubito_nn.training.mixing import Augmentation
from dubito_nn.training.modes import mean_loss
from dubito_nn.training.seeding import seeded
from dubito_nn.training.stopping import EarlyStopping
from dubito_nn.training.weights import l1_penalty

Rows = tuple[Tensor, Tensor]
Schedule = Literal["one_cycle", "constant"]


@dataclass(frozen=True)
class Progress:
    """What is known after an epoch.

    Attributes:
        epoch: Epochs done, from 1.
        epochs: Epochs in all.
        loss: Mean over the rows of the epoch, regularisers included, in nats for a likelihood.
        drop_probs: The learned drop probabilities by module path.
        validation_loss: On the validation rows, dropout off, no regularisers; None without them.
    """

    epoch: int
    epochs: int
    loss: float
    drop_probs: dict[str, float]
    validation_loss: float | None = None


@dataclass(frozen=True)
class TrainingResult:
    """What a training leaves beside the weights.

    Attributes:
        losses: One mean per epoch, regularisers included.
        drop_probs: The learned drop probabilities by module path, at the end.
        validation_losses: One per epoch, dropout off; empty without validation rows.
        best_epoch: The epoch, from 1, whose weights the network has.
    """

    losses: tuple[float, ...]
    drop_probs: dict[str, float]
    validation_losses: tuple[float, ...]
    best_epoch: int


def train(
    network: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    loss: Loss,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    rate_factors: Mapping[str, float] | None = None,
    schedule: Schedule = "one_cycle",
    weight_decay: float = 0.0,
    l1: float = 0.0,
    max_norm: float | None = None,
    clip_norm: float | None = None,
    augment: Augmentation | None = None,
    validation: Rows | None = None,
    patience: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[Progress], None] | None = None,
) -> TrainingResult:
    """Train a network in place and leave it in eval mode on the device.

    mean over rows of loss + Σ regularisation() + weight_decay / 2 · ‖W‖² + l1 · ‖W‖₁

    Args:
        network: Its weights change; nothing else outside of it does.
        inputs: Rows, shape (N, ...).
        targets: Class indices (N,) or values (N, D), as the loss takes them.
        loss: Takes the network's output and the targets, returns the mean over rows.
        epochs: Passes over the rows, at most.
        batch_size: Rows of a minibatch; the last one of an epoch may be smaller, but where the
            network has batch-norms a single row that is left over joins the one before.
        learning_rate: The peak of the one-cycle schedule (Smith 2018, arXiv:1708.07120), or the
            constant rate.
        rate_factors: Factor of the learning rate by a parameter's path, or by its own name, the
            last part of the path; the path goes first. `{"log_variance": 10.0}` lets the noise of
            sparse layers move faster, `{"p_logit": 10.0}` the learned p of concrete dropout: Adam
            moves a logit by about the rate at most in a step, so that after few steps p tells how
            far it came and not where the objective is lowest. Other parameters have 1.
        schedule: `one_cycle` or `constant`; the latter suits a patience.
        weight_decay: λ of the penalty λ/2 · ‖W‖², on weights of two and more axes: not on biases,
            norms and learned drop probabilities.
        l1: Factor of the penalty Σ |w| on the same weights, embeddings left out.
        max_norm: Bound on the norm of the weights into each unit, see `constrain_max_norm`.
        clip_norm: Bound on the norm of the whole gradient (Pascanu 2013, arXiv:1211.5063).
        augment: Gives other inputs and targets for those of a minibatch, drawing from torch's own
            generator, which the seed sets.
        validation: Inputs and targets of held-out rows, whose loss is taken after each epoch.
        patience: Epochs without a lower validation loss after which training ends; the network
            gets the weights of its best epoch. None trains to the end and keeps the last.
        seed: Of the order of rows, the masks and the augmentation.
        device: Where the network is trained.
        progress: Called after each epoch; what it raises ends the training.

    Raises:
        ValueError: The rows of inputs and targets differ in number, there are none, or a setting is
            out of range.
        FloatingPointError: The loss is not finite.
    """
    _check_rows(inputs, targets)
    _check_settings(epochs, batch_size, learning_rate, weight_decay)
    _check_limits(l1, max_norm, clip_norm)
    _check_validation(validation, patience)
    device = torch.device(device)
    network.to(device).train()
    sizes = _batch_sizes(network, len(inputs), batch_size)
    steps = epochs * len(sizes)
    groups = _groups(network, weight_decay, learning_rate, rate_factors or {})
    optimiser = torch.optim.Adam(groups)
    rate = _rate(optimiser, schedule, steps)
    layers = regularised_layers(network)
    descent = _Descent(network, layers, loss, optimiser, rate, augment, l1, clip_norm, max_norm)
    stopping = None if patience is None else EarlyStopping(patience)
    order = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    held_out: list[float] = []
    with seeded(seed, device):
        for epoch in range(1, epochs + 1):
            batches = torch.split(torch.randperm(len(inputs), generator=order), sizes)
            losses.append(_finite(descent.over(inputs, targets, batches, device), epoch))
            if validation is not None:
                held_out.append(mean_loss(network, *validation, loss))
            if progress is not None:
                rates, last = learned_drop_probs(network), held_out[-1] if held_out else None
                progress(Progress(epoch, epochs, losses[-1], rates, last))
            if stopping is not None and stopping.update(held_out[-1], network):
                break
    if stopping is not None:
        stopping.restore(network)
    network.eval()
    best = len(losses) if stopping is None else stopping.best_epoch
    return TrainingResult(tuple(losses), learned_drop_probs(network), tuple(held_out), best)


def learned_drop_probs(network: nn.Module) -> dict[str, float]:
    """Return the learned drop probabilities by module path: tensors that need a gradient."""
    drop_probs = {
        path: getattr(module, "drop_prob", None) for path, module in network.named_modules()
    }
    return {
        path: p.detach().mean().item()
        for path, p in drop_probs.items()
        if isinstance(p, Tensor) and p.requires_grad
    }


@dataclass(frozen=True)
class _Descent:
    """What a step on a minibatch is made of."""

    network: nn.Module
    layers: tuple[Regularised, ...]
    loss: Loss
    optimiser: torch.optim.Optimizer
    rate: torch.optim.lr_scheduler.LRScheduler
    augment: Augmentation | None
    l1: float
    clip_norm: float | None
    max_norm: float | None

    def over(
        self, inputs: Tensor, targets: Tensor, batches: Iterable[Tensor], device: torch.device
    ) -> float:
        """Take one step per minibatch of row numbers; return the mean objective over the rows."""
        total = torch.zeros((), dtype=torch.float64, device=device)
        for rows in batches:
            x, y = inputs[rows].to(device), targets[rows].to(device)
            total += self._step(x, y) * len(rows)
        return total.item() / len(inputs)

    def _step(self, x: Tensor, y: Tensor) -> Tensor:
        """Take one step on a minibatch; return its objective."""
        x, y = (x, y) if self.augment is None else self.augment(x, y)
        objective = self.loss(self.network(x), y) + sum_of_terms(self.layers)
        if self.l1 > 0.0:
            objective = objective + self.l1 * l1_penalty(self.network)
        self.optimiser.zero_grad()
        objective.backward()  # type: ignore[no-untyped-call]
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm)
        self.optimiser.step()
        self.rate.step()
        if self.max_norm is not None:
            constrain_max_norm(self.network, self.max_norm)
        return objective.detach()


def _batch_sizes(network: nn.Module, num_rows: int, batch_size: int) -> list[int]:
    """Rows of each minibatch; a batch-norm has no variance of a single one."""
    sizes = [batch_size] * (num_rows // batch_size)
    rest = num_rows - sum(sizes)
    has_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())
    if rest == 1 and sizes and has_norm:
        sizes[-1] += rest
    elif rest:
        sizes.append(rest)
    return sizes


def _rate(
    optimiser: torch.optim.Optimizer, schedule: Schedule, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if schedule == "one_cycle":
        peaks = [group["lr"] for group in optimiser.param_groups]
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, peaks, total_steps=steps)
    if schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0)
    raise ValueError(f"expected the schedule one_cycle or constant, got {schedule!r}")


def _groups(
    network: nn.Module,
    weight_decay: float,
    learning_rate: float,
    factors: Mapping[str, float],
) -> list[dict[str, object]]:
    """The parameters by what they have in common: weight decay and rate."""
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    names: set[str] = set()
    for path, parameter in network.named_parameters():
        name = path.rpartition(".")[2]
        names |= {path, name}
        decay = weight_decay if parameter.ndim > 1 else 0.0
        factor = factors.get(path, factors.get(name, 1.0))
        members.setdefault((decay, factor), []).append(parameter)
    if unknown := sorted(set(factors) - names):
        raise ValueError(
            f"expected rate_factors by names or paths of parameters, got {unknown}: "
            f"the network has {sorted(names)}"
        )
    if any(not factor > 0.0 for factor in factors.values()):
        raise ValueError(f"expected rate_factors above 0, got {dict(factors)}: 1 changes nothing")
    return [
        {"params": parameters, "weight_decay": decay, "lr": learning_rate * factor}
        for (decay, factor), parameters in members.items()
    ]


def _finite(loss: float, epoch: int) -> float:
    if math.isfinite(loss):
        return loss
    raise FloatingPointError(
        f"expected a finite loss, got {loss} in epoch {epoch}: "
        "lower learning_rate, and look for extreme values in inputs and targets"
    )


def _check_rows(inputs: Tensor, targets: Tensor) -> None:
    if len(inputs) == 0 or len(inputs) != len(targets):
        raise ValueError(
            f"expected as many targets as inputs and at least one, got {len(inputs)} inputs and "
            f"{len(targets)} targets: pass one target per row"
        )


def _check_settings(
    epochs: int, batch_size: int, learning_rate: float, weight_decay: float
) -> None:
    is_rate = math.isfinite(learning_rate) and learning_rate > 0.0
    if min(epochs, batch_size) < 1 or not is_rate or not 0.0 <= weight_decay < math.inf:
        raise ValueError(
            "expected epochs and batch_size of at least 1, a positive and finite learning_rate and "
            f"a weight_decay of at least 0, got {epochs}, {batch_size}, {learning_rate} and "
            f"{weight_decay}: change the one out of range"
        )


def _check_limits(l1: float, max_norm: float | None, clip_norm: float | None) -> None:
    bounds = (bound for bound in (max_norm, clip_norm) if bound is not None)
    if not 0.0 <= l1 < math.inf or any(not bound > 0.0 for bound in bounds):
        raise ValueError(
            "expected an l1 of at least 0, a max_norm and a clip_norm above 0 or None, got "
            f"{l1}, {max_norm} and {clip_norm}: change the one out of range"
        )


def _check_validation(validation: Rows | None, patience: int | None) -> None:
    if validation is not None:
        _check_rows(*validation)
    elif patience is not None:
        raise ValueError("patience expects validation rows, got none: pass validation=(x, y)")
