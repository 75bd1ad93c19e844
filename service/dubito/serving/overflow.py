"""Rows on which the network overflows: null in a reply, with a warning, and nothing made up.

Their figures are not finite; no set, flag or decision follows from that. In arrays (`.npz`, results
of jobs) such a row is NaN, false or empty text.

Dimensions: B rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from dubito.calibration.flags.detector import Detector
from dubito.columns import Column, Flags, Packed


def flagged(detector: Detector, score_B: NDArray[np.float64]) -> Column:
    """The column `ood`; null where the score is no number."""
    is_known_B = ~np.isnan(score_B)
    return {
        "score": score_B,
        "p_value": np.where(is_known_B, detector.p_values(score_B), np.nan),
        "flag": Flags(detector.flags(score_B) & is_known_B, is_known_B),
    }


def decided(
    decisions: Sequence[str], mean: NDArray[np.float64], score_B: NDArray[np.float64]
) -> Column:
    """The column `decision`; null where a mean is not finite, or the score no number.

    Args:
        decisions: one per row.
        mean: (B, ...) of the row.
        score_B: out of distribution.
    """
    is_known_B = np.isfinite(mean).reshape(len(mean), -1).all(axis=1) & ~np.isnan(score_B)
    return [
        decision if known else None for decision, known in zip(decisions, is_known_B, strict=True)
    ]


def warn_of_overflow(columns: Mapping[str, Column], warnings: list[str]) -> None:
    """Add one warning where rows overflow.

    Args:
        columns: of the reply, and those behind them.
        warnings: to add to.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        if all(map(_is_whole, columns.values())):
            return
    overflowing = {
        name: null for name, column in columns.items() if (null := _null_rows(column)).any()
    }
    if overflowing:
        rows = np.logical_or.reduce(list(overflowing.values())).sum()
        names = ", ".join(f"`{name}`" for name in overflowing)
        warnings.append(
            f"{names}: null in {rows} rows (in arrays NaN, false or empty): the network overflows "
            "on these inputs"
        )


def _is_whole(column: Column) -> bool:
    """Whether a column is seen at once to hold no null; the others are looked through."""
    if isinstance(column, np.ndarray):  # a sum is finite only where all its terms are
        return column.dtype.kind != "f" or isfinite(np.add.reduce(column, axis=None))
    if isinstance(column, list):
        return None not in column
    if isinstance(column, Packed):
        return not column.is_null.any()
    if isinstance(column, Mapping):  # as below
        ends = (end for end in column.values() if isinstance(end, np.ndarray))
        return not any(np.isnan(end).any() for end in ends)
    return column is None


def _null_rows(column: Column) -> NDArray[np.bool_]:
    """Which rows hold a null because of an overflow."""
    if isinstance(column, Mapping):  # where an interval has no end, it is infinite
        ends = [end for end in column.values() if isinstance(end, np.ndarray)]
        null = np.isnan(np.stack(ends, axis=-1))
    elif isinstance(column, Packed):
        null = column.is_null
    elif isinstance(column, list):
        null = np.array([value is None for value in column], bool)
    elif isinstance(column, np.ndarray) and column.dtype.kind == "f":
        null = ~np.isfinite(column)
    else:
        return np.zeros(0, bool)
    null_B: NDArray[np.bool_] = np.asarray(null.reshape(len(null), -1).any(axis=1))
    return null_B
