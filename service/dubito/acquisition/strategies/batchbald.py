"""Batches whose labels together say most about ω."""

from __future__ import annotations

import torch

from dubito.acquisition.batches import batchbald, gaussian
from dubito.acquisition.batches.picks import Picks
from dubito.acquisition.strategies.bald import BALD, BALD_OF_NUMBERS, NOISE, noise
from dubito.acquisition.strategy import (
    NUMBERS,
    ONE_CLASS,
    Candidates,
    Context,
    Held,
    JointStrategy,
    kept_samples,
)
from dubito.engine.calling.arguments import Check

_SAMPLES: frozenset[Held] = frozenset({"samples"})


def _of_classes(
    candidates: Candidates, picks: Picks, context: Context, check: Check | None
) -> None:
    samples_TNC = torch.from_numpy(kept_samples(candidates.prediction))
    probs_TNC = batchbald.placed(samples_TNC, context.device)
    batchbald.choose(probs_TNC, picks, seed=context.acquisition.seed, check=check)


def _of_numbers(
    candidates: Candidates, picks: Picks, context: Context, check: Check | None
) -> None:
    samples_TND = torch.from_numpy(kept_samples(candidates.prediction))
    noise_ND = torch.from_numpy(noise(candidates.prediction, context).copy())
    gaussian.choose(samples_TND, noise_ND, picks, check=check)


BATCHBALD = JointStrategy("batchbald", ONE_CLASS, _of_classes, _SAMPLES, BALD)
BATCHBALD_OF_NUMBERS = JointStrategy(
    "batchbald", NUMBERS, _of_numbers, _SAMPLES, BALD_OF_NUMBERS, options=NOISE
)
