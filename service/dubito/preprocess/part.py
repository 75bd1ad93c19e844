"""A kind of part: what it needs of a frame, and the arrays that it makes of that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dubito.preprocess.wanted import Cells
from dubito_nn import InputSpec

P_contra = TypeVar("P_contra", contravariant=True)
Rows = NDArray[np.generic] | Cells


class PartKind(Protocol[P_contra]):
    """Runs the parts of one kind."""

    def needs(self, part: P_contra) -> tuple[str, ...]:
        """Names of the columns that a part reads."""

    def make(
        self,
        part: P_contra,
        columns: Mapping[str, Cells],
        specs: Mapping[str, InputSpec],
        warnings: list[str],
    ) -> dict[str, Rows]:
        """The inputs that a part makes, by name; they are checked by who reads rows.

        Args:
            part: as the bundle declares it.
            columns: those that it needs, by name.
            specs: inputs of the network, by name.
            warnings: to add to.

        Raises:
            InputError: a cell that cannot be used, with its column and row.
        """
