"""Rows by chance: what every other strategy has to beat."""

from __future__ import annotations

from dubito.acquisition.strategy import CLASSES, NUMBERS, PointwiseStrategy

RANDOM = PointwiseStrategy("random", CLASSES | NUMBERS, None, needs_spread=False)
