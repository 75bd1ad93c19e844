"""Rows whose passes agree least on a class."""

from __future__ import annotations

from dubito.acquisition.strategy import CLASSES, PointwiseStrategy

VARIATION_RATIO = PointwiseStrategy(
    "variation_ratio", CLASSES, lambda prediction, *_: prediction.variation_ratio
)
