"""A prediction in target units as it is answered, whatever its numbers are quantiles or moments of.

Dimensions: B rows, D outputs.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dubito.calibration.flags import scores
from dubito.calibration.flags.source import ServedSource
from dubito.calibration.heads.head import Floats, Head
from dubito.calibration.heads.served import Columns, KeptFigures, Served, warn_unbounded
from dubito.calibration.promises.intervals import Ends
from dubito.calibration.promises.policy import number_uncertainty
from dubito.columns import Column
from dubito.engine import Regression


class HeadOfNumbers(Head):
    """A head whose scores and uncertainties are counted in a variance of each output."""

    reference: tuple[float, ...]

    def score(self, name: str, epistemic_BD: NDArray[np.floating]) -> Floats:
        """Return the named score that needs no fitting, (B,)."""
        scores.check_known(name, scores.REGRESSION)
        return scores.normalised(epistemic_BD.astype(np.float64), np.asarray(self.reference))


@dataclass(frozen=True)
class ServedRegression(Served):
    """What all predictions in target units have; members as of `Served`."""

    head: HeadOfNumbers
    prediction: Regression

    @property
    def source(self) -> ServedSource:
        epistemic_BD = self.prediction.epistemic_variance
        return ServedSource(lambda name: self.head.score(name, epistemic_BD), self.request.features)

    @property
    def uncertainty(self) -> Floats:
        return number_uncertainty(self.variance, np.asarray(self.head.reference))

    @property
    def varies(self) -> bool:
        return bool((self.prediction.epistemic_variance > 0).any())

    @property
    def aleatoric(self) -> Floats:
        """Noise variance, (B, D)."""
        return self.prediction.aleatoric_variance

    @property
    def variance(self) -> Floats:
        """Of the mixture, (B, D)."""
        variance_BD: Floats = self.prediction.epistemic_variance + self.aleatoric
        return variance_BD

    def columns(self) -> Columns:
        said = self.prediction
        return {
            "mean": lambda: said.mean,
            "variance": lambda: self.variance,
            "standard_error": lambda: said.standard_error,
            "num_samples_used": lambda: said.num_samples_used,
            "epistemic_variance": lambda: said.epistemic_variance,
            "aleatoric_variance": lambda: self.aleatoric,
            "quantiles": self._quantiles,
            "interval": self._interval,
        }

    def observed(self) -> KeptFigures | None:
        ends = self._ends(None)
        if ends is None:
            return None
        return KeptFigures(self.prediction.mean, lower=ends[0], upper=ends[1])

    @abstractmethod
    def _ends(self, coverage: float | None, name: str | None = None) -> Ends | None:
        """Ends of the intervals; None without a promise, or the passes that it takes."""

    @abstractmethod
    def _quantiles(self) -> Column:
        """Quantiles by level."""

    def _interval(self) -> Column:
        ends = self._ends(self.request.coverage, "interval")
        if ends is None or self.head.promise is None:
            return None
        warn_unbounded(self.head.promise, self.request)
        return {"lower": ends[0], "upper": ends[1]}
