"""The factor of many classes, which is never made: what it does to vectors, and what follows.

    B = diag p̄ - Pᵀ P / n      P: probabilities of n rows, (n, C)

Its largest eigenpairs come from a randomised range finder (Halko, Martinsson, Tropp 2011) with
four products; an element [g(B)]_cc of a function of it from Lanczos' recurrence begun at e_c, as a
Gauss quadrature (Golub and Meurant 2010, Matrices, Moments and Quadrature), whatever the rank.

Dimensions: n rows, F features, C classes, R eigenpairs, V vectors, S steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubito.engine.calling.arguments import Check

MOST_PROBS = 2**26  # numbers of P, and
SINGLE_FROM = 2**25  # from so many on they have 32 bits: 256 MiB in either case
MOST_ROWS = 4096
_AT_ONCE = 2**22  # numbers of P that a product takes to 64 bits
_BEYOND = 16  # vectors of the range finder beside the rank
_PRODUCTS = 4
_ENDED = 1e-13  # of a recurrence: relative to its first step

Scores = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class ClassFactor:
    """B of some rows.

    Args:
        probs: their probabilities, (n, C).
        mean: p̄, in float64, (C,).
        features: theirs, (n, F).
        check: called between products; whatever it raises ends them.
    """

    probs: Tensor
    mean: Tensor
    features: Tensor
    check: Check

    @classmethod
    def of(cls, features_nF: Tensor, scores: Scores, num_classes: int, check: Check) -> ClassFactor:
        """That of rows with some features.

        Args:
            features_nF: what goes into the last map.
            scores: gives what comes out, logits.
            num_classes: C.
            check: called between blocks and products; whatever it raises ends them.
        """
        is_single = len(features_nF) * num_classes > SINGLE_FROM
        dtype = torch.float32 if is_single else torch.float64
        probs = torch.empty(len(features_nF), num_classes, dtype=dtype)
        total_C = torch.zeros(num_classes, dtype=torch.float64)
        step = max(1, _AT_ONCE // num_classes)
        for start in range(0, len(features_nF), step):
            check()
            some = scores(features_nF[start : start + step]).double().softmax(-1)
            probs[start : start + step] = some
            total_C += probs[start : start + step].sum(0, dtype=torch.float64)
        return cls(probs, total_C / len(features_nF), features_nF, check)

    @property
    def diagonal(self) -> Tensor:
        """B's diagonal."""
        squares_C = torch.zeros_like(self.mean)
        for some_nC in self._blocks():
            squares_C += some_nC.square().sum(0)
        return self.mean - squares_C / len(self.probs)

    def times(self, vectors_CV: Tensor) -> Tensor:
        """B of some vectors in float64, (C, V)."""
        common_CV = torch.zeros_like(vectors_CV)
        self.check()
        for some_nC in self._blocks():
            common_CV.addmm_(some_nC.T, some_nC @ vectors_CV)
        return self.mean[:, None] * vectors_CV - common_CV / len(self.probs)

    def leading(self, rank: int) -> tuple[Tensor, Tensor]:
        """The largest eigenvalues, (R,), and their vectors, (C, R), nearly; the first is the zero.

        No score changes a probability by which all change alike: of this direction B is 0, and the
        variance the prior's.

        Args:
            rank: R.
        """
        num_classes = len(self.mean)
        generator = torch.Generator().manual_seed(0)
        size = min(num_classes - 1, rank - 1 + _BEYOND)
        vectors_CV = torch.randn(num_classes, size, generator=generator, dtype=torch.float64)
        for _ in range(_PRODUCTS):
            vectors_CV = self.times(_orthonormal(vectors_CV))
        vectors_CV = _orthonormal(vectors_CV)
        values_V, turned_VV = torch.linalg.eigh(vectors_CV.T @ self.times(vectors_CV))
        largest = slice(size - rank + 1, size)
        even_C1 = torch.full((num_classes, 1), num_classes**-0.5, dtype=torch.float64)
        values_R = torch.cat([values_V.new_zeros(1), values_V[largest].clamp_min(0)])
        return values_R, torch.cat([even_C1, vectors_CV @ turned_VV[:, largest]], 1)

    def quadrature(self, classes_V: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Nodes and weights, (V, S): [g(B)]_cc = Σ weight g(node) for each of the classes.

        Args:
            classes_V: their indices.
            steps: S.
        """
        places_V = torch.arange(len(classes_V))
        now_CV = torch.zeros(len(self.mean), len(classes_V), dtype=torch.float64)
        now_CV[classes_V, places_V] = 1
        before_CV, beta_V = torch.zeros_like(now_CV), torch.zeros(len(classes_V)).double()
        matrix_VSS = torch.zeros(len(classes_V), steps, steps, dtype=torch.float64)
        for step in range(steps):
            next_CV = self.times(now_CV) - beta_V * before_CV
            alpha_V = (next_CV * now_CV).sum(0)
            next_CV -= alpha_V * now_CV
            matrix_VSS[:, step, step] = alpha_V
            beta_V = next_CV.norm(dim=0)
            beta_V = beta_V.where(beta_V > _ENDED * matrix_VSS[:, 0, 0], 0.0)
            before_CV, now_CV = now_CV, torch.where(beta_V > 0, next_CV / beta_V, 0.0)
            if step + 1 < steps:
                matrix_VSS[:, step, step + 1] = matrix_VSS[:, step + 1, step] = beta_V
        nodes_VS, turned_VSS = torch.linalg.eigh(matrix_VSS)
        return nodes_VS.clamp_min(0), turned_VSS[:, 0].square()

    def _blocks(self) -> Iterator[Tensor]:
        """P in 64 bits, some rows after the others."""
        step = max(1, _AT_ONCE // len(self.mean))
        for start in range(0, len(self.probs), step):
            yield self.probs[start : start + step].double()


def places_of_factor(num_rows: int, num_classes: int) -> NDArray[np.int64]:
    """The rows that a factor is made of: evenly among all, as many as memory is bound to."""
    most = min(num_rows, MOST_ROWS, MOST_PROBS // num_classes)
    return np.linspace(0, num_rows - 1, most).round().astype(np.int64)


def _orthonormal(vectors_CV: Tensor) -> Tensor:
    """A basis of what vectors span beside the even one, of which their sum over classes is 0."""
    basis: Tensor = torch.linalg.qr(vectors_CV - vectors_CV.mean(0)).Q
    return basis
