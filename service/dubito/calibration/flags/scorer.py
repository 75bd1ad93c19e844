"""Scores by name, those that are fitted as well, and the choice of one on strange rows.

Flow: rows set aside → `fit` of what a score needs → `FittedScore`, kept with the calibration →
`score` of any row; `compare` of several scores on strange rows of their own.

    plain      need no fitting: `scores.CLASSIFICATION`, `scores.REGRESSION`
    distances  of features: `knn`, `mahalanobis`, `relative_mahalanobis` (classes only)
    density    of features: `gaussian_density` (classes only), which `auto` does not compare
    combined   of some of the others, see `OF_CLASSES` and `OF_NUMBERS`
    overall    the default where there are features: see `overall`

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
from dubito.calibration.flags.densities import ClassDensities
from dubito.calibration.flags.distances import FeatureBank
from dubito.calibration.flags.source import Source
from dubito.calibration.flags.transitions import Transitions
from dubito.errors import InputError

AUTO, COMBINED, OVERALL = "auto", "combined", "overall"
OUTSIDE, PROFILE, TRANSITIONS = "outside", "profile", "transitions"
DISTANCES = ("knn", "mahalanobis", "relative_mahalanobis")
DENSITY = "gaussian_density"
OF_FEATURES = (*DISTANCES, DENSITY)
"""Scores that are asked for by name, and read features."""
_READ_FEATURES = (*OF_FEATURES, OUTSIDE, PROFILE, TRANSITIONS)
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FittedScore:
    """What scores need beside the row.

    Args:
        bank: what distances are taken to.
        tails: the parts of the combined or the overall score.
        compared: area under the ROC curve of each score on strange rows of their own, where the
            score was chosen by it; in the order of preference where they tie.
        profile: what the score `profile` is taken to.
        densities: what the score `gaussian_density` is taken under.
        transitions: what the score `transitions` is taken to.
    """

    bank: FeatureBank | None = None
    tails: tuple[Tail, ...] = ()
    compared: dict[str, float] | None = None
    profile: FeatureBank | None = None
    densities: ClassDensities | None = None
    transitions: Transitions | None = None

    def score(self, name: str, source: Source) -> Floats:
        """The named score of each row.

        Raises:
            InputError: an unknown name, or one whose parts were not fitted.
        """
        if name in (COMBINED, OVERALL) and self.tails:
            parts = [tail.surprise(self.score(tail.score, source)) for tail in self.tails]
            total_B: Floats = np.sum(parts, axis=0)
            return total_B
        if name in _READ_FEATURES:
            return self._distance(name, source)
        return source.plain(name)

    def needs_features(self, name: str) -> bool:
        """Whether the named score reads features."""
        parts = [tail.score for tail in self.tails] if name in (COMBINED, OVERALL) else [name]
        return any(part in _READ_FEATURES for part in parts)

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
        with np.errstate(over="ignore", invalid="ignore"):  # of rows that the network overflows on
            return self._of_bank(self.bank, name, source.features)

    def _of_bank(self, bank: FeatureBank, name: str, features: NDArray[np.floating]) -> Floats:
        if name == PROFILE and self.profile is not None:
            return self.profile.mahalanobis(profiles(features))
        if name == TRANSITIONS and self.transitions is not None:
            return self.transitions.score(features)
        if name == DENSITY and self.densities is not None:
            return self.densities.score(bank.white(flat(features)))
        by_name = {
            "knn": bank.knn,
            "mahalanobis": bank.mahalanobis,
            "relative_mahalanobis": bank.relative_mahalanobis,
            OUTSIDE: bank.outside,
        }
        return by_name[name](flat(features))


@dataclass(frozen=True, slots=True)
class ScoreFamily:
    """The scores of a task.

    Args:
        task: its name.
        plain: scores that need no fitting, the default first.
        distances: of features.
        joined: what `combined` is made of.
        by_name: further scores, which are asked for by name alone.
        output_weight: of the default of the outputs in the overall score, beside 1 of the features.
    """

    task: str
    plain: tuple[str, ...]
    distances: tuple[str, ...]
    joined: tuple[str, ...]
    by_name: tuple[str, ...] = ()
    output_weight: float = 1.0

    @property
    def default(self) -> str:
        """The score of the outputs: the flag's until the caller names another or has features."""
        return self.plain[0]

    def known(self, *, has_features: bool) -> tuple[str, ...]:
        """Names of the scores that `auto` compares, the default first."""
        named = (*self.plain, *(self.distances if has_features else ()))
        return (*named, COMBINED) if len(self.parts(has_features=has_features)) > 1 else named

    @property
    def named(self) -> tuple[str, ...]:
        """Names of all scores that may be asked for, the default of the outputs first."""
        return (*self.known(has_features=True), OVERALL, *self.by_name)

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
        names = self.named
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
    by_name=(DENSITY,),
)
OF_NUMBERS = ScoreFamily(
    "regression",
    plain=scores.REGRESSION,
    distances=DISTANCES[:2],
    joined=("epistemic_variance", "mahalanobis"),
    output_weight=0.5,
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
    return FeatureBank.fit(flat(source.features[rows_b]), label_b, seed=seed)


def fit_density(
    source: Source, label_B: NDArray[np.int64] | None, rows_b: NDArray[np.int64], seed: int
) -> FittedScore:
    """What `gaussian_density` needs, of the rows set aside for it.

    Raises:
        InputError: there are no features, or no classes that they are of.
    """
    bank = fit_bank(source, label_B, rows_b, seed)
    if bank is None or label_B is None or source.features is None:
        raise InputError(
            f"`ood_score` `{DENSITY}` expects features of rows with a class each, got none: export "
            "with features=, or name another score"
        )
    white_bP = bank.white(flat(source.features[rows_b]))
    return FittedScore(bank.without_rows(), densities=ClassDensities.fit(white_bP, label_B[rows_b]))


def flat(features: NDArray[np.floating]) -> NDArray[np.floating]:
    """The features of each row as one vector, (B, F)."""
    return features.reshape(len(features), -1)


def profiles(features: NDArray[np.floating]) -> NDArray[np.floating]:
    """The means of each row's features along every axis, one behind the other.

    Of channels, height and width: the mean of every channel, of every line, of every column. None,
    (B, 0), of features that have one axis.

    Source: Lee et al. 2018, arXiv:1807.03888 (for the means of channels).
    """
    axes = [axis for axis in range(1, features.ndim) if features.shape[axis] > 1]
    if len(axes) < 2:
        return np.empty((len(features), 0))
    rows = features.astype(np.float64)
    others = (tuple(other for other in range(1, rows.ndim) if other != axis) for axis in axes)
    return np.concatenate([rows.mean(axis=along) for along in others], axis=1)


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
