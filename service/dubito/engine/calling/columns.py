"""Columns: arrays on the host whose first axis is the row, by their names in a prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Column: TypeAlias = NDArray[np.float64]
Columns: TypeAlias = dict[str, Column]
Sums: TypeAlias = Mapping[str, Column]
"""Sums over the passes by name, on the host."""
Figures: TypeAlias = Callable[[Sums], Columns]
"""What makes columns of sums."""


def left_out(shape: tuple[int, ...]) -> Column:
    """A column that was not made, since nobody asked for it: nan, which takes no memory."""
    return np.broadcast_to(np.nan, shape)


def in_line(columns: Sequence[Column], axis: int = 0) -> Column:
    """Columns of some rows after the others."""
    if all(map(is_left_out, columns)):
        return left_out((sum(map(len, columns)), *columns[0].shape[1:]))
    return np.concatenate(columns, axis=axis)


def is_left_out(column: NDArray[np.generic]) -> bool:
    """Whether a column was not made."""
    return column.ndim > 0 and not any(column.strides)
