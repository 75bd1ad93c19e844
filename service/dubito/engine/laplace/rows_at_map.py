"""What rows are at the last map: the sums that a fit needs, and where they are labelled the rows.

Dimensions: B rows, F features, C outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubito.engine.laplace.curvature import CurvatureSums


@dataclass(frozen=True, eq=False)
class RowsAtMap:
    """What was seen of some rows.

    Args:
        seen: sums over them.
        features: of those that are kept, (B, F).
        scores: theirs, (B, C).
    """

    seen: CurvatureSums
    features: NDArray[np.float32]
    scores: NDArray[np.float32]

    @classmethod
    def of(
        cls, features_BF: Tensor, scores_BC: Tensor, *, is_classes: bool, keeps_rows: bool
    ) -> RowsAtMap:
        """What some rows say.

        Args:
            features_BF: what goes into the last map.
            scores_BC: what comes out.
            is_classes: whether scores are logits.
            keeps_rows: whether the rows are needed one by one.
        """
        seen = CurvatureSums.of_rows(features_BF, scores_BC, is_classes=is_classes)
        stop = len(features_BF) if keeps_rows else 0
        kept = (part[:stop].float().cpu().numpy() for part in (features_BF, scores_BC))
        return cls(seen, *kept)

    def with_more(self, other: RowsAtMap) -> RowsAtMap:
        """These rows, then others."""
        return RowsAtMap(
            self.seen.with_more(other.seen),
            np.concatenate([self.features, other.features]),
            np.concatenate([self.scores, other.scores]),
        )

    def only(self, is_kept_B: NDArray[np.bool_]) -> RowsAtMap:
        """The same sums, with some of the kept rows."""
        return RowsAtMap(self.seen, self.features[is_kept_B], self.scores[is_kept_B])

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All of it by name."""
        rows = {"kept_features": self.features, "kept_scores": self.scores}
        return {**self.seen.arrays(), **rows}

    @classmethod
    def from_arrays(cls, stored: Mapping[str, NDArray[np.generic]]) -> RowsAtMap:
        """Return what `arrays` gave."""
        rows = (stored[name].astype(np.float32) for name in ("kept_features", "kept_scores"))
        return cls(CurvatureSums.from_arrays(stored), *rows)
