"""What a score may read of some rows: the passes at the fit, a prediction's columns at serving.

Flow: passes, or columns, and the features where they are needed → a `Source` → scores by name. The
numbers are the same by either way, up to the order in which T passes are summed.

Dimensions: T samples, B rows, C classes, D outputs, F features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from dubito.calibration.flags import scores
from dubito.calibration.scaling.scaling import scaled_logits
from dubito.engine.heads.scaling import Scaling
from dubito.engine.heads.several import of_rows

Floats = NDArray[np.float64]
Features = NDArray[np.floating]


class Source(Protocol):
    """Some rows, as scores see them."""

    @property
    def features(self) -> Features | None:
        """The features of the rows; None where none were taken."""

    def plain(self, name: str) -> Floats:
        """The score of that name that needs no fitting."""


@dataclass(frozen=True, eq=False)
class LogitSource:
    """Rows of a classification, all their passes at hand.

    Args:
        logits: (T, B, C), as the network gives them.
        scaling: is done to them, but not for scores of the logits themselves.
        features: (B, F) features of the rows.
    """

    logits: NDArray[np.floating]
    scaling: Scaling
    features: Features | None = None

    def plain(self, name: str) -> Floats:
        """The score of that name that needs no fitting."""
        is_raw = name in scores.OF_RAW_LOGITS
        logits = self.logits if is_raw else scaled_logits(self.logits, self.scaling)
        return scores.from_logits(name, logits)

    def take(self, rows_b: NDArray[np.int64]) -> LogitSource:
        """Some of the rows."""
        taken = taken_features(self.features, rows_b)
        return replace(self, logits=self.logits[:, rows_b], features=taken)


@dataclass(frozen=True, eq=False)
class ColumnSource:
    """Rows of a classification as predicted, under the calibration's scaling."""

    columns: scores.ClassificationColumns
    features: Features | None = None

    def plain(self, name: str) -> Floats:
        """The score of that name that needs no fitting."""
        return scores.from_columns(name, self.columns)


@dataclass(frozen=True, eq=False)
class PositionSource:
    """Rows with several labels or positions, all their passes at hand.

    Args:
        logits: (T, B, P, C), as the network gives them.
        scaling: is done to them, but not for scores of the logits themselves.
        head: `multilabel` adds the positions up, `dense` averages them.
        features: (B, F) features of the rows.
    """

    logits: NDArray[np.floating]
    scaling: Scaling
    head: str
    features: Features | None = None

    def plain(self, name: str) -> Floats:
        """The score of that name that needs no fitting."""
        is_raw = name in scores.OF_RAW_LOGITS
        logits = self.logits if is_raw else scaled_logits(self.logits, self.scaling)
        if name == "energy_spread":  # of the row's own energy, pass by pass
            energy_TB = [of_rows(logsumexp(one, axis=-1), self.head) for one in logits]
            spread_B: Floats = np.std(energy_TB, axis=0)
            return spread_B
        return of_rows(scores.from_logits(name, logits), self.head)

    def take(self, rows_b: NDArray[np.int64]) -> PositionSource:
        """Some of the rows."""
        taken = taken_features(self.features, rows_b)
        return replace(self, logits=self.logits[:, rows_b], features=taken)


@dataclass(frozen=True, eq=False)
class PositionColumns:
    """Rows with several labels or positions as predicted, under the calibration's scaling."""

    columns: scores.ClassificationColumns
    head: str
    features: Features | None = None

    def plain(self, name: str) -> Floats:
        """The score of that name that needs no fitting."""
        found = scores.from_columns(name, self.columns)
        return found if found.ndim == 1 else of_rows(found, self.head)


@dataclass(frozen=True, eq=False)
class NumberSource:
    """Rows of a regression.

    Args:
        epistemic: (B, D) epistemic variance of each row and output.
        reference: (D,) what it is counted in.
        features: (B, F) features of the rows.
    """

    epistemic: Floats
    reference: Floats
    features: Features | None = None

    def plain(self, name: str) -> Floats:
        """The score of that name that needs no fitting."""
        scores.check_known(name, scores.REGRESSION)
        return scores.normalised(self.epistemic, self.reference)

    def take(self, rows_b: NDArray[np.int64]) -> NumberSource:
        """Some of the rows."""
        taken = taken_features(self.features, rows_b)
        return replace(self, epistemic=self.epistemic[rows_b], features=taken)


def taken_features(feature_BF: Features | None, rows_b: NDArray[np.int64]) -> Features | None:
    """The features of some of the rows."""
    return None if feature_BF is None else feature_BF[rows_b]
