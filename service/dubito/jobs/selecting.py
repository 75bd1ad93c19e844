"""A selection from a stored pool: a search that goes on after a restart.

Dimensions: N rows of the pool, B of a block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubito.acquisition import Choice, Search
from dubito.arrays import Arrays, write_npz
from dubito.engine import Inputs
from dubito.engine.network import Behind
from dubito.jobs.lane import Lane
from dubito.pools import PoolData
from dubito.serving.worker import Check


class Selecting:
    """A selection as a kind of job: it keeps the best rows so far.

    Args:
        search: pinned to its plan.
        data: the pool.
    """

    def __init__(self, search: Search, data: PoolData) -> None:
        self._search = search
        self._data = data
        self._state: Arrays = search.state()

    @property
    def rows_to_scan(self) -> int:
        """Rows that are looked at before the choice; none where all are compared anyway."""
        return 0 if self._search.is_scanned else len(self._data)

    def restore(self, state: Arrays) -> None:
        """Go on from the last part."""
        self._search.restore(state)

    def predict(self, block: Mapping[str, Tensor], start: int, check: Check) -> Arrays:
        """On the device's thread: the next rows are looked at.

        Args:
            block: rows that were made already; empty: the search reads them itself.
            start: the first of them.
            check: gives way to what is more urgent.
        """
        pool = _Made(self._data, block, start) if block else self._data
        self._search.step(pool, check)
        return self._search.state()

    def keep(self, start: int, stop: int, computed: Arrays) -> None:
        """Take in how the search stands at row `stop`; it may be further by now."""
        self._state = computed

    def absorb(self, found: Arrays) -> None:
        """Take in what another search found in the next rows."""
        self._search.absorb(found)
        self._state = self._search.state()

    def part(self) -> bytes:
        """The best rows so far."""
        return write_npz(self._state)

    def finish(self, lane: Lane) -> Choice:
        """The chosen rows: the network runs on the device's thread, all else on the job's own."""
        self._search.network = Behind(self._search.network, lane.run)
        return self._search.finish(self._data, lane.check)

    @property
    def warnings(self) -> tuple[str, ...]:
        """A selection has none."""
        return ()


@dataclass(frozen=True)
class _Made:
    """A pool of which some rows were made already, off the device's thread."""

    data: PoolData
    block: Mapping[str, Tensor]
    start: int

    def __len__(self) -> int:
        return len(self.data)

    def take(self, indices: NDArray[np.int64]) -> Inputs:
        """Some rows."""
        count = len(next(iter(self.block.values())))
        is_block = np.array_equal(indices, np.arange(self.start, self.start + count))
        return self.block if is_block else self.data.take(indices)
