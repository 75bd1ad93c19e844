"""Sets of a row that has several labels or positions: one promise for the row, none for a position.

The labels, or positions, of one row depend on each other, so held-out positions are no sample that
a threshold could be taken from: rows are. A row's score is the s-th share of the scores of its
positions, and one threshold on it serves all of them:

    r_b = the ceil(s · P)-th smallest of 1 - p̄_bp(y_bp) over the P positions of the row
    set of a position = {c : 1 - p̄_c <= k-th smallest held-out r}, and its most probable class

For rows exchangeable with the held-out ones, with a chance of at least the coverage the sets of
the share s of a new row's positions hold their truths at once; with s = 1 all do. Nothing is
promised of one position by itself. A set is never empty: the most probable class is always in it,
which can only add to the coverage.

Numbers at positions have intervals of the same kind, for each output on its own, and scores
|y - ȳ| / σ (`intervals`) in place of 1 - p̄.

Of a label the set is {off}, {on} or both. So the labels that must be on and those that may be on
enclose, with s = 1, the labels that are on.

Dimensions: B rows, P positions (one axis or more) or labels, C classes; of a label C is 2.

Source: Vovk, Gammerman and Shafer 2005 (split conformal prediction); Cauchois, Gupta and Duchi
2021, arXiv:2004.10181 (inner and outer sets of labels); Angelopoulos and Bates 2021,
arXiv:2107.07511, on dependent pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dubito import ties
from dubito.calibration.choices import Choices
from dubito.calibration.promises.conformal import ConformalScores, exact_decimal
from dubito.engine.heads.several import of_rows
from dubito.errors import InputError

Floats: TypeAlias = NDArray[np.float64]
PositionsName: TypeAlias = Literal["multilabel", "dense", "dense_regression"]

UNLABELLED = -1
"""What stands in `labels` for a position that nobody has labelled: it counts nowhere."""

DEFAULT_SHARE: Mapping[PositionsName, float] = {
    "multilabel": 1.0,
    "dense": 0.95,
    "dense_regression": 0.95,
}


@dataclass(frozen=True, slots=True)
class Positions:
    """How the rows of a head with several distributions are taken together.

    Args:
        head: `multilabel`, `dense` or `dense_regression`.
        share: of a row's positions, the least that its sets hold at once, in (0, 1].

    Raises:
        InputError: the share is out of bounds.
    """

    head: PositionsName
    share: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a share that promises nothing, or more than all."""
        if not 0 < self.share <= 1:
            raise InputError(
                f"`position_share` expects a number above 0 and at most 1, got {self.share}: 1 "
                "promises all of a row's positions at once"
            )

    def of_rows(self, value_BP: Floats) -> Floats:
        """Return each row's figure: the sum over labels, the mean over positions."""
        return of_rows(value_BP, self.head)

    def row_scores(self, mean_BPC: Floats, label_BP: NDArray[np.int64]) -> Floats:
        """Return r of each row, from the positions that have a label; shape (B,).

        Args:
            mean_BPC: calibrated mean probabilities.
            label_BP: class index of each position, or `UNLABELLED`.
        """
        return self.score_of(1.0 - of_labels(mean_BPC, label_BP), label_BP != UNLABELLED)

    def score_of(self, scores_BP: Floats, is_known_BP: NDArray[np.bool_]) -> Floats:
        """The same from the scores of positions, and which of them have a truth."""
        flat_BP = np.where(is_known_BP, scores_BP, np.inf).reshape(len(scores_BP), -1)
        known_B = is_known_BP.reshape(len(scores_BP), -1).sum(axis=1)
        index_B = np.array([self._needed(int(count)) - 1 for count in known_B])
        score_B: Floats = np.take_along_axis(np.sort(flat_BP, axis=1), index_B[:, None], axis=1)[
            :, 0
        ]
        return score_B

    def sets(
        self, held_out: ConformalScores, mean_BPC: Floats, coverage: float
    ) -> NDArray[np.bool_]:
        """Which classes the set of each position holds, shape (B, P, C)."""
        threshold = ties.raised(held_out.thresholds(coverage))[0]
        is_in_BPC: NDArray[np.bool_] = 1.0 - mean_BPC <= threshold
        most_BP1 = ties.most_probable(mean_BPC)[..., None]
        np.put_along_axis(is_in_BPC, most_BP1, True, axis=-1)
        return is_in_BPC

    def is_covered(
        self, sets_BPC: NDArray[np.bool_], label_BP: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether the promise is kept for each row, shape (B,)."""
        is_held_BP = of_labels(sets_BPC.astype(np.float64), label_BP) > 0
        return self.holds(is_held_BP, label_BP != UNLABELLED)

    def holds(
        self, is_held_BP: NDArray[np.bool_], is_known_BP: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """The same from the positions whose truth is held, and which of them have one."""
        known_B = is_known_BP.reshape(len(is_known_BP), -1).sum(axis=1)
        held_B = (is_held_BP & is_known_BP).reshape(len(is_known_BP), -1).sum(axis=1)
        needed_B = np.array([self._needed(int(count)) for count in known_B])
        covered_B: NDArray[np.bool_] = held_B >= needed_B
        return covered_B

    def uncertainty(self, mean_BPC: Floats) -> Floats:
        """Expected number of wrong labels, or share of wrong positions, of each row."""
        return self.of_rows(1.0 - mean_BPC.max(axis=-1))

    def set_sizes(self, sets_BPC: NDArray[np.bool_]) -> NDArray[np.int64]:
        """1 where so many positions as are promised have sets of one class, else 2; shape (B,)."""
        single_BP = (sets_BPC.sum(axis=-1) == 1).reshape(len(sets_BPC), -1)
        is_decided_B = single_BP.sum(axis=1) >= self._needed(single_BP.shape[1])
        return np.where(is_decided_B, 1, 2)

    def _needed(self, count: int) -> int:
        """Positions of so many that the promise speaks of, at least one."""
        if self.share == 1:
            return count
        return max(1, ceil(count * exact_decimal("position_share", self.share)))


ALL_LABELS, ALL_POSITIONS = Positions("multilabel"), Positions("dense")


def of_labels(value_BPC: Floats, label_BP: NDArray[np.int64]) -> Floats:
    """What stands for the label of each position; of the first class where there is none."""
    label_BP1 = np.maximum(label_BP, 0)[..., None]
    return np.take_along_axis(value_BPC, label_BP1, axis=-1)[..., 0]


def refuse_share(choices: Choices, head: str) -> None:
    """Refuse a share of positions for a head that has one distribution per row.

    Raises:
        InputError: there is one.
    """
    if choices.position_share is not None:
        raise InputError(
            f"`position_share` belongs to a head with several labels or positions per row, got "
            f"a {head}: leave it out"
        )
