"""Fit the flag: what its score needs, the choice of the score, and the threshold.

Flow: rows of each part, as scores see them → the bank on `features` → the tails of the combined
score and the comparison with strange rows on `choice` → the threshold on `ood`. No part sees the
rows of another, so the rate of false alarms holds whatever was chosen.

The overall score takes no part of its own: its banks are of the rows that fit the scaling, its
tails of those held out for the sets. Neither fit reads the flag, and the threshold sees others.

Dimensions: B rows, N strange rows, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dubito import ties
from dubito.calibration import splits
from dubito.calibration.flags import scorer
from dubito.calibration.flags.detector import Detector
from dubito.calibration.flags.overall import fit_overall
from dubito.calibration.flags.scorer import (
    AUTO,
    COMBINED,
    DENSITY,
    OF_FEATURES,
    OVERALL,
    FittedScore,
    ScoreFamily,
)
from dubito.calibration.flags.source import SampledSource
from dubito.errors import InputError

_FEWEST_TO_SET_ASIDE, _FEWEST_STRANGE = 20, 20
_FEWEST_OF_TAILS = 10


def extra_parts(score: str | None, *, has_features: bool) -> dict[str, splits.Share]:
    """Parts of the labelled rows that a score takes: for distances, and to compare or combine."""
    parts = {}
    if has_features and score in (AUTO, COMBINED, *OF_FEATURES):
        reason = "for distances between features"
        parts[splits.FEATURES] = splits.Share(5, _FEWEST_TO_SET_ASIDE, reason)
    if score in (AUTO, COMBINED):
        reason = "to compare or combine scores"
        parts[splits.CHOICE] = splits.Share(5, _FEWEST_TO_SET_ASIDE, reason)
    return parts


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


@dataclass(frozen=True)
class Flagging:
    """What is asked of the flag.

    Args:
        family: the scores of the task.
        score: name of the score, or `auto`; None: `overall` where there are features, else the
            default of the family.
        alpha: false-alarm rate.
        seed: of the rows that distances keep.
    """

    family: ScoreFamily
    score: str | None
    alpha: float
    seed: int

    def fit(
        self,
        rows: SampledSource,
        strange: SampledSource | None,
        label_B: NDArray[np.int64] | None,
        parts: Mapping[str, NDArray[np.int64]],
    ) -> Flag:
        """The flag of a calibration.

        Args:
            rows: all labelled rows.
            strange: rows to choose by, of which the report sees none.
            label_B: classes that distances are taken to; None: all rows are of one kind.
            parts: row numbers by part.

        Raises:
            InputError: the score does not exist, or lacks features or strange rows.
        """
        name, told = self._name(rows, parts)
        self.family.check_name(name, has_strange=strange is not None)
        fitted = FittedScore()
        if name == OVERALL:
            bank_b, tail_b = _overall_parts(parts)
            fitted = fit_overall(self.family, rows, label_B, bank_b, rows.take(tail_b))
        if name == DENSITY:
            rows_b = parts.get(splits.FEATURES, np.arange(0))
            fitted = scorer.fit_density(rows, label_B, rows_b, self.seed)
        elif splits.FEATURES in parts:
            bank = scorer.fit_bank(rows, label_B, parts[splits.FEATURES], self.seed)
            fitted = FittedScore(bank=bank)
        if splits.CHOICE in parts:
            usual = rows.take(parts[splits.CHOICE])
            has_features = fitted.bank is not None
            names = self.family.parts(has_features=has_features)
            if len(names) > 1:
                fitted = FittedScore(fitted.bank, scorer.fit_tails(names, fitted, usual))
            if name == AUTO and strange is not None:
                known = self.family.known(has_features=has_features)
                compared = scorer.compare(known, fitted, usual, strange)
                name = max(
                    compared, key=lambda candidate: compared[candidate]
                )  # of equals the first
                fitted = _reduced(name, fitted, compared)
        score_b = fitted.score(name, rows.take(parts[splits.OOD]))
        detector = Detector.fit(name, score_b, self.alpha)
        needed = None if fitted == FittedScore() else fitted
        return Flag(detector, needed, (*told, *_ties(name, score_b)))

    def _name(
        self, rows: SampledSource, parts: Mapping[str, NDArray[np.int64]]
    ) -> tuple[str, tuple[str, ...]]:
        """Name of the score, and a warning where the default cannot read the features there are.

        Raises:
            InputError: the overall score was asked for, and cannot be fitted.
        """
        if self.score not in (None, OVERALL):
            return str(self.score), ()
        reason = _missing(rows, parts)
        if reason is None:
            return OVERALL, ()
        if self.score == OVERALL:
            raise InputError(f"`ood_score` `overall` expects {reason}")
        told = () if rows.features is None else (f"{OUTPUTS_ALONE}: it expects {reason}",)
        return self.family.default, told


OUTPUTS_ALONE = "the flag reads the outputs alone, and may miss rows that are far from all others"


def _missing(rows: SampledSource, parts: Mapping[str, NDArray[np.int64]]) -> str | None:
    """What the overall score lacks; None where nothing."""
    if rows.features is None:
        return "features of the rows, got none: export with features=, or name another score"
    if not np.isfinite(rows.features).all():
        return "features that are finite numbers, got NaN or infinity: look for such rows"
    bank_b, tail_b = _overall_parts(parts)
    if len(bank_b) < _FEWEST_TO_SET_ASIDE or len(tail_b) < _FEWEST_OF_TAILS:
        return (
            f"{_FEWEST_TO_SET_ASIDE} rows or more for distances and {_FEWEST_OF_TAILS} to compare "
            f"them with, got {len(bank_b)} and {len(tail_b)}: send more rows"
        )
    return None


def _overall_parts(
    parts: Mapping[str, NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the banks, and of the tails; where nothing is fitted the rows for sets serve both."""
    bank_b, tail_b = parts[splits.FIT], parts[splits.CONFORMAL]
    return (bank_b, tail_b) if len(bank_b) else (tail_b[::2], tail_b[1::2])


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
