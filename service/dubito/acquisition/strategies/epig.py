"""Rows whose label says most about the labels of rows that one cares about."""

from __future__ import annotations

import torch

from dubito.acquisition.draws import Words
from dubito.acquisition.scores import epig
from dubito.acquisition.strategies.bald import NOISE, noise
from dubito.acquisition.strategy import (
    NUMBERS,
    ONE_CLASS,
    Context,
    PointwiseStrategy,
    kept_samples,
)
from dubito.acquisition.top import Scores
from dubito.engine import Classification, Regression


def _of_classes(prediction: Classification, words_B: Words, context: Context) -> Scores:
    samples_TBC, targets_TMC = _samples(prediction), _samples(context.targets)
    return epig.classification(samples_TBC, targets_TMC).numpy()


def _of_numbers(prediction: Regression, words_B: Words, context: Context) -> Scores:
    noise_BD, noise_MD = (
        torch.from_numpy(noise(rows, context).copy()) for rows in (prediction, context.targets)
    )
    samples_TBD, targets_TMD = _samples(prediction), _samples(context.targets)
    return epig.regression(samples_TBD, noise_BD, targets_TMD, noise_MD).numpy()


def _samples(prediction: Classification | Regression) -> torch.Tensor:
    return torch.from_numpy(kept_samples(prediction))


EPIG = PointwiseStrategy("epig", ONE_CLASS, _of_classes, needs_samples=True, needs_targets=True)
EPIG_OF_NUMBERS = PointwiseStrategy(
    "epig", NUMBERS, _of_numbers, needs_samples=True, needs_targets=True, options=NOISE
)
