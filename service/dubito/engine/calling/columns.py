"""Columns: arrays on the host whose first axis is the row, by their names in a prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Column: TypeAlias = NDArray[np.float64]
Columns: TypeAlias = dict[str, Column]
Sums: TypeAlias = Mapping[str, Column]
"""Sums over the passes by name, on the host."""
Figures: TypeAlias = Callable[[Sums], Columns]
"""What makes columns of sums."""
