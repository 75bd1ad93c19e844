"""Columns of several networks as those of their mixture, in which every network counts the same.

    mean       1/M Σ_m mean_m
    variance   1/M Σ_m variance_m + 1/M Σ_m (mean_m - mean)²     law of total variance, ddof = 0
    error      √(Σ_m error_m²) / M: the networks are given, their draws are independent

Dimensions: M networks, T samples, B rows, C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dubito.engine.calling.columns import Column, Columns
from dubito.engine.calling.prediction import Prediction


def shared_columns(answers: Sequence[Prediction]) -> Columns:
    """The columns that every kind of prediction has; `samples` where all passes were kept."""
    return {
        "mean": mean([answer.mean for answer in answers]),
        "standard_error": error([answer.standard_error for answer in answers]),
        "num_samples_used": np.sum([answer.num_samples_used for answer in answers], axis=0),
        **joined("samples", [answer.samples for answer in answers]),
    }


def mean(columns: Sequence[Column]) -> Column:
    """Of the networks' columns."""
    mean: Column = np.mean(columns, axis=0)
    return mean


def variance(variances: Sequence[Column], means: Sequence[Column]) -> Column:
    """Within networks and between them."""
    total: Column = np.mean(variances, axis=0) + np.var(means, axis=0)
    return total


def error(errors: Sequence[Column]) -> Column:
    """The standard error of a mean over networks."""
    error: Column = np.sqrt(np.sum(np.square(errors), axis=0)) / len(errors)
    return error


def joined(name: str, samples: Sequence[Column | None]) -> Columns:
    """The passes of one network after the other, by their name; nothing where none were kept."""
    parts = [part for part in samples if part is not None]
    return {name: np.concatenate(parts)} if parts else {}
