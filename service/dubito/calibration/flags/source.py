"""What a score may read of some rows: the passes at the fit, a prediction's columns at serving.

Flow: a head names what plain scores are made of → a `Source` → scores by name. The numbers are the
same by either way, up to the order in which T passes are summed.

Dimensions: B rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dubito.calibration.sampled import taken
from dubito.report import Check, blocks, no_check

Floats = NDArray[np.float64]
Features = NDArray[np.floating]


class Source(Protocol):
    """Some rows, as scores see them."""

    @property
    def features(self) -> Features | None:
        """The features of the rows; None where none were taken."""

    def plain(self, name: str) -> Floats:
        """Return the score of that name, which needs no fitting, of each row."""


@dataclass(frozen=True, eq=False)
class SampledSource:
    """Rows of which some can be taken.

    Args:
        values: what plain scores are made of, such as logits.
        row_axis: axis of the rows in it: 0, or 1 after that of the passes.
        score: the plain score of a name.
        features: (B, ...) features of the rows, as the network has them or flat.
        check: called between blocks of rows; whatever it raises ends the work.
    """

    values: NDArray[np.floating]
    row_axis: int
    score: Callable[[str, NDArray[np.floating]], Floats]
    features: Features | None = None
    check: Check = no_check

    def plain(self, name: str) -> Floats:
        """Return the score of that name, which needs no fitting, of each row."""
        num_rows = self.values.shape[self.row_axis]
        score_B = np.empty(num_rows)
        for rows in blocks(num_rows, self.values.size // max(num_rows, 1), self.check):
            some = self.values[:, rows] if self.row_axis else self.values[rows]
            score_B[rows] = self.score(name, some)
        return score_B

    def take(self, rows_b: NDArray[np.int64]) -> SampledSource:
        """Return the source of some of the rows."""
        of_rows = self.values[:, rows_b] if self.row_axis else self.values[rows_b]
        return replace(self, values=of_rows, features=taken(self.features, rows_b))


@dataclass(frozen=True, eq=False)
class ServedSource:
    """Rows as predicted, under the calibration's scaling.

    Args:
        score: the plain score of a name.
        features: (B, ...) features of the rows, as the network has them or flat.
    """

    score: Callable[[str], Floats]
    features: Features | None = None

    def plain(self, name: str) -> Floats:
        """Return the score of that name, which needs no fitting, of each row."""
        return self.score(name)
