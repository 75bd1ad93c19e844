"""Fit the flag: what its score needs, the choice of the score, and the threshold.

Flow: rows of each part, as scores see them → the bank on `features` → the tails of the combined
score and the comparison with strange rows on `choice` → the threshold on `ood`. No part sees the
rows of another, so the rate of false alarms holds whatever was chosen.

Dimensions: B rows, N strange rows, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dubito import ties
from dubito.calibration import splits
from dubito.calibration.flags import scorer, scores
from dubito.calibration.flags.detector import Detector
from dubito.calibration.flags.scorer import AUTO, COMBINED, DISTANCES, FittedScore
from dubito.calibration.flags.source import Source
from dubito.errors import InputError

_FEWEST_TO_SET_ASIDE, _FEWEST_STRANGE = 20, 20
S = TypeVar("S", bound="Rows")


class Rows(Source, Protocol):
    """Rows of which some can be taken."""

    def take(self: S, rows_b: NDArray[np.int64]) -> S:
        """Some of the rows."""


@dataclass(frozen=True)
class Flagging:
    """What is asked of the flag, beside its rate of false alarms.

    Args:
        score: name of the score, or `auto`; None: the default of the task.
        features: (B, F) features of the labelled rows, where a score needs them.
        ood_features: (N, F) features of the strange rows.
    """

    score: str | None = None
    features: NDArray[np.floating] | None = None
    ood_features: NDArray[np.floating] | None = None

    def needs_bank(self) -> bool:
        """Whether rows are set aside for distances to them."""
        return self.features is not None and self.score in (AUTO, COMBINED, *DISTANCES)

    def extra(self) -> dict[str, splits.Share]:
        """Parts of the labelled rows that this takes."""
        found = {}
        if self.needs_bank():
            reason = "for distances between features"
            found[splits.FEATURES] = splits.Share(5, _FEWEST_TO_SET_ASIDE, reason)
        if self.score in (AUTO, COMBINED):
            reason = "to compare or combine scores"
            found[splits.CHOICE] = splits.Share(5, _FEWEST_TO_SET_ASIDE, reason)
        return found


DEFAULT_FLAG = Flagging()


@dataclass(frozen=True)
class Flag:
    """The fitted flag.

    Args:
        detector: name of the score and held-out values.
        fitted: what the score needs; None where nothing.
        warnings: what the rows could not settle.
    """

    detector: Detector
    fitted: FittedScore | None
    warnings: tuple[str, ...]


def fit_flag(
    asked: Flagging,
    task: str,
    rows: S,
    label_B: NDArray[np.int64] | None,
    strange: S | None,
    parts: Mapping[str, NDArray[np.int64]],
    *,
    alpha: float,
    seed: int,
) -> Flag:
    """The flag of a calibration.

    Args:
        asked: which score.
        task: `classification` or `regression`.
        rows: all labelled rows.
        label_B: their classes.
        strange: rows to choose by, of which the report sees none.
        parts: row numbers by part.
        alpha: false-alarm rate.
        seed: of the rows that are kept.

    Raises:
        InputError: the score does not exist, or lacks features or strange rows.
    """
    name = asked.score or default_score(task)
    scorer.check_name(name, task, has_strange=strange is not None)
    fitted = FittedScore()
    if splits.FEATURES in parts:
        fitted = FittedScore(bank=scorer.fit_bank(rows, label_B, parts[splits.FEATURES], seed))
    if splits.CHOICE in parts:
        usual = rows.take(parts[splits.CHOICE])
        has_features = fitted.bank is not None
        names = scorer.parts(task, has_features=has_features)
        if len(names) > 1:
            fitted = FittedScore(fitted.bank, scorer.fit_tails(names, fitted, usual))
        if name == AUTO and strange is not None:
            known = scorer.known(task, has_features=has_features)
            compared = scorer.compare(known, fitted, usual, strange)
            name = max(compared, key=lambda one: compared[one])  # of equals the first
            fitted = _reduced(name, fitted, compared)
    score_b = fitted.score(name, rows.take(parts[splits.OOD]))
    detector = Detector.fit(name, score_b, alpha)
    return Flag(detector, None if fitted == FittedScore() else fitted, tuple(_ties(name, score_b)))


def default_score(task: str) -> str:
    """The score of a task until the caller names another."""
    is_classes = task == "classification"
    return scores.DEFAULT_CLASSIFICATION if is_classes else scores.DEFAULT_REGRESSION


def strange_parts(
    num_strange: int, score: str | None, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the strange rows to choose by, and of those for the report.

    Half each where the score is to be chosen; else all are for the report.

    Raises:
        InputError: too few to choose by.
    """
    if score != AUTO:
        return np.arange(0), np.arange(num_strange)
    if num_strange < _FEWEST_STRANGE:
        raise InputError(
            f"`ood_score` `auto` expects at least {_FEWEST_STRANGE} strange rows, half to choose "
            f"by and half for the report, got {num_strange}: send more, or name a score"
        )
    order_N = np.random.Generator(np.random.Philox(seed)).permutation(num_strange)
    half = num_strange // 2
    return np.sort(order_N[:half]), np.sort(order_N[half:])


def _reduced(name: str, fitted: FittedScore, compared: dict[str, float]) -> FittedScore:
    """What the chosen score needs, and what it was compared with."""
    tails = fitted.tails if name == COMBINED else ()
    needed = FittedScore(fitted.bank, tails)
    bank = fitted.bank if needed.needs_features(name) else None
    return FittedScore(bank, tails, compared)


def _ties(name: str, score_b: NDArray[np.float64]) -> list[str]:
    if len(ties.starts(np.sort(score_b), ties.least_of(name))) > 1:
        return []
    return ["all held-out rows have the same out-of-distribution score: hardly a flag is raised"]
