"""What the curvature of the loss in the last map is made of: sums over rows, which stream.

    A = E[φ φᵀ]      of features φ
    B = E[diag p - p pᵀ]      of probabilities p; classes only

The Hessian of the cross-entropy in the map's weights is E[(diag p - p pᵀ) ⊗ φ φᵀ], whatever the
labels: rows need none. As the two factors of its Kronecker approximation the sums are small.

Dimensions: B rows, F features, C classes.
Source: Martens and Grosse 2015, arXiv:1503.05671; Daxberger et al. 2021, arXiv:2106.14806.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CurvatureSums:
    """What some rows say of the curvature.

    Args:
        count: rows.
        features: Σ φ, (F,).
        squares: Σ φ φᵀ, (F, F).
        votes: rows for which each class is the likeliest, (C,); of numbers zeros.
        own: Σ p (1 - p) of each class, (C,); of numbers zeros.
        output: Σ (diag p - p pᵀ), (C, C); of numbers, and where pairs are not kept, (0, 0).
    """

    count: Floats
    features: Floats
    squares: Floats
    votes: Floats
    own: Floats
    output: Floats

    @classmethod
    def of_rows(
        cls,
        features_BF: Tensor,
        scores_BC: Tensor,
        *,
        is_classes: bool,
        keeps_pairs: bool = True,
    ) -> CurvatureSums:
        """The sums of some rows.

        Args:
            features_BF: what goes into the last map.
            scores_BC: what comes out; one score is that of the second of two classes.
            is_classes: whether they are logits.
            keeps_pairs: of classes; without them memory grows with C, not with its square.
        """
        phi_BF, scores_BC = features_BF.double(), scores_BC.double()
        num_outputs = scores_BC.shape[1]
        output_CC, votes_C = torch.zeros(0, 0), torch.zeros(num_outputs)
        own_C = torch.zeros(num_outputs)
        if is_classes and num_outputs == 1:
            p_B1 = scores_BC.sigmoid()
            output_CC = (p_B1 * (1 - p_B1)).sum().reshape(1, 1)
            votes_C = torch.stack([(p_B1 < 0.5).sum(), (p_B1 >= 0.5).sum()])
        elif is_classes:
            p_BC = scores_BC.softmax(-1)
            own_C = (p_BC - p_BC.square()).sum(0)
            if keeps_pairs:
                output_CC = p_BC.sum(0).diag() - p_BC.T @ p_BC
            votes_C = p_BC.argmax(-1).bincount(minlength=num_outputs)
        sums = (torch.tensor(float(len(phi_BF))), phi_BF.sum(0), phi_BF.T @ phi_BF)
        return cls(*(part.double().cpu().numpy() for part in (*sums, votes_C, own_C, output_CC)))

    def with_more(self, other: CurvatureSums) -> CurvatureSums:
        """The sums of these rows and of others."""
        pairs = zip(self._all, other._all, strict=True)
        return CurvatureSums(*(mine + theirs for mine, theirs in pairs))

    def arrays(self) -> dict[str, Floats]:
        """The sums by name, as they are kept while a fit runs."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @classmethod
    def from_arrays(cls, stored: Mapping[str, NDArray[np.generic]]) -> CurvatureSums:
        """Return what `arrays` gave."""
        return cls(*(stored[item.name].astype(np.float64) for item in fields(cls)))

    @property
    def _all(self) -> tuple[Floats, ...]:
        return tuple(getattr(self, item.name) for item in fields(self))


@dataclass(frozen=True, eq=False)
class Curvature:
    """The two factors in the frame of their eigenvectors.

    Args:
        rotation: Q_A, in its columns, (F, F).
        of_features: λ, of A, (F,).
        frame: Q_B, in its columns, (C, C).
        of_outputs: μ, of N B, with N the rows that the network was trained on, (C,).
    """

    rotation: Tensor
    of_features: Tensor
    frame: Tensor
    of_outputs: Tensor

    @classmethod
    def of(cls, seen: CurvatureSums, num_training_rows: int) -> Curvature:
        """The factors of some rows, scaled to those of the training."""
        count = float(seen.count)
        features_F, rotation_FF = eigen(seen.squares / count)
        outputs_C, frame_CC = eigen(seen.output / count * num_training_rows)
        return cls(rotation_FF, features_F, frame_CC, outputs_C)


def eigen(matrix: Floats) -> tuple[Tensor, Tensor]:
    """Eigenvalues, none below 0, and eigenvectors of a symmetric matrix."""
    values, vectors = torch.linalg.eigh(torch.from_numpy(matrix))
    return values.clamp_min(0), vectors
