"""How unlike the held-out rows a row's positions follow each other.

Rows of usual words in an order that no held-out row has look usual position by position, and so
they do to all distances of a row's features. What gives them away is how one position leads to the
next: features u_l at position l, whose means over the rows are taken off, are expected at

    û_(l+1) = u_l A_k                          k: a class, whose rows have transitions of their own

    s_B = min_k mean_l |(u_(l+1) - u_l A_k) W|²        WᵀW: the inverse covariance of it

Of embedded words that is a model of word pairs: where embeddings are linearly independent, u A is
the mean embedding of the words that follow. A_k is a ridge regression, drawn towards that of all
rows by as much as `_PRIOR` positions weigh, so that classes of few rows have one too.

Features of a position are projected onto the at most 32 directions in which they vary most.

Dimensions: B rows, L positions, D features of a position, P <= 32 projected ones, K classes.

Source: Zellner 1962, Journal of the American Statistical Association 57:348-368 (regressions with
one covariance of their residuals); Arora et al. 2021, arXiv:2109.06827 (densities of texts find
what classifiers' outputs miss).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dubito.calibration.flags.distances import whitening
from dubito.calibration.flags.packed import PackedArray
from dubito.errors import InputError

MAX_DIRECTIONS, MAX_CLASSES = 32, 64
_PRIOR, _RIDGE = 100.0, 1e-3
_LEAST_SPREAD = 1e-3
_AT_ONCE = 2**22

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Transitions:
    """How positions of held-out rows follow each other.

    Args:
        directions: (D, P) that give each position's features unit variance.
        means: (L, P) of each position.
        maps: (K, P, P) from a position to the next, of each class; one of all rows where there are
            no classes or more than 64.
        whitening: (P, P), of what the maps leave.
    """

    directions: PackedArray
    means: PackedArray
    maps: PackedArray
    whitening: PackedArray

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together."""
        size = self.directions.shape[-1]
        shapes = (self.means.shape[1:], self.maps.shape[1:], self.whitening.shape)
        if shapes != ((size,), (size, size), (size, size)):
            raise InputError("transitions expect parts of one size: calibrate again")

    @classmethod
    def fit(
        cls, feature_BLD: NDArray[np.floating], label_B: NDArray[np.int64] | None
    ) -> Transitions:
        """Those of rows set aside.

        Args:
            feature_BLD: finite, of at least two positions.
            label_B: their classes; None: all rows are of one kind.
        """
        rows = feature_BLD.astype(np.float64)
        mean_LD = rows.mean(axis=0)
        size = float(np.sqrt(np.square(rows).mean()))
        directions_DP = _directions((rows - mean_LD).reshape(-1, rows.shape[-1]), size)
        row_BLP = (rows - mean_LD) @ directions_DP
        classes, class_B = np.unique(
            np.zeros(len(rows)) if label_B is None else label_B, return_inverse=True
        )
        if len(classes) > MAX_CLASSES:
            classes, class_B = classes[:1], np.zeros_like(class_B)
        identity = np.eye(row_BLP.shape[-1])
        overall = _regressed(row_BLP, _RIDGE * row_BLP[:, 1:, 0].size * identity, 0 * identity)
        maps = [
            _regressed(row_BLP[class_B == index], _PRIOR * identity, _PRIOR * overall)
            for index in range(len(classes))
        ]
        left_NP = np.concatenate(
            [_left(row_BLP[class_B == index], map_PP) for index, map_PP in enumerate(maps)]
        )
        all_NP = row_BLP.reshape(-1, row_BLP.shape[-1])
        white = whitening(left_NP, all_NP, float(np.abs(all_NP).max()))
        return cls(
            PackedArray.of(directions_DP, "float32"),
            PackedArray.of(mean_LD @ directions_DP),
            PackedArray.of(np.stack(maps)),
            PackedArray.of(white),
        )

    def score(self, feature_BLD: NDArray[np.floating]) -> Floats:
        """Mean squared deviation from what the position before leads to expect, as above."""
        (size, _), (length, _) = self.directions.shape, self.means.shape
        if feature_BLD.shape[1:] != (length, size):
            raise InputError(
                f"the calibration was fitted on features of shape {(length, size)} per row, got "
                f"{feature_BLD.shape[1:]}: use the calibration of this version, on rows of its size"
            )
        step = max(1, _AT_ONCE // (length * size))
        parts = [
            self._of(feature_BLD[start : start + step])
            for start in range(0, len(feature_BLD), step)
        ]
        return np.concatenate([np.empty(0), *parts])

    def _of(self, feature_bLD: NDArray[np.floating]) -> Floats:
        row_bLP = feature_bLD.astype(np.float64) @ self.directions.array() - self.means.array()
        before_NP, behind_NP = _pairs(row_bLP)
        white_NP = behind_NP @ self.whitening.array().T
        of_rows = (len(row_bLP), len(self.means.array()) - 1)
        each = [
            np.square(white_NP - before_NP @ map_PP).sum(axis=1).reshape(of_rows).mean(axis=1)
            for map_PP in self._white_maps
        ]
        least_b: Floats = np.min(each, axis=0)
        return least_b

    @cached_property
    def _white_maps(self) -> Floats:
        maps_KPP: Floats = self.maps.array() @ self.whitening.array().T
        return maps_KPP


def _directions(position_ND: Floats, size: float) -> Floats:
    """Those in which positions vary most, by more than a thousandth of the features' own size."""
    variance_D, direction_DD = np.linalg.eigh(position_ND.T @ position_ND / len(position_ND))
    variance_D = np.maximum(variance_D, (_LEAST_SPREAD * (size or 1.0)) ** 2)
    kept = np.flatnonzero(variance_D >= _LEAST_SPREAD**2 * variance_D[-1])[::-1][:MAX_DIRECTIONS]
    return np.asarray(direction_DD[:, kept] / np.sqrt(variance_D[kept]), np.float64)


def _regressed(row_BLP: Floats, ridge_PP: Floats, towards_PP: Floats) -> Floats:
    """(Σ uᵀu + ridge)⁻¹ (Σ uᵀu' + towards), u' the position behind u."""
    before, behind = _pairs(row_BLP)
    squares_PP, products_PP = before.T @ before + ridge_PP, before.T @ behind + towards_PP
    return np.asarray(np.linalg.solve(squares_PP, products_PP), np.float64)


def _left(row_BLP: Floats, map_PP: Floats) -> Floats:
    before, behind = _pairs(row_BLP)
    left_NP: Floats = behind - before @ map_PP
    return left_NP


def _pairs(row_BLP: Floats) -> tuple[Floats, Floats]:
    """All positions but the last of each row, and those behind them, (B (L - 1), P) each."""
    size = row_BLP.shape[-1]
    return row_BLP[:, :-1].reshape(-1, size), row_BLP[:, 1:].reshape(-1, size)
