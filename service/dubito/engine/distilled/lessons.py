"""What the passes said of some rows, beside what a head reads of them.

Dimensions: B rows, F features, K scores, C classes, D numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubito.engine.calling.columns import Column
from dubito.engine.calling.prediction import Prediction
from dubito_nn import Manifest


@dataclass(frozen=True, eq=False)
class Lessons:
    """Rows as a head reads them, and what it shall say of them.

    Args:
        features: (B, F).
        scores: (B, K).
        mean: (B, C) probabilities, or (B, D) numbers before they are taken to target units.
        spread: (B, C) variance of the probabilities over the passes, or (B, D) of the numbers.
        aleatoric: (B, 1) expected entropy, or (B, D) noise variance.
        epistemic: (B, 1) mutual information without its bias, or as `spread`.
    """

    features: Tensor
    scores: Tensor
    mean: Tensor
    spread: Tensor
    aleatoric: Tensor
    epistemic: Tensor

    @classmethod
    def of(cls, features: Tensor, scores: Tensor, said: Prediction, manifest: Manifest) -> Lessons:
        """What a prediction teaches.

        Args:
            features: (B, F).
            scores: (B, K).
            said: by the passes of these rows, raw.
            manifest: of the network.
        """
        columns: Mapping[str, Column] = vars(said)
        if "epistemic_variance" in columns:
            shift, factor = np.zeros(1), np.ones(1)
            if manifest.target_scale is not None:
                shift, factor = (np.asarray(part) for part in manifest.target_scale)
            spread = columns["epistemic_variance"] / factor**2
            noise = columns["aleatoric_variance"] / factor**2
            figures = ((columns["mean"] - shift) / factor, spread, noise, spread)
        else:
            expected = columns["expected_entropy"][:, None]
            information = columns["mutual_information_corrected"][:, None].clip(0)
            figures = (columns["mean"], columns["variance"], expected, information)
        made = (torch.from_numpy(np.ascontiguousarray(figure)).float() for figure in figures)
        return cls(features.cpu(), scores.cpu(), *made)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.features)

    def __getitem__(self, rows: Tensor) -> Lessons:
        """Some of the rows."""
        return Lessons(*(part[rows] for part in self._all))

    @classmethod
    def joined(cls, parts: Sequence[Lessons]) -> Lessons:
        """The rows of some after those of others."""
        return cls(*(torch.cat(some) for some in zip(*(part._all for part in parts), strict=True)))

    @property
    def size(self) -> int:
        """Numbers in all."""
        return sum(part.numel() for part in self._all)

    def arrays(self, prefix: str) -> dict[str, NDArray[np.float32]]:
        """All of it by name, as it is kept while a fit runs."""
        return {f"{prefix}.{item.name}": getattr(self, item.name).numpy() for item in fields(self)}

    @classmethod
    def from_arrays(cls, stored: Mapping[str, NDArray[np.generic]], prefix: str) -> Lessons:
        """Return what `arrays` gave."""
        parts = (stored[f"{prefix}.{item.name}"].astype(np.float32) for item in fields(cls))
        return cls(*map(torch.from_numpy, parts))

    @property
    def _all(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, item.name) for item in fields(self))
