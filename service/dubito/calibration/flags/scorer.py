"""Scores by name, those that are fitted as well, and the choice of one on strange rows.

Flow: rows set aside → `fit` of what a score needs → `FittedScore`, kept with the calibration →
`score` of any row; `compare` of several scores on strange rows of their own.

    plain      need no fitting: `scores.CLASSIFICATION`, `scores.REGRESSION`
    distances  of features: `knn`, `mahalanobis`, `relative_mahalanobis` (classes only)
    combined   of some of the others, see `OF_CLASSES` and `OF_NUMBERS`

Dimensions: B rows, F features, N strange rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dubito import ties
from dubito.calibration.flags import scores
from dubito.calibration.flags.combined import Tail
from dubito.calibration.flags.distances import FeatureBank
from dubito.calibration.flags.source import Source
from dubito.errors import InputError

AUTO, COMBINED = "auto", "combined"
DISTANCES = ("knn", "mahalanobis", "relative_mahalanobis")
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FittedScore:
    """What scores need beside the row.

    Args:
        bank: what distances are taken to.
        tails: the parts of the combined score.
        compared: area under the ROC curve of each score on strange rows of their own, where the
            score was chosen by it; in the order of preference where they tie.
    """

    bank: FeatureBank | None = None
    tails: tuple[Tail, ...] = ()
    compared: dict[str, float] | None = None

    def score(self, name: str, source: Source) -> Floats:
        """The named score of each row.

        Raises:
            InputError: an unknown name, or one whose parts were not fitted.
        """
        if name == COMBINED and self.tails:
            parts = [tail.surprise(self.score(tail.score, source)) for tail in self.tails]
            total_B: Floats = np.sum(parts, axis=0)
            return total_B
        if name in DISTANCES:
            return self._distance(name, source)
        return source.plain(name)

    def needs_features(self, name: str) -> bool:
        """Whether the named score reads features."""
        parts = [tail.score for tail in self.tails] if name == COMBINED else [name]
        return any(part in DISTANCES for part in parts)

    def summary(self) -> dict[str, object]:
        """What it is made of, for a reader: sizes in place of the numbers."""
        bank = self.bank
        return {
            "bank": None
            if bank is None
            else {
                "num_features": bank.num_features,
                "num_rows": bank.kept.shape[0],
                "neighbours": bank.neighbours,
                "num_classes": bank.means.shape[0],
            },
            "parts": [tail.score for tail in self.tails],
        }

    def _distance(self, name: str, source: Source) -> Floats:
        if self.bank is None or source.features is None:
            raise InputError(
                f"the score `{name}` expects features of the rows and a bank of others, got none: "
                "calibrate again, with a network whose export named features="
            )
        by_name = {
            "knn": self.bank.knn,
            "mahalanobis": self.bank.mahalanobis,
            "relative_mahalanobis": self.bank.relative_mahalanobis,
        }
        return by_name[name](source.features)


@dataclass(frozen=True, slots=True)
class ScoreFamily:
    """The scores of a task.

    Args:
        task: its name.
        plain: scores that need no fitting, the default first.
        distances: of features.
        joined: what `combined` is made of.
    """

    task: str
    plain: tuple[str, ...]
    distances: tuple[str, ...]
    joined: tuple[str, ...]

    @property
    def default(self) -> str:
        """The score until the caller names another."""
        return self.plain[0]

    def known(self, *, has_features: bool) -> tuple[str, ...]:
        """Names of the scores, the default first."""
        named = (*self.plain, *(self.distances if has_features else ()))
        return (*named, COMBINED) if len(self.parts(has_features=has_features)) > 1 else named

    def parts(self, *, has_features: bool) -> tuple[str, ...]:
        """Names of the parts of the combined score."""
        return tuple(name for name in self.joined if has_features or name not in DISTANCES)

    def check_name(self, name: str, *, has_strange: bool) -> None:
        """Refuse a score that the task does not have, and a choice without strange rows.

        Raises:
            InputError: naming those there are.
        """
        if name == AUTO:
            if not has_strange:
                raise InputError(
                    "`ood_score` `auto` chooses on rows known to be strange, got none: send "
                    "`ood_inputs`, or name a score"
                )
            return
        names = self.known(has_features=True)
        if name not in names:
            raise InputError(
                f"`ood_score` of a {self.task} head: expected one of {', '.join((*names, AUTO))}, "
                f"got {name[:80]!r}: choose one of them"
            )


OF_CLASSES = ScoreFamily(
    "classification",
    plain=tuple(scores.CLASSIFICATION),
    distances=DISTANCES,
    joined=("predictive_entropy", "mahalanobis"),
)
OF_NUMBERS = ScoreFamily(
    "regression",
    plain=scores.REGRESSION,
    distances=DISTANCES[:2],
    joined=("epistemic_variance", "mahalanobis"),
)
"""`combined` is what the outputs say and what the features say, at equal weight.

Several scores of the outputs would outvote the features: with entropy, mutual information, energy
and `knn` the sum found digits among garments with an AUROC of .77, `mahalanobis` alone with .99;
but garments among digits `mahalanobis` found with .78, and these two together with .98 both times.
"""


def fit_bank(
    source: Source, label_B: NDArray[np.int64] | None, rows_b: NDArray[np.int64], seed: int
) -> FeatureBank | None:
    """The bank of the rows set aside for it; None where there are no features."""
    if source.features is None:
        return None
    label_b = None if label_B is None else label_B[rows_b]
    return FeatureBank.fit(source.features[rows_b], label_b, seed=seed)


def fit_tails(names: Sequence[str], fitted: FittedScore, source: Source) -> tuple[Tail, ...]:
    """The parts of the combined score, by rows set aside."""
    return tuple(Tail.fit(name, fitted.score(name, source)) for name in names)


def compare(
    names: Sequence[str], fitted: FittedScore, source: Source, strange: Source
) -> dict[str, float]:
    """How well each score parts strange rows from others: area under the ROC curve.

    Args:
        names: of the scores.
        fitted: what they need.
        source: rows set aside.
        strange: rows known to be strange, set aside too.
    """
    from sklearn.metrics import roc_auc_score

    area = {}
    for name in names:
        usual_B, strange_N = fitted.score(name, source), fitted.score(name, strange)
        score = np.nan_to_num(np.r_[usual_B, strange_N], nan=np.finfo(np.float64).max)
        score = ties.merged(score, ties.least_of(name))
        is_strange = np.r_[np.zeros(len(usual_B), np.int64), np.ones(len(strange_N), np.int64)]
        area[name] = float(roc_auc_score(is_strange, score))
    return area
