"""What is kept of a prediction until its truth is known, and what the truth says of it.

Flow: columns of a prediction → `ObservedRows` → bytes in the database → `ObservedRows` →
`class_outcome` or `number_outcome`. A row of C classes takes about 5 C + 9 bytes, one of D numbers
24 D + 9, and a request 400 more.

Dimensions: B rows, C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from dubito import ties
from dubito.monitoring.outcomes import Outcome


@dataclass(frozen=True, eq=False)
class ObservedRows:
    """The rows of one request under one calibration.

    Sets and intervals are those at the coverage of the calibration, whatever the request asked.

    Args:
        mean: (B, C) float32 probabilities, or (B, D) float64 in target units.
        score: (B,) score of each row, higher is stranger.
        is_flagged: (B,) whether the row was flagged.
        is_member: (B, C) which classes the set holds; None for a regression.
        lower: (B, D) lower ends of the intervals; None for a classification.
        upper: (B, D) upper ends; None for a classification.
    """

    mean: NDArray[np.floating]
    score: NDArray[np.float64]
    is_flagged: NDArray[np.bool_]
    is_member: NDArray[np.bool_] | None = None
    lower: NDArray[np.float64] | None = None
    upper: NDArray[np.float64] | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows, B."""
        return len(self.score)

    @property
    def num_bytes(self) -> int:
        """Memory of all arrays, in bytes."""
        return sum(array.nbytes for array in self._arrays().values())

    def to_bytes(self) -> bytes:
        """Return all arrays as the bytes of a safetensors file."""
        arrays = {name: np.ascontiguousarray(array) for name, array in self._arrays().items()}
        return save(arrays)

    @classmethod
    def from_bytes(cls, content: bytes) -> ObservedRows:
        """Return the rows that `to_bytes` wrote."""
        return cls(**load(content))

    def class_outcome(self, row: int, label: int) -> Outcome:
        """What the true class says of a row.

        Args:
            row: from 0.
            label: index of the class.
        """
        if self.is_member is None:
            raise ValueError("expected rows of a classification, got a regression")
        mean_C = np.nan_to_num(self.mean[row].astype(np.float64))
        return Outcome(
            is_covered=(bool(self.is_member[row, label]),),
            is_flagged=bool(self.is_flagged[row]),
            confidence=float(mean_C.max()),
            is_right=int(ties.most_probable(mean_C)) == label,
        )

    def number_outcome(self, row: int, target_D: Sequence[float]) -> Outcome:
        """What the true numbers say of a row.

        Args:
            row: from 0.
            target_D: in target units, one per output.
        """
        if self.lower is None or self.upper is None:
            raise ValueError("expected rows of a regression, got a classification")
        is_above_D = self.lower[row] <= np.asarray(target_D)
        is_inside_D = is_above_D & (np.asarray(target_D) <= self.upper[row])
        return Outcome(tuple(is_inside_D.tolist()), bool(self.is_flagged[row]))

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        return {name: array for name, array in vars(self).items() if array is not None}
