"""How likely a row's features are under a Gaussian of each class.

    s_B = -log Σ_k π_k N(y; m_k, C_k)      y: features, whitened by the covariance within classes

A class of few rows has a covariance near that of all classes, which is the unit matrix there:

    C_k = (n_k S_k + (P + 1) I) / (n_k + P + 1)      S_k: of its n_k rows around their mean

so that fewer rows than features will do. It differs from `mahalanobis` where classes differ in how
widely they scatter, and in that several classes count at once.

Dimensions: B rows, P projected features, K classes.
Source: Mukhoti et al. 2023, Deep Deterministic Uncertainty, arXiv:2102.11582; shrinkage as the mean
under an inverse Wishart prior of P + 1 rows, Friedman 1989, Regularized discriminant analysis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from dubito.calibration.flags.packed import PackedArray
from dubito.errors import InputError

MAX_NUMBERS = 2**22  # of all factors together

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClassDensities:
    """A Gaussian of each class, over whitened features.

    Args:
        means: m_k, (K, P).
        factors: L_k⁻¹ with C_k = L_k L_kᵀ, (K, P, P).
        offsets: log π_k - log det L_k, (K,).
    """

    means: PackedArray
    factors: PackedArray
    offsets: PackedArray

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together."""
        shape = self.means.shape
        if len(shape) != 2 or self.factors.shape != (*shape, shape[1]):
            raise InputError("densities of classes expect parts of one size: calibrate again")
        if self.offsets.shape != shape[:1]:
            raise InputError("densities of classes expect an offset a class: calibrate again")

    @classmethod
    def fit(cls, white_BP: Floats, label_B: NDArray[np.int64]) -> ClassDensities:
        """The Gaussians of rows set aside.

        Args:
            white_BP: their features, whitened.
            label_B: their classes.

        Raises:
            InputError: so many classes that the factors take too much room.
        """
        classes, class_B = np.unique(label_B, return_inverse=True)
        from scipy.linalg import cholesky, solve_triangular

        num_features = white_BP.shape[1]
        if len(classes) * num_features**2 > MAX_NUMBERS:
            raise InputError(
                f"`gaussian_density` expects at most {MAX_NUMBERS // num_features**2} classes of"
                f" {num_features} features, got {len(classes)}: use `mahalanobis`"
            )
        unit_PP, means, factors, offsets = np.eye(num_features), [], [], []
        for index in range(len(classes)):
            row_NP = white_BP[class_B == index]
            mean_P = row_NP.mean(axis=0)
            prior = num_features + 1
            spread_PP = (row_NP - mean_P).T @ (row_NP - mean_P)
            lower_PP = cholesky((spread_PP + prior * unit_PP) / (len(row_NP) + prior), lower=True)
            means.append(mean_P)
            factors.append(solve_triangular(lower_PP, unit_PP, lower=True))
            offsets.append(np.log(len(row_NP) / len(white_BP)) - np.log(lower_PP.diagonal()).sum())
        return cls(
            PackedArray.of(np.stack(means)),
            PackedArray.of(np.stack(factors), "float32"),
            PackedArray.of(np.array(offsets)),
        )

    def score(self, white_BP: Floats) -> Floats:
        """The score of each row, in nats, but for what is the same for all rows."""
        parts = zip(self.means.array(), self.factors.array(), self.offsets.array(), strict=True)
        log_KB = [
            offset - 0.5 * np.square((white_BP - mean_P) @ factor_PP.T).sum(axis=1)
            for mean_P, factor_PP, offset in parts
        ]
        score_B: Floats = -logsumexp(np.stack(log_KB), axis=0)
        return score_B
