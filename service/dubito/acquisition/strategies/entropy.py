"""Rows whose class is least sure: predictive entropy."""

from __future__ import annotations

from dubito.acquisition.strategy import CLASSES, PointwiseStrategy

ENTROPY = PointwiseStrategy(
    "entropy", CLASSES, lambda prediction, *_: prediction.predictive_entropy, needs_spread=False
)
