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
from scipy.special import xlogy
from torch import Tensor

from dubito.engine.calling.columns import Column, Columns, Sums
from dubito.engine.summing.compiled.class_state import State
from dubito.engine.summing.compiled.classes import NO_GROUPS, CompiledClassSums
from dubito.engine.summing.compiled.spread import no_spread
from dubito.engine.summing.figures import Draws
from dubito.engine.summing.logits import Logits
from dubito.ties import most_probable

_AT_ONCE = 2**18  # probabilities that figures are made of at once


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
        distributions = prod(self._shape[:-1])
        return State(
            no_spread(0)._replace(mean=np.zeros(distributions * self._shape[-1])),
            votes=np.zeros(0),
            entropy=np.zeros(distributions),
            jackknife=np.zeros(0),
            groups=NO_GROUPS,
            sizes=np.zeros((0, 1, 2)),
            wins=np.zeros(distributions * self._shape[-1], np.int32),
            varies=np.zeros(distributions, np.uint8),
        )

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
    mean_NC = sums["mean"].reshape(-1, shape[-1])
    expected_N = sums["entropy"].reshape(-1) / count
    predictive_N, label_N = np.empty_like(expected_N), np.empty_like(expected_N)
    rows = max(1, _AT_ONCE // shape[-1])
    for first in range(0, len(mean_NC), rows):
        part = slice(first, first + rows)
        mean_NC[part] /= mean_NC[part].sum(-1, keepdims=True)
        predictive_N[part] = -xlogy(mean_NC[part], mean_NC[part]).sum(-1)
        label_N[part] = most_probable(mean_NC[part])
    varies_N = sums["varies"].reshape(-1) != 0
    # by concavity H[p̄] ≥ mean H[p_t]; rounding must not undo it
    is_more_N = varies_N & ~(predictive_N < expected_N)
    predictive_N = np.where(is_more_N, predictive_N, expected_N)
    each = {
        "predictive_entropy": predictive_N,
        "expected_entropy": expected_N,
        "mutual_information": predictive_N - expected_N,
        "variation_ratio": 1.0 - sums["most_votes"].reshape(-1) / count + 0 * expected_N,
        "label_index": label_N,
    }
    return {
        "mean": sums["mean"],
        **{name: column.reshape(shape[:-1]) for name, column in each.items()},
        "energy": -sums["sizes"][:, 0],
        "energy_spread": np.sqrt(sums["size_squares"][:, 0] / count),
        "max_logit": sums["sizes"][:, 1],
    }
