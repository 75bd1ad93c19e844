"""The sums of a classification of which no spread is wanted: what a large vocabulary has room for.

Its job: keep a mean and a count of votes for each class of a distribution, where all sums keep up
to seventy numbers, and say what needs no more: mean, entropies, information, votes.

Dimensions: T samples, B rows, P positions or labels (one axis or none), C classes, N distributions.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import ClassVar

import numpy as np
from torch import Tensor

from dubito.engine.calling.columns import Column, Columns, Sums
from dubito.engine.summing.compiled.class_state import State, no_state
from dubito.engine.summing.compiled.classes import CompiledClassSums
from dubito.engine.summing.compiled.figure_loops import LeanFigures, write_lean_figures
from dubito.engine.summing.figures import Draws
from dubito.engine.summing.logits import Logits


class LeanClassSums(CompiledClassSums):
    """Means, entropies and winners.

    Args:
        logits: finds them in the declared outputs of some passes.
        is_mean: the size of a row's logits is the mean over its positions; else the sum.
    """

    step: ClassVar[int] = 1

    def __init__(self, logits: Callable[[Tensor], Logits], is_mean: bool = False) -> None:
        super().__init__(logits, left=None, is_mean=is_mean)

    def sums(self) -> dict[str, Column]:
        """Return the sums by name, rows first; nobody else reads them after."""
        assert self._state is not None
        shape = self._shape[:-1]
        return {
            "mean": self._state.spread.mean.reshape(self._shape),
            "entropy": self._state.entropy.reshape(shape),
            "varies": self._state.varies.reshape(shape).astype(np.float64),
            "most_votes": self._most_votes().reshape(shape),
            "sizes": self._sizes[0],
            "size_squares": self._sizes[1],
        }

    def _none(self) -> State:
        return no_state(prod(self._shape[:-1]), self._shape[-1], is_lean=True)

    def _with_room(self, state: State, samples: int, is_whole: bool) -> State:
        return state

    def _most_votes(self) -> Column:
        """How many passes the class won that won most, (N,)."""
        assert self._state is not None
        most: Column = self._state.wins.reshape(-1, self._shape[-1]).max(-1).astype(np.float64)
        return most


def figures(sums: Sums, draws: Draws) -> Columns:
    """The columns of a classification that need no spread over the passes.

    Args:
        sums: as `LeanClassSums` names them, the means of which are overwritten.
        draws: that they are of.
    """
    shape, count = sums["mean"].shape, draws.count
    mean, rows = sums["mean"].reshape(-1), prod(shape[:-1])
    figures = LeanFigures(mean, *(np.empty(rows) for _ in LeanFigures._fields[1:]))
    most, entropy, varies = (sums[name].reshape(-1) for name in ("most_votes", "entropy", "varies"))
    write_lean_figures(most, entropy, varies, count, figures)
    columns = zip(LeanFigures._fields, figures, strict=True)
    return {
        **{name: column.reshape(shape[:-1]) for name, column in columns if name != "mean"},
        "mean": sums["mean"],
        "energy": -sums["sizes"][:, 0],
        "energy_spread": np.sqrt(sums["size_squares"][:, 0] / count),
        "max_logit": sums["sizes"][:, 1],
    }
