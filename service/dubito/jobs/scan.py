"""A pool through the network: block by block on the device, with checkpoints.

Flow: rows of a block → the device, behind all requests → what the kind of job keeps of it → every
few seconds a part in the object store, and a record that names it. Two blocks are on their way at
once, so that the device does not wait for rows.

Dimensions: N rows of the pool, B of a block.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

from dubito.arrays import Arrays
from dubito.jobs.lane import Lane
from dubito.jobs.plan import JobPlan
from dubito.registry import JobFact
from dubito.serving.worker import Check, Job

T = TypeVar("T")

_ON_THEIR_WAY = 2  # blocks
_RATE_MEMORY = 0.5  # weight of the past in the rate


class Kind(Protocol[T]):
    """A kind of job: what is computed of a block, and what is kept of that."""

    def predict(self, block: Mapping[str, Tensor], start: int, check: Check) -> T:
        """On the device's thread: what is computed of rows that begin with row `start`."""

    def keep(self, start: int, stop: int, computed: T) -> None:
        """Take in what was computed of rows `start` to `stop`."""

    def part(self) -> bytes:
        """All that was kept since the last part."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings for the caller."""


@dataclass(frozen=True)
class Scan:
    """One run through a pool.

    Args:
        read: rows from one place to another, checked, by input name.
        total: N.
        block_rows: B.
        lane: to the device.
        checkpoint: writes down a part that ends with a row, at a rate in rows per second.
        every_s: time between two checkpoints.
    """

    read: Callable[[int, int], Mapping[str, Tensor]]
    total: int
    block_rows: int
    lane: Lane
    checkpoint: Callable[[int, bytes, float], None]
    every_s: float

    def run(self, kind: Kind[T], done: int) -> None:
        """Go through all rows from `done` on.

        Raises:
            StoppedError: the job was stopped.
            DubitoError: whatever a block raised.
        """
        waiting: deque[tuple[int, int, Job[T]]] = deque()
        pace = Pace(done)
        try:
            for start in range(done, self.total, self.block_rows):
                stop = min(start + self.block_rows, self.total)
                waiting.append((start, stop, self._submit(kind, start, stop)))
                if len(waiting) == _ON_THEIR_WAY:
                    self._take(kind, waiting, pace)
            while waiting:
                self._take(kind, waiting, pace)
        except BaseException:
            for _, _, job in waiting:
                job.abandon()
            raise

    def _submit(self, kind: Kind[T], start: int, stop: int) -> Job[T]:
        self.lane.check()
        block = self.read(start, stop)
        return self.lane.submit(lambda check: kind.predict(block, start, check))

    def _take(self, kind: Kind[T], waiting: deque[tuple[int, int, Job[T]]], pace: Pace) -> None:
        start, stop, job = waiting[0]
        computed = self.lane.result(job)
        waiting.popleft()
        kind.keep(start, stop, computed)
        if pace.since_s >= self.every_s or stop == self.total:
            self.checkpoint(stop, kind.part(), pace.reached(stop))


class Searchers(Protocol):
    """Others who search in the place of this server's device, such as the workers of a cluster."""

    def search(
        self, fact: JobFact, plan: JobPlan, start: int, total: int
    ) -> Iterator[tuple[int, Arrays]]:
        """What was found in each part, as the state of a search that saw it alone, in order.

        Args:
            fact: the job, a selection.
            plan: its blocks, and how they are computed.
            start: first row that is looked at.
            total: N.

        Yields:
            The row that a part ends with, and what was found in it.
        """


class Pace:
    """Rows per second, as of the last checkpoints.

    Args:
        done: rows so far.
    """

    def __init__(self, done: int) -> None:
        self._done = done
        self._at_s = time.monotonic()
        self._rate: float | None = None

    @property
    def since_s(self) -> float:
        """Time since the last checkpoint."""
        return time.monotonic() - self._at_s

    def reached(self, done: int) -> float:
        """Rows per second, at a checkpoint."""
        rate = (done - self._done) / max(self.since_s, 1e-6)
        past = rate if self._rate is None else self._rate
        self._done, self._at_s = done, time.monotonic()
        self._rate = _RATE_MEMORY * past + (1 - _RATE_MEMORY) * rate
        return self._rate
