"""Rows on their way through the passes, until T or until their standard error is small enough.

Its job: run chunks of passes, hand them to the sums, and with a `tolerance` look at every row now
and then: a row whose standard error is at most the tolerance, over all its outputs, is answered and
leaves the batch.

    looks at T = 32, 48, 64, 96, 128, 192, 256, ...      all multiples of 16

Not before 32, where a stratified draw has two blocks to compare, nor, with a tolerance of
probabilities, before 0.3 / tolerance (of .003: before 128). The rare passes that such a tolerance
hangs on have hardly come by then, so that, of rows that need many more, just those would stop that
have met none. Not where the row's samples are still all equal: a spread of 0 says nothing yet. A
row's figures are made of its own samples, so who else is in the batch does not decide when it
stops.

Dimensions: T samples, B rows, C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from math import inf
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubito.engine.answering.tally import Tally
from dubito.engine.calling.columns import Columns, in_line
from dubito.engine.running.passes import Tile

Places: TypeAlias = NDArray[np.intp]
_FIRST_LOOK = 32
_LEAST_PRODUCT = 0.3  # of passes and tolerance at a look


def joined(parts: Sequence[Columns], samples: Sequence[str] = ()) -> Columns:
    """The columns of all rows.

    Args:
        parts: the columns of some rows after the others.
        samples: names of those whose first axis is T.
    """
    if len(parts) == 1:
        return parts[0]
    return {
        key: in_line([part[key] for part in parts], axis=1 if key in samples else 0)
        for key in parts[0]
    }


def looks(num_samples: int, tolerance: float = inf) -> Iterator[int]:
    """How many samples there are at every look, the last time all of them.

    Args:
        num_samples: T, the most.
        tolerance: of probabilities.
    """
    for doubling in count():
        for number in (_FIRST_LOOK << doubling, (_FIRST_LOOK << doubling) * 3 // 2):
            if number >= num_samples:
                yield num_samples
                return
            if number * tolerance >= _LEAST_PRODUCT:
                yield number


def until(tile: Tile, tally: Tally, num_samples: int, tolerance: float) -> Columns:
    """The columns of rows that each take as many samples as they need.

    Args:
        tile: the rows.
        tally: empty.
        num_samples: T, the most.
        tolerance: bounds the standard error of every output.
    """
    answered: list[tuple[Places, Columns]] = []
    going = [(tile, tally, np.arange(len(tile.rows)))]
    start, bound = 0, tolerance if tally.head.has_probabilities else inf
    for stop in looks(num_samples, bound):
        still = []
        for part, sums, places in going:
            for raw in part.passes(range(start, stop)):
                sums.add(raw)
            done = sums.is_within(tolerance) | (stop == num_samples)
            if done.any():
                index_b = _on(part, np.flatnonzero(done))
                answered.append((places[done], sums.take(index_b).columns()))
            for open_rows in _runs(np.flatnonzero(~done), tile.execution.masks):
                index_b = _on(part, open_rows)
                rest = part if len(open_rows) == len(done) else part.take(index_b)
                still.append((rest, sums.take(index_b), places[open_rows]))
        going, start = still, stop
    order = np.concatenate([places for places, _ in answered]).argsort()
    columns = joined([part for _, part in answered])
    return {name: column[order] for name, column in columns.items()}


def _on(tile: Tile, places: Places) -> Tensor:
    return torch.from_numpy(places).to(tile.execution.device)


def _runs(places: Places, masks: str) -> list[Places]:
    """All places, or where masks hang on the place in the request, each run of neighbours."""
    if masks == "shared" or not len(places):
        return [places] if len(places) else []
    return np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
