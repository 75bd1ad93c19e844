"""One figure of a row, made of those of its labels or positions.

    multilabel   L labels, taken as independent: entropies, information, energies are sums over them
    dense        P positions: everything that is said of the row is the mean over them

A variation ratio is a share of votes, and the mean over positions or labels for both.

Dimensions: B rows, P positions (one axis or more) or labels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MEASURES = (
    *("predictive_entropy", "expected_entropy", "mutual_information"),
    *("mutual_information_corrected", "variation_ratio"),
)
"""Columns of a row that are made of one figure per position."""


def of_rows(value_BP: Floats, head: str, name: str = "") -> Floats:
    """One number per row of one number per position, (B, P) -> (B,).

    Args:
        value_BP: one axis of positions or more.
        head: `multilabel` takes the sum, `dense` the mean.
        name: of the column; a variation ratio is a mean for both.
    """
    flat_BP = value_BP.reshape(len(value_BP), -1)
    is_sum = head == "multilabel" and name != "variation_ratio"
    row_B: Floats = flat_BP.sum(axis=1) if is_sum else flat_BP.mean(axis=1)
    return row_B
