"""Arrays: numbers of the input's own shape, scaled, and looked at for how far off they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubito.preprocess.part import Rows
from dubito.preprocess.wanted import Cells
from dubito_nn import InputSpec
from dubito_nn.preprocess import ArrayInput
from dubito_nn.preprocess.parts import Seen

FAR = 10.0
"""Widths of the range that was seen, beyond which a number lies far outside of it."""


class ArrayKind:
    """Runs arrays.

    Args:
        seen: ranges that were seen besides the example of the export, by input.
    """

    def __init__(self, seen: Mapping[str, Seen] | None = None) -> None:
        self._seen = seen or {}

    def needs(self, part: ArrayInput) -> tuple[str, ...]:
        """The input's own name."""
        return (str(part.input),)

    def make(
        self,
        part: ArrayInput,
        columns: Mapping[str, Cells],
        specs: Mapping[str, InputSpec],
        warnings: list[str],
    ) -> dict[str, Rows]:
        """X · scale + shift; what is no array of the input's shape is left to who checks rows."""
        name = str(part.input)
        rows, spec = columns[name], specs[name]
        array = _numbers(rows)
        sizes = (array.ndim == len(spec.shape) + 1) if array is not None else False
        if array is None or not sizes or (spec.shape and array.shape[-1] != _last(spec, array)):
            return {name: rows}
        if not _is_identity(part):
            with np.errstate(over="ignore", invalid="ignore"):  # refused by who checks rows
                array = array.astype(np.float64) * np.array(part.scale) + np.array(part.shift)
        if part.seen is not None:
            also = self._seen.get(name)
            warning = _far(name, array, *_wider(part.seen, also), calibrated=also is not None)
            warnings += [] if warning is None else [warning]
        return {name: array}


def _numbers(rows: object) -> NDArray[np.generic] | None:
    """An array of numbers; None where the rows are none."""
    try:
        array = rows.detach().cpu().numpy() if isinstance(rows, Tensor) else np.asarray(rows)
    except (ValueError, OverflowError, TypeError):
        return None
    return array if array.dtype.kind in "fiub" and array.size else None


def _last(spec: InputSpec, array: NDArray[np.generic]) -> int:
    size = spec.shape[-1]
    return size if isinstance(size, int) else array.shape[-1]


def _wider(seen: Seen, also: Seen | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Low and high of both together; (K,) or (1,) each."""
    low, high = map(np.array, seen)
    if also is None or len(also[0]) != len(low):
        return low, high
    return np.minimum(low, also[0]), np.maximum(high, also[1])


def _is_identity(part: ArrayInput) -> bool:
    return part.scale == 1.0 and part.shift == 0.0


def _far(
    name: str,
    array: NDArray[np.generic],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    *,
    calibrated: bool,
) -> str | None:
    """A warning where numbers lie far outside of what was seen; where one was seen, none is."""
    rows_BK = array.reshape(len(array), -1).astype(np.float64, copy=False)
    reach = np.where(high > low, FAR * (high - low), np.inf)
    is_far_BK = (rows_BK < low - reach) | (rows_BK > high + reach)
    if not is_far_BK.any():
        return None
    row, place = (int(index[0]) for index in np.nonzero(is_far_BK))
    at = place if len(low) > 1 else 0
    when = "at export and calibration" if calibrated else "at export"
    return (
        f"input `{name}`: {int(is_far_BK.any(axis=1).sum())} of {len(array)} rows lie far outside"
        f" what the network was shown {when}, such as {rows_BK[row, place]:.4g} in row {row}"
        f" where it was shown {low[at]:.4g} to {high[at]:.4g}: check units and scale"
    )
