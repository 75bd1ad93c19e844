"""The rows of a batch, chosen one after the other: what is still open, and who wins a tie.

Its job: the rules that all joint strategies have in common. No row twice, no class too often, equal
scores by the rows' words.

Dimensions: N candidates.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dubito.acquisition.draws import Indices, Words
from dubito.acquisition.top import Scores
from dubito.errors import InputError


@dataclass(eq=False)
class Picks:
    """A batch in the making.

    Args:
        k: rows that it shall hold.
        words: order equal scores, the larger first.
        labels: predicted classes.
        per_class: most rows of one of them.
    """

    k: int
    words: Words
    labels: Indices | None = None
    per_class: int | None = None
    rows: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    is_open: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.is_open = np.ones(len(self.words), np.bool_)

    @property
    def is_full(self) -> bool:
        """Whether all k rows are there."""
        return len(self.rows) >= self.k

    def best(self, scores_N: Scores) -> int:
        """The open row with the largest score.

        Raises:
            InputError: no open row has a finite score.
        """
        usable_N = self.is_open & np.isfinite(scores_N)
        if not usable_N.any():
            raise too_few(len(self.rows), self.k, self.per_class)
        largest = scores_N[usable_N].max()
        row_n = np.flatnonzero(usable_N & (scores_N == largest))
        return int(row_n[self.words[row_n].argmax()])

    def take(self, row: int, score: float) -> None:
        """Put a row into the batch, and close it, and its class where that is full."""
        self.rows.append(row)
        self.scores.append(float(score))
        self.is_open[row] = False
        if self.per_class is not None and self.labels is not None:
            label = self.labels[row]
            if (self.labels[self.rows] == label).sum() >= self.per_class:
                self.is_open &= self.labels != label


def too_few(num_rows: int, k: int, per_class: int | None) -> InputError:
    """The error for a pool that has fewer rows than were asked for, by the rules of the batch."""
    why = "" if per_class is None else f" with at most {per_class} of a predicted class"
    return InputError(
        f"expected {k} rows{why} and with finite scores, got {num_rows}: lower `k`"
        + ("" if per_class is None else " or raise `per_class`")
        + ", or send rows on which the network does not overflow"
    )
