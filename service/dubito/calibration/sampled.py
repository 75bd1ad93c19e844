"""Rows with what every pass says of them: what fits and reports are made of.

Dimensions: T samples, B rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from dubito.calibration.promises import draws
from dubito.report import Check, no_check

Floats: TypeAlias = NDArray[np.floating]
Indices: TypeAlias = NDArray[np.int64]
Truths: TypeAlias = NDArray[np.int64] | NDArray[np.float64]
Array = TypeVar("Array", bound=NDArray[np.generic])


@dataclass(frozen=True, eq=False)
class Sampled:
    """Some rows, all their passes at hand.

    Args:
        passes: what the head makes of raw passes, each (T, B, ...): logits, or means and maybe
            log-variances.
        truth: (B, ...) class indices or targets; None for out-of-distribution rows.
        features: (B, ...) features, where the score of the flag reads them.
        uniform: (B,) a number in [0, 1) per row, for randomised sets.
        check: called as the passes are gone through; whatever it raises ends the work.
    """

    passes: tuple[Floats, ...]
    truth: Truths | None = None
    features: Floats | None = None
    uniform: NDArray[np.float64] | None = None
    check: Check = no_check

    def __len__(self) -> int:
        """Return the number of rows, B."""
        return int(self.passes[0].shape[1])

    @property
    def labels(self) -> Indices:
        """Class indices; -1 where nobody has labelled a position."""
        return cast(Indices, self.truth)

    @property
    def targets(self) -> NDArray[np.float64]:
        """Targets in target units, (B, D)."""
        return cast("NDArray[np.float64]", self.truth)

    @property
    def means(self) -> NDArray[np.float64]:
        """Means of the passes in target units, (T, B, D)."""
        return cast("NDArray[np.float64]", self.passes[0])

    @property
    def log_variances(self) -> NDArray[np.float64] | None:
        """Log-variances of the passes, (T, B, D); None of a network that predicts means alone."""
        return cast("NDArray[np.float64]", self.passes[1]) if len(self.passes) > 1 else None

    def take(self, rows_b: Indices) -> Sampled:
        """Return some of the rows."""
        self.check()
        return Sampled(
            passes=tuple(values[:, rows_b] for values in self.passes),
            truth=None if self.truth is None else self.truth[rows_b],
            features=taken(self.features, rows_b),
            uniform=taken(self.uniform, rows_b),
            check=self.check,
        )

    def with_draws(self, seed: int) -> Sampled:
        """Return the rows with a number each, drawn by their order where they have none."""
        if self.uniform is not None:
            return self
        return replace(self, uniform=draws.by_place(len(self), seed))


def taken(array: Array | None, rows_b: Indices) -> Array | None:
    """Return some rows of an array, or None where there is no array."""
    return None if array is None else cast(Array, array[rows_b])
