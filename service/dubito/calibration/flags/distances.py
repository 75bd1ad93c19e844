"""How far a row's features lie from those of held-out rows.

Flow: features and labels of rows set aside → `FeatureBank.fit` → one bank, kept with the
calibration → `knn`, `mahalanobis`, `relative_mahalanobis`, `outside` of any row's features.

The bank is bounded: features are projected onto the 128 directions that hold most of their length
(uncentred, orthonormal; all of them up to 128 features), and of the rows at most 1,000 are kept.
More than 4,096 features are first hashed to 1,024: each, with a sign of its own, is added to one of
them, which keeps the products of rows in expectation (Weinberger et al. 2009, arXiv:0902.2206).

Dimensions: B rows, F features, P <= 128 projected ones, K classes that occur, n kept rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dubito.calibration.flags.packed import PackedArray
from dubito.errors import InputError

MAX_FEATURES, MAX_UNHASHED, HASHED = 2**20, 4096, 1024
MAX_PROJECTED, MAX_KEPT = 128, 1000
_ROWS_AT_ONCE, _BROADCAST = 4096, 2**16
_ROUNDING = 1e-8  # of the largest feature
_LEAST_SPREAD = 1e-3  # of the size of the features

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FeatureBank:
    """What distances are taken to.

    Args:
        num_features: F.
        projection: (P, F) orthonormal directions; None where F <= 128 and all features are kept.
        kept: (n, P) features of length 1.
        neighbours: which nearest neighbour counts.
        means: (K, P) of each class.
        whitening: (P, P) matrix W with WᵀW the inverse of the covariance within classes.
        overall_mean: (P,) of all rows.
        overall_whitening: the same of the covariance of all rows.
    """

    num_features: int
    projection: PackedArray | None
    kept: PackedArray
    neighbours: int
    means: PackedArray
    whitening: PackedArray
    overall_mean: PackedArray
    overall_whitening: PackedArray

    @classmethod
    def fit(
        cls,
        feature_BF: NDArray[np.floating],
        label_B: NDArray[np.int64] | None,
        *,
        neighbours: int | None = None,
        seed: int = 0,
    ) -> FeatureBank:
        """The bank of rows set aside for it.

        Covariances are shrunk towards a multiple of the unit matrix by the share that Ledoit and
        Wolf estimate, so that fewer rows than features will do.

        Args:
            feature_BF: features of held-out rows, finite.
            label_B: their classes; None: all rows are of one kind, as in a regression.
            neighbours: k; None: about √n / 3, at least 1.
            seed: chooses the rows that are kept, where there are more than 1,000.

        Raises:
            InputError: fewer than 2 rows, too many features, or numbers that are not finite.

        Source: Ledoit and Wolf 2004, Journal of Multivariate Analysis 88:365-411.
        """
        num_features = feature_BF.shape[-1]
        feature_BF = hashed(checked(feature_BF, "features of the rows set aside"))
        if len(feature_BF) < 2:
            raise InputError(
                f"distances expect at least 2 rows set aside, got {len(feature_BF)}: send more rows"
            )
        order_B = np.random.Generator(np.random.Philox(seed)).permutation(len(feature_BF))
        index_n = np.sort(order_B[:MAX_KEPT])
        projection = _projection(feature_BF[index_n])
        row_BP = feature_BF if projection is None else feature_BF @ projection.array().T
        bank_nP = _of_length_one(row_BP[index_n])
        groups = np.zeros(len(row_BP), np.int64) if label_B is None else label_B
        classes, class_B = np.unique(groups, return_inverse=True)
        mean_KP = np.stack([row_BP[class_B == index].mean(axis=0) for index in range(len(classes))])
        overall_P, largest = row_BP.mean(axis=0), float(np.abs(row_BP).max())
        return cls(
            num_features=num_features,
            projection=projection,
            kept=PackedArray.of(bank_nP, "float32"),
            neighbours=neighbours or max(1, round(len(bank_nP) ** 0.5 / 3)),
            means=PackedArray.of(mean_KP),
            whitening=PackedArray.of(whitening(row_BP - mean_KP[class_B], row_BP, largest)),
            overall_mean=PackedArray.of(overall_P),
            overall_whitening=PackedArray.of(whitening(row_BP - overall_P, row_BP, largest)),
        )

    def __post_init__(self) -> None:
        """Refuse a bank whose parts do not fit together."""
        size = self.kept.shape[-1] if len(self.kept.shape) == 2 else -1
        width = self.num_features if self.num_features <= MAX_UNHASHED else HASHED
        projected = (width,) if self.projection is None else self.projection.shape
        expected = (size,) if self.projection is None else (size, width)
        fits = (
            projected == expected
            and 1 <= self.neighbours <= self.kept.shape[0]
            and self.means.shape[1:] == self.overall_mean.shape == (size,)
            and self.whitening.shape == self.overall_whitening.shape == (size, size)
        )
        if not fits:
            raise InputError("a bank of features expects parts of one size: calibrate again")

    def knn(self, feature_BF: NDArray[np.floating]) -> Floats:
        """Distance to the k-th nearest held-out row, features scaled to length 1; in [0, 2].

        s_B = |z/|z| - z_(k)/|z_(k)||₂

        Source: Sun et al. 2022, arXiv:2204.06507.
        """
        row_BP, bank_nP = _of_length_one(self._projected(feature_BF)), self.kept.array()
        score_B = np.empty(len(row_BP))
        length_n = np.square(bank_nP).sum(axis=1)
        for start in range(0, len(row_BP), _ROWS_AT_ONCE):
            row_bP = row_BP[start : start + _ROWS_AT_ONCE]
            square_bn = np.square(row_bP).sum(axis=1)[:, None] + length_n - 2 * row_bP @ bank_nP.T
            kth_b = np.partition(square_bn, self.neighbours - 1, axis=1)[:, self.neighbours - 1]
            score_B[start : start + len(row_bP)] = np.sqrt(np.maximum(kth_b, 0.0))
        return score_B

    def mahalanobis(self, feature_BF: NDArray[np.floating]) -> Floats:
        """Squared Mahalanobis distance to the nearest class, one covariance for all classes.

        s_B = min_k (z - μ_k)ᵀ Σ⁻¹ (z - μ_k)

        Source: Lee et al. 2018, arXiv:1807.03888.
        """
        row_BP = self._projected(feature_BF) @ self.whitening.array().T
        mean_KP, score_B = self._white_means, np.empty(len(row_BP))
        if row_BP.size * len(mean_KP) <= _BROADCAST:
            score_B[:] = np.square(row_BP[:, None] - mean_KP).sum(axis=2).min(axis=1)
        else:
            distances = [np.square(row_BP - mean_P).sum(axis=1) for mean_P in mean_KP]
            score_B[:] = np.min(distances, axis=0)
        return score_B

    @cached_property
    def _white_means(self) -> Floats:
        white_KP: Floats = self.means.array() @ self.whitening.array().T
        return white_KP

    def relative_mahalanobis(self, feature_BF: NDArray[np.floating]) -> Floats:
        """Return `mahalanobis` less the squared distance to all rows taken as one kind.

        s_B = min_k (z - μ_k)ᵀ Σ⁻¹ (z - μ_k) - (z - μ_0)ᵀ Σ_0⁻¹ (z - μ_0)

        Source: Ren et al. 2021, arXiv:2106.09022.
        """
        centred_BP = self._projected(feature_BF) - self.overall_mean.array()
        overall_B = np.square(centred_BP @ self.overall_whitening.array().T).sum(axis=1)
        score_B: Floats = self.mahalanobis(feature_BF) - overall_B
        return score_B

    def outside(self, feature_BF: NDArray[np.floating]) -> Floats:
        """Squared length of what the projection leaves out; 0 where all features are kept.

        s_B = |z - PᵀP z|²

        Source: Jackson and Mudholkar 1979, Technometrics 21:341-349.
        """
        row_BP = self._projected(feature_BF)
        if self.projection is None:
            return np.zeros(len(row_BP))
        row_BF = hashed(feature_BF.astype(np.float64))
        score_B: Floats = np.square(row_BF - row_BP @ self.projection.array()).sum(axis=1)
        return score_B

    def white(self, feature_BF: NDArray[np.floating]) -> Floats:
        """Features of which the covariance within classes is the unit matrix, (B, P)."""
        white_BP: Floats = self._projected(feature_BF) @ self.whitening.array().T
        return white_BP

    def without_rows(self) -> FeatureBank:
        """The bank without the kept rows but one: enough for all scores but `knn`."""
        return replace(
            self, kept=PackedArray.of(self.kept.array()[:1], self.kept.kind), neighbours=1
        )

    def _projected(self, feature_BF: NDArray[np.floating]) -> Floats:
        if feature_BF.ndim != 2 or feature_BF.shape[1] != self.num_features:
            raise InputError(
                f"the calibration was fitted on {self.num_features} features per row, got shape "
                f"{feature_BF.shape}: use the calibration of this version, on rows of its size"
            )
        row_BF = hashed(feature_BF.astype(np.float64))
        return row_BF if self.projection is None else row_BF @ self.projection.array().T


def checked(feature_BF: NDArray[np.floating], name: str) -> Floats:
    """Return the features in float64.

    Raises:
        InputError: no matrix, too many features, or numbers that are not finite.
    """
    if feature_BF.ndim != 2 or not 1 <= feature_BF.shape[1] <= MAX_FEATURES:
        raise InputError(
            f"{name}: expected 1 to {MAX_FEATURES} per row, got shape {feature_BF.shape}: export "
            "with features= naming a smaller layer, such as the one before the head"
        )
    if not np.isfinite(feature_BF).all():
        raise InputError(
            f"{name}: expected finite numbers, got NaN or infinity: look for rows that the network "
            "was not trained for"
        )
    return feature_BF.astype(np.float64)


def hashed(feature_BF: Floats) -> Floats:
    """More than 4,096 features as 1,024 sums of them, each with a sign drawn for it."""
    num_rows, num_features = feature_BF.shape
    if num_features <= MAX_UNHASHED:
        return feature_BF
    sign_F = 2.0 * np.random.Generator(np.random.Philox(0)).integers(0, 2, num_features) - 1
    padded = np.zeros((num_rows, -(-num_features // HASHED) * HASHED))
    np.multiply(feature_BF, sign_F, out=padded[:, :num_features])
    summed_BF: Floats = padded.reshape(num_rows, -1, HASHED).sum(axis=1)
    return summed_BF


def _projection(feature_BF: Floats) -> PackedArray | None:
    if feature_BF.shape[1] <= MAX_PROJECTED:
        return None
    directions_PF = np.linalg.svd(feature_BF, full_matrices=False)[2][:MAX_PROJECTED]
    return PackedArray.of(directions_PF, "float32")


def _of_length_one(row_BP: Floats) -> Floats:
    length_B1 = np.linalg.norm(row_BP, axis=1, keepdims=True)
    return row_BP / np.where(length_B1 > 0, length_B1, 1.0)


def whitening(centred_BP: Floats, row_BP: Floats, largest: float) -> Floats:
    """W with WᵀW = Σ⁻¹: the inverse of Σ's lower Cholesky factor.

    Directions in which rows vary by less than a thousandth of the features' own size are taken to
    vary by that: where rows repeat, all there is in them is rounding, and so would distances be.

    Args:
        centred_BP: features less their means.
        row_BP: the features themselves.
        largest: of them; what varies by less than 1e-8 of it only rounds.
    """
    from scipy.linalg import cholesky, solve_triangular
    from sklearn.covariance import ledoit_wolf

    unit = largest or 1.0
    covariance_PP, _ = ledoit_wolf(centred_BP / unit, assume_centered=True)
    size = np.square(row_BP / unit).mean()
    least = _LEAST_SPREAD**2 * size - np.linalg.eigvalsh(covariance_PP)[0]
    mean_variance = np.trace(covariance_PP) / len(covariance_PP)
    floor = max(least, _ROUNDING**2 + 1e-9 * mean_variance)  # features that never vary
    identity_PP = np.eye(len(covariance_PP))
    lower_PP = cholesky(covariance_PP + floor * identity_PP, lower=True)
    return solve_triangular(lower_PP, identity_PP, lower=True) / unit
