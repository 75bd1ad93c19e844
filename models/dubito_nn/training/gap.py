"""The gap between training and held-out rows, and what it says about the dropout.

Four losses are compared, all without regularisers:

    constant    of the best answer that ignores its input, on the training rows: nothing learned
    train       on the training rows, dropout off
    masked      on the training rows, dropout on: the mean of several passes
    validation  on held-out rows, dropout off

    kept when held out = (constant - validation) / (constant - train)    low: it overfits
    kept under masks   = (constant - masked) / (constant - train)        low: dropout costs much

Dropout is too much where it makes the network worse on its own training rows than it is, without
dropout, on rows it has never seen; too little where the network overfits and dropout costs next to
nothing.

Source: Srivastava et al. 2014, Dropout, section 7.3 and appendix A.4, for the effect of the rate on
training and test error; the limits below are rules of thumb of our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dubito_nn.training.losses import Loss, Output
from dubito_nn.training.modes import has_dropout, mean_loss, outputs_of

Verdict = Literal["no_dropout", "too_little", "too_much", "about_right", "nothing_learned"]

_NUM_PASSES = 8
_NUM_STEPS = 60
# Below this share of what was learned on held-out rows the network overfits.
_OVERFITS = 0.75
# Below these shares under masks dropout costs something, and much.
_CHEAP, _COSTLY = 0.9, 0.75
# Share of the constant's loss, or nats, that must be learned to speak of learning.
_LEAST = 0.05


@dataclass(frozen=True)
class Gap:
    """The losses that are compared, means over rows, in nats or squared units of the target.

    Attributes:
        constant: Of the best constant answer, on the training rows.
        train: Dropout off.
        masked: On the training rows, dropout on, mean over passes.
        validation: On held-out rows, dropout off.
        has_dropout: Whether something random is active.
    """

    constant: float
    train: float
    masked: float
    validation: float
    has_dropout: bool

    @property
    def gap(self) -> float:
        """Validation loss minus training loss, both without dropout."""
        return self.validation - self.train

    @property
    def cost(self) -> float:
        """Loss on the training rows with dropout minus that without."""
        return self.masked - self.train

    @property
    def kept_held_out(self) -> float:
        """The share of what was learned that holds on held-out rows; nan where nothing was."""
        return self._share(self.validation)

    @property
    def kept_under_masks(self) -> float:
        """The share of what was learned that is left with dropout on; nan where nothing was."""
        return self._share(self.masked)

    @property
    def is_learned(self) -> bool:
        """Whether the network does better than a constant on the rows it was trained on."""
        return self.constant - self.train > _LEAST * min(1.0, abs(self.constant))

    def _share(self, loss: float) -> float:
        return (
            (self.constant - loss) / (self.constant - self.train) if self.is_learned else torch.nan
        )


@dataclass(frozen=True)
class Advice:
    """What follows from a gap.

    Attributes:
        verdict: `no_dropout`, `too_little`, `too_much`, `about_right` or `nothing_learned`.
        text: The reason, with its figures, and what to do.
    """

    verdict: Verdict
    text: str


def measure_gap(
    network: nn.Module,
    train_rows: tuple[Tensor, Tensor],
    validation_rows: tuple[Tensor, Tensor],
    loss: Loss,
    *,
    seed: int = 0,
) -> Gap:
    """Compare the losses of a trained network.

    Args:
        network: Unchanged.
        train_rows: Inputs and targets it was trained on.
        validation_rows: Inputs and targets it has not seen.
        loss: The one it was trained with.
        seed: Of the masks.
    """
    inputs, targets = train_rows
    passes = [
        mean_loss(network, inputs, targets, loss, mode="sampling", seed=seed + k)
        for k in range(_NUM_PASSES)
    ]
    return Gap(
        constant=_constant_loss(outputs_of(network, inputs[:2]), targets, loss),
        train=mean_loss(network, inputs, targets, loss),
        masked=sum(passes) / len(passes),
        validation=mean_loss(network, *validation_rows, loss),
        has_dropout=has_dropout(network, inputs[:32]),
    )


def advise(gap: Gap) -> Advice:
    """Say whether there is too much, too little or no dropout, and what to do about it."""
    figures = (
        f"loss {gap.train:.4g} on training rows, {gap.validation:.4g} on validation rows, "
        f"{gap.masked:.4g} on training rows with dropout on, {gap.constant:.4g} for a constant"
    )
    verdict, reason = _judged(gap)
    return Advice(verdict, f"{reason} ({figures})")


def _judged(gap: Gap) -> tuple[Verdict, str]:
    """Return the verdict and the reason for it."""
    held_out, masked = gap.kept_held_out, gap.kept_under_masks
    overfits = gap.is_learned and held_out < _OVERFITS
    if not gap.has_dropout:
        lost = f", and {1 - held_out:.0%} of what was learned is lost on held-out rows"
        return "no_dropout", (
            f"no dropout is active, so all samples would be equal{lost if overfits else ''}: "
            "put dropout with p = 0.1 to 0.5 before the linear layers"
        )
    if not gap.is_learned:
        return "nothing_learned", (
            "the network does not do better than a constant: lower p first, then look at the "
            "learning rate and the number of epochs"
        )
    if overfits and masked < _COSTLY:
        return "about_right", (
            f"the network overfits ({1 - held_out:.0%} of what was learned is lost on held-out "
            f"rows) although dropout already costs {1 - masked:.0%}: keep p, and take more rows, "
            "weight decay, fewer units or early stopping"
        )
    if overfits:
        return "too_little", (
            f"{1 - held_out:.0%} of what was learned is lost on held-out rows, and dropout costs "
            f"only {1 - masked:.0%}: raise p, or take more weight decay or early stopping"
        )
    if masked < _CHEAP and gap.cost >= gap.gap:
        return "too_much", (
            f"dropout costs {1 - masked:.0%} of what was learned, more than the "
            f"{max(0.0, 1 - held_out):.0%} that are lost on held-out rows: lower p, or take more "
            "units"
        )
    return "about_right", (
        f"{max(0.0, 1 - held_out):.0%} of what was learned is lost on held-out rows and "
        f"{max(0.0, 1 - masked):.0%} "
        "under dropout: p suits the network"
    )


def _constant_loss(example: Output, targets: Tensor, loss: Loss) -> float:
    """The smallest loss of an output that is the same for every row, found by L-BFGS."""
    parts = (example,) if isinstance(example, Tensor) else example
    constants = [torch.zeros_like(part[:1], requires_grad=True) for part in parts]
    targets = targets.to(parts[0].device)

    def value() -> Tensor:
        first, *second = (c.expand(len(targets), *c.shape[1:]) for c in constants)
        return loss((first, second[0]) if second else first, targets)

    optimiser = torch.optim.LBFGS(constants, max_iter=_NUM_STEPS, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        objective = value()
        objective.backward()  # type: ignore[no-untyped-call]
        return float(objective.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return float(value())
