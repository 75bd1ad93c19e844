"""What heads with several distributions per row share: labels, or a class at every position.

    multilabel   L labels, taken as independent: entropies, information, energies are sums over them
    dense        P positions: everything that is said of the row is the mean over them

A variation ratio is a share of votes, and the mean over positions or labels for both.

Dimensions: T samples, B rows, P positions (one axis or more) or labels, C classes; of a label 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubito.engine.calling.columns import Column, Columns
from dubito.engine.calling.prediction import PositionMeasures
from dubito.engine.heads.logits import of_logits
from dubito.engine.heads.scaling import Scaling
from dubito.errors import InputError

Floats = NDArray[np.float64]

GROUPS = 8  # sums of the jackknife; a row of maps has no room for 64
MEASURES = (
    *("predictive_entropy", "expected_entropy", "mutual_information"),
    *("mutual_information_corrected", "variation_ratio"),
)
"""Columns of a row that are made of one figure per position."""
_AT_ONCE_ELEMENTS = 2**20  # of float64: what is made of a few passes over maps is not much larger
_STATE = 48  # numbers of float64 that the sums keep, at most, for each class of each position


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


def folded(columns: Columns, head: str) -> dict[str, Column | PositionMeasures]:
    """Columns with one figure per row in the place of one per position, and those beside them."""
    each = {name: columns[name] for name in MEASURES}
    rows = {name: of_rows(value_BP, head, name) for name, value_BP in each.items()}
    return {**columns, **rows, "positions": PositionMeasures(head, **each)}


def distributions(
    raw: Tensor,
    logits: Callable[[Tensor], Tensor],
    scaling: Scaling,
    of_row: Callable[[Tensor], Tensor],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Probabilities of some passes after the others, and how large their logits are.

    Args:
        raw: declared outputs of some passes, in order of t.
        logits: brings them to (T, B, P, C).
        scaling: of the logits.
        of_row: (T, B, P, 2) of positions in one axis to (T, B, 2).

    Yields:
        Shapes (T, B, P, C) and (T, B, 2): log Σ exp of the logits, and the largest.
    """
    at_once = max(1, _AT_ONCE_ELEMENTS // max(1, raw[:1].numel()))
    for part in torch.split(raw, at_once):
        probs, sizes = of_logits(logits(part), scaling)
        yield probs, of_row(sizes.flatten(2, -2))


def most_rows(numbers: int, budget_bytes: int) -> int:
    """Rows whose sums fit into a budget.

    Args:
        numbers: of the probabilities of a row.
        budget_bytes: of the sums.

    Raises:
        InputError: it does not hold the sums of one row.
    """
    row_bytes = _STATE * 8 * numbers
    if row_bytes > budget_bytes:
        raise InputError(
            f"the memory budget expects the sums over the positions of one row, {row_bytes} bytes, "
            f"to fit {budget_bytes}: raise DUBITO_MEMORY_BUDGET_BYTES to 4 times that, or predict "
            "smaller maps"
        )
    return budget_bytes // row_bytes


def num_probabilities(output_shape: tuple[int, ...], output: str) -> int:
    """Probabilities of one row, of which one logit stands for two."""
    return math.prod(output_shape[1:]) * (2 if output == "sigmoid_logits" else 1)
