"""Which drop probability: train with each, keep the one whose samples explain held-out rows best.

    for p: build(p) -> fit -> T passes on the validation rows -> mean log-likelihood

Source: Gal and Ghahramani 2016, arXiv:1506.02142, section 5.2: grid search by log-likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from dubito_nn.training.likelihood import (
    Head,
    best_noise_precision,
    log_likelihood,
    sampled_outputs,
)
from dubito_nn.training.seeding import seeded


@dataclass(frozen=True)
class Trial:
    """How well one drop probability explains the validation rows.

    Attributes:
        drop_prob: p.
        log_likelihood: Mean over the validation rows, in nats per row.
        standard_error: Of that mean.
        noise_precision: τ that was best for this p, for a head of means alone.
    """

    drop_prob: float
    log_likelihood: float
    standard_error: float
    noise_precision: float | None


@dataclass(frozen=True)
class DropProbSearch:
    """A search for the drop probability: its trials, and the best of them.

    Attributes:
        trials: In the order in which they were made.
        best: The one of the highest log-likelihood; of equals the first.
        network: The one trained in the best trial.
    """

    trials: tuple[Trial, ...]
    best: Trial
    network: nn.Module


def search_drop_prob(
    build: Callable[[float], nn.Module],
    fit: Callable[[nn.Module], object],
    drop_probs: Sequence[float],
    validation: tuple[Tensor, Tensor],
    *,
    head: Head,
    num_samples: int = 64,
    seed: int = 0,
) -> DropProbSearch:
    """Train a network with each p and choose by the likelihood of held-out rows.

    Args:
        build: Makes a fresh network with the given p; its weights are drawn from the seed, so that
            all networks start alike.
        fit: Trains the network in place, on other rows than these.
        drop_probs: Candidates, from 0 to below 1.
        validation: Inputs (B, ...) and targets of held-out rows.
        head: What the network's output is: `logits` (B, C), `mean` (B, D), or the pair
            `mean_and_log_variance`, (B, D) each.
        num_samples: T.
        seed: Of the weights at the start and of the masks.

    Raises:
        ValueError: There is no candidate, or one is out of range; there are no validation rows, or
            their targets do not go with the head.
    """
    check_drop_probs(drop_probs)
    if len(validation[0]) == 0 or len(validation[0]) != len(validation[1]):
        raise ValueError(
            f"expected as many validation targets as inputs and at least one, got "
            f"{len(validation[1])} and {len(validation[0])}: hold rows out"
        )
    best: DropProbSearch | None = None
    trials: list[Trial] = []
    for drop_prob in drop_probs:
        with seeded(seed):
            network = build(drop_prob)
        fit(network)
        trials.append(_trial(network, drop_prob, validation, head, num_samples, seed))
        if best is None or trials[-1].log_likelihood > best.best.log_likelihood:
            best = DropProbSearch((), trials[-1], network)
    assert best is not None
    return DropProbSearch(tuple(trials), best.best, best.network)


def check_drop_probs(drop_probs: Sequence[float]) -> None:
    """Refuse an empty list of candidates, and drop probabilities outside of [0, 1).

    Raises:
        ValueError: So it is.
    """
    if not drop_probs or not all(0.0 <= p < 1.0 for p in drop_probs):
        raise ValueError(
            f"expected drop probabilities of at least 0 and below 1, got {list(drop_probs)}: "
            "try [0.05, 0.1, 0.2, 0.5]"
        )


def _trial(
    network: nn.Module,
    drop_prob: float,
    validation: tuple[Tensor, Tensor],
    head: Head,
    num_samples: int,
    seed: int,
) -> Trial:
    """Measure a trained network by the likelihood of the validation rows."""
    inputs, targets = validation
    samples = sampled_outputs(network, inputs, num_samples=num_samples, seed=seed)
    precision = best_noise_precision(samples, targets) if head == "mean" else None
    each_B = log_likelihood(samples, targets, head=head, noise_precision=precision)
    error = float(each_B.std(correction=0)) / math.sqrt(len(each_B))
    return Trial(drop_prob, float(each_B.mean()), error, precision)
