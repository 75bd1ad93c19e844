"""Predictions of neighbouring rows: some of them, and several as one.

Every column has the row as its first axis; of passes it is the second.

Dimensions: T samples, B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from typing import TypeVar

import numpy as np

from dubito.engine.calling.columns import Column, in_line, is_left_out
from dubito.engine.calling.prediction import Prediction

P = TypeVar("P")

_PASSES = frozenset({"samples", "noise_samples"})


def part_of(prediction: Prediction, rows: range) -> Prediction:
    """The prediction of some neighbouring rows, in memory of its own.

    Args:
        prediction: of all rows.
        rows: their places.
    """
    within = slice(rows.start, rows.stop)

    def cut(columns: Sequence[Column], axis: int) -> Column:
        if is_left_out(columns[0]):
            return columns[0][within]
        return columns[0][:, within].copy() if axis else columns[0][within].copy()

    return _made([prediction], cut)


def in_one(predictions: Sequence[Prediction]) -> Prediction:
    """One prediction of the rows of several, which were asked for alike."""
    return _made(predictions, in_line)


def _made(parts: Sequence[P], make: Callable[[Sequence[Column], int], Column]) -> P:
    """The first part with every column made of those of all parts."""
    columns = dict(vars(parts[0]))
    for name, value in vars(parts[0]).items():
        if isinstance(value, np.ndarray):
            values = [getattr(part, name) for part in parts]
            columns[name] = make(values, 1 if name in _PASSES else 0)
        elif name == "positions" and is_dataclass(value):
            columns[name] = _made([getattr(part, name) for part in parts], make)
    made = object.__new__(type(parts[0]))  # what was checked is not checked again
    vars(made).update(columns)
    return made
