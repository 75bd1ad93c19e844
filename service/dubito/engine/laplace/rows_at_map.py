"""What rows are at the last map: the sums that a fit needs, and where they are labelled the rows.

Dimensions: B rows, F features, C outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubito.engine.laplace.curvature import CurvatureSums

_ROWS = ("kept_features", "kept_scores", "of_factor")


@dataclass(frozen=True, eq=False)
class RowsAtMap:
    """What was seen of some rows.

    Args:
        seen: sums over them.
        features: of those that are kept, (B, F).
        scores: theirs, (B, C).
        of_factor: features of those that the factor of many classes is made of, (n, F).
    """

    seen: CurvatureSums
    features: NDArray[np.float32]
    scores: NDArray[np.float32]
    of_factor: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        features_BF: Tensor,
        scores_BC: Tensor,
        *,
        is_classes: bool,
        keeps_rows: bool,
        keeps_pairs: bool = True,
    ) -> RowsAtMap:
        """What some rows say.

        Args:
            features_BF: what goes into the last map.
            scores_BC: what comes out.
            is_classes: whether scores are logits.
            keeps_rows: whether the rows are needed one by one.
            keeps_pairs: of classes, as sums; else the features are kept for the factor.
        """
        options = {"is_classes": is_classes, "keeps_pairs": keeps_pairs}
        seen = CurvatureSums.of_rows(features_BF, scores_BC, **options)
        stop = len(features_BF) if keeps_rows else 0
        of_factor_BF = features_BF[: 0 if keeps_pairs else None]
        kept = (features_BF[:stop], scores_BC[:stop], of_factor_BF)
        return cls(seen, *(part.float().cpu().numpy() for part in kept))

    def with_more(self, other: RowsAtMap) -> RowsAtMap:
        """These rows, then others."""
        return RowsAtMap(
            self.seen.with_more(other.seen),
            np.concatenate([self.features, other.features]),
            np.concatenate([self.scores, other.scores]),
            np.concatenate([self.of_factor, other.of_factor]),
        )

    def only(self, is_kept_B: NDArray[np.bool_]) -> RowsAtMap:
        """The same sums, with some of the kept rows."""
        return replace(self, features=self.features[is_kept_B], scores=self.scores[is_kept_B])

    def with_factor_of(self, is_kept_B: NDArray[np.bool_]) -> RowsAtMap:
        """The same, with some of the rows for the factor."""
        return replace(self, of_factor=self.of_factor[is_kept_B])

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All of it by name."""
        rows = {"kept_features": self.features, "kept_scores": self.scores}
        rows["of_factor"] = self.of_factor
        return {**self.seen.arrays(), **rows}

    @classmethod
    def from_arrays(cls, stored: Mapping[str, NDArray[np.generic]]) -> RowsAtMap:
        """Return what `arrays` gave."""
        rows = (stored[name].astype(np.float32) for name in _ROWS)
        return cls(CurvatureSums.from_arrays(stored), *rows)
