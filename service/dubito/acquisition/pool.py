"""A pool as a search reads it, and what comes out of it.

Dimensions: k chosen rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubito.acquisition.draws import Indices
from dubito.engine import Inputs


class Pool(Protocol):
    """Rows to choose from; their places from 0 are the indices of a choice."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def take(self, indices: Indices) -> Inputs:
        """Some rows, in the order of the indices.

        Args:
            indices: ascending, each once; neighbours where rows are looked at in turn.
        """
        ...


@dataclass(frozen=True, eq=False)
class ArrayPool:
    """A pool in memory.

    Args:
        inputs: checked rows, by input name.
    """

    inputs: Mapping[str, Tensor]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(next(iter(self.inputs.values())))

    def take(self, indices: Indices) -> Inputs:
        """Return some rows, in the order of the indices."""
        return {name: tensor[indices] for name, tensor in self.inputs.items()}


@dataclass(frozen=True, eq=False)
class Choice:
    """The rows to label next.

    Args:
        indices: (k,) places in the pool, the first choice first.
        scores: (k,) what each was chosen by; for `batchbald` its gain in nats, given those before.
        strategy: its name.
        candidates: rows among which the strategy chose.
    """

    indices: Indices
    scores: NDArray[np.float64]
    strategy: str
    candidates: int
