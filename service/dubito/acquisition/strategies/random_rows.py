"""Rows by chance: what every other strategy has to beat."""

from __future__ import annotations

from dubito.acquisition.strategy import (
    CLASSES,
    NUMBERS,
    NUMBERS_AT_POSITIONS,
    SEQUENCES,
    PointwiseStrategy,
)

RANDOM = PointwiseStrategy(
    "random", CLASSES | NUMBERS | NUMBERS_AT_POSITIONS | SEQUENCES, None, needs_spread=False
)
