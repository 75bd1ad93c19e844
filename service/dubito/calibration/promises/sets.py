"""Prediction sets: which classes of a row are kept, so that the truth is among them as promised.

Flow: mean probabilities of held-out rows → `fit` → a rule and its `ConformalScores` → the sets of
other rows, at any coverage. A row's score for class c, low where c fits:

    lac     1 - p̄_c
    aps     Σ p̄ of the classes before c + u p̄_c                   classes by falling p̄
    raps    the same + λ max(0, rank of c - k)

u is one number in [0, 1) per row (`draws`), without which sets would cover too much. By its score
alone a set may be empty: then no class fits the row as well as the truth fits all but 1 - coverage
of the rows, which is what rows come to of whose kind a network is right more often than that. So
the predicted class is in every set, unless empty ones are asked for: sets then hold the truth at
least as often, and without thresholds per class are larger by the share of empty ones, no more.

Dimensions: B rows, C classes, n held-out rows.

Source: lac: Sadinle, Lei and Wasserman 2019, arXiv:1609.00451; aps: Romano, Sesia and Candès 2020,
arXiv:2006.02544; raps: Angelopoulos et al. 2021, arXiv:2009.14193; thresholds per class: Vovk 2012,
arXiv:1209.2673.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dubito import ties
from dubito.calibration.choices import SetsName
from dubito.calibration.promises.conformal import ConformalScores, order
from dubito.errors import InputError

Floats = NDArray[np.float64]

PENALTIES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""λ that raps chooses from."""


@dataclass(frozen=True, slots=True)
class SetRule:
    """How a row's classes are scored, and whether every class has a threshold of its own.

    Args:
        kind: `lac`, `aps` or `raps`.
        per_class: whether a class is held against held-out rows of its own.
        penalty: λ of raps, per rank.
        free_ranks: k of raps, ranks without a penalty.
        never_empty: whether the predicted class is in every set; false in a record of an earlier
            build.

    Raises:
        InputError: a penalty or a number of ranks below 0.
    """

    kind: SetsName = "lac"
    per_class: bool = False
    penalty: float = 0.0
    free_ranks: int = 0
    never_empty: bool = False

    def __post_init__(self) -> None:
        """Refuse penalties that would reward."""
        if not 0 <= self.penalty < float("inf") or self.free_ranks < 0:
            raise InputError(
                "sets expect a finite penalty and a number of free ranks of at least 0, got "
                f"{self.penalty} and {self.free_ranks}: calibrate the version again"
            )

    @property
    def is_randomised(self) -> bool:
        """Whether a row needs its u."""
        return self.kind != "lac"

    def scores(self, mean_BC: Floats, uniform_B: Floats) -> Floats:
        """How badly each class fits each row, shape (B, C).

        Args:
            mean_BC: calibrated mean probabilities.
            uniform_B: u of each row, in [0, 1); lac passes it over.
        """
        if self.kind == "lac":
            return 1.0 - mean_BC
        order_BC = ties.falling(mean_BC)
        sorted_BC = np.take_along_axis(mean_BC, order_BC, axis=-1)
        before_BC = sorted_BC.cumsum(axis=-1) - sorted_BC
        score_BC = before_BC + uniform_B[:, None] * sorted_BC
        if self.kind == "raps":
            rank_C = np.arange(1, mean_BC.shape[-1] + 1)
            score_BC += self.penalty * np.maximum(rank_C - self.free_ranks, 0)
        scores_BC = np.empty_like(score_BC)
        np.put_along_axis(scores_BC, order_BC, score_BC, axis=-1)
        return scores_BC

    def fit(
        self, mean_BC: Floats, label_B: NDArray[np.int64], uniform_B: Floats
    ) -> ConformalScores:
        """The held-out rows' scores of their labels: in one column, or one per class."""
        score_B = self.scores(mean_BC, uniform_B)[np.arange(len(label_B)), label_B]
        if not self.per_class:
            return ConformalScores.of([score_B])
        return ConformalScores.of([score_B[label_B == label] for label in range(mean_BC.shape[-1])])

    def sets(
        self, held_out: ConformalScores, mean_BC: Floats, uniform_B: Floats, coverage: float
    ) -> NDArray[np.bool_]:
        """Which classes each row's set holds, shape (B, C); `filled` with the predicted one."""
        return self.filled(self.fitting(held_out, mean_BC, uniform_B, coverage), mean_BC)

    def fitting(
        self, held_out: ConformalScores, mean_BC: Floats, uniform_B: Floats, coverage: float
    ) -> NDArray[np.bool_]:
        """Which classes fit each row well enough, shape (B, C).

        {c : score of c <= k-th smallest held-out score (of class c)},  k = ceil((n+1) coverage)

        A class whose score ties with the threshold is held.
        """
        scores_BC = self.scores(mean_BC, uniform_B)
        return scores_BC <= ties.raised(held_out.thresholds(coverage))

    def filled(self, fitting_BC: NDArray[np.bool_], mean_BC: Floats) -> NDArray[np.bool_]:
        """The sets of the classes that fit, with the predicted one where none may be empty."""
        if not self.never_empty:
            return fitting_BC
        sets_BC = fitting_BC.copy()
        np.put_along_axis(sets_BC, ties.most_probable(mean_BC)[:, None], True, axis=-1)
        return sets_BC

    def settled_sizes(
        self, fitting_BC: NDArray[np.bool_], mean_BC: Floats, coverage: float
    ) -> NDArray[np.int64]:
        """Classes in each set, but 2 for one that does not settle its row.

        A set that holds nothing but a class which does not fit by itself settles the row where that
        class is as probable as sets are to hold the truth: p̄_c >= coverage.
        """
        size_B: NDArray[np.int64] = self.filled(fitting_BC, mean_BC).sum(axis=-1)
        if not self.never_empty:
            return size_B
        is_sure_B = ties.raised(mean_BC.max(axis=-1)) >= coverage
        return np.where((size_B == 1) & ~fitting_BC.any(axis=-1) & ~is_sure_B, 2, size_B)


LAC = SetRule()


def choose_penalty(
    mean_BC: Floats, label_B: NDArray[np.int64], uniform_B: Floats, coverage: float
) -> SetRule:
    """The rule of raps with the smallest sets on rows that no threshold is taken from.

    k is the ceil((n+1) coverage)-th smallest rank of a label, λ the first of `PENALTIES` whose
    sets, with these rows' own threshold, are smallest.

    Args:
        mean_BC: calibrated mean probabilities.
        label_B: class index of each row.
        uniform_B: u of each row.
        coverage: of the sets.
    """
    of_label_B1 = np.take_along_axis(mean_BC, label_B[:, None], axis=-1)
    rank_B = np.sort((ties.lowered(mean_BC) > ties.raised(of_label_B1)).sum(axis=-1) + 1)
    rank = min(order(len(label_B), coverage), len(label_B))
    free_ranks = int(rank_B[rank - 1])
    rules = [SetRule("raps", penalty=penalty, free_ranks=free_ranks) for penalty in PENALTIES]

    def size(rule: SetRule) -> float:
        held_out = rule.fit(mean_BC, label_B, uniform_B)
        return float(rule.sets(held_out, mean_BC, uniform_B, coverage).sum(axis=-1).mean())

    return min(rules, key=size)
