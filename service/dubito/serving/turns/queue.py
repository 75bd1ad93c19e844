"""Jobs that wait, and which of them come next.

What is more urgent first; of equal urgency model by model in turns (`shares.py`); of a model the
job that has waited longest, with all its likes that wait behind it and fit into one batch. A batch
grows while its time, by what its likes took last, stays short: beyond that, joining saves little
and makes the first ones wait for the last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf

from cachetools import LRUCache

from dubito.serving.turns.batch import AnyJob
from dubito.serving.turns.job import Clock, Joint, Urgency
from dubito.serving.turns.shares import Shares

BATCH_S = 0.1
"""That a batch of several shall take at most."""

_FIRST_ROWS = 16  # of a kind that has not been timed
_KINDS = 1000  # whose times are kept


class Queue:
    """Jobs in the order in which they are done; callers hold a lock.

    Args:
        clock: seconds.
        weights: of models.
        delay_s: how long a job that is alone may wait for likes.
    """

    def __init__(
        self, clock: Clock, weights: Mapping[str, float] | None = None, delay_s: float = 0.0
    ) -> None:
        self._clock = clock
        self._delay_s = delay_s
        self._shares = Shares(weights or {})
        self._short: LRUCache[int, int] = LRUCache(_KINDS)  # rows, by the hash: it holds no network
        self._lanes: dict[Urgency, dict[str, deque[AnyJob]]] = {urgency: {} for urgency in Urgency}

    def __len__(self) -> int:
        return sum(len(jobs) for lane in self._lanes.values() for jobs in lane.values())

    @property
    def num_rows(self) -> int:
        """Rows of the predictions that wait."""
        lanes = self._lanes.values()
        return sum(_rows(job) for lane in lanes for jobs in lane.values() for job in jobs)

    def put(self, job: AnyJob) -> None:
        """Add a job at the end."""
        waiting = self._lanes[job.urgency]
        if job.model not in waiting:
            if not self._waits(job.model):
                self._shares.wait(job.model)
            waiting[job.model] = deque()
        waiting[job.model].append(job)

    def take(self, may_run: Callable[[AnyJob], bool], *, is_late: bool = False) -> list[AnyJob]:
        """Take out the jobs that are done next, which are likes; none where none may run.

        Args:
            may_run: whether a job may run now.
            is_late: whether nobody waits for likes any more.
        """
        for urgency in Urgency:
            waiting = self._lanes[urgency]
            for model in self._shares.in_order(waiting):
                batch, is_full = self._batch(waiting[model], may_run)
                if batch and (is_full or is_late or self._ripens_s(batch[0]) <= self._clock()):
                    self._remove(urgency, model, batch)
                    self._shares.take(model)
                    return batch
        return []

    def charge(self, batch: Sequence[AnyJob], seconds: float) -> None:
        """A batch had the device for so long."""
        task, model = batch[0].task, batch[0].model
        if isinstance(task, Joint):
            rows = sum(_rows(job) for job in batch)
            self._short[hash(task.key)] = _short_rows(rows, seconds)
        self._shares.charge(model, seconds)
        if not self._waits(model):
            self._shares.rest(model)

    def ripens_in_s(self, urgencies: Iterable[Urgency] = Urgency) -> float:
        """Seconds until a job has waited long enough for likes; infinite where none waits.

        Args:
            urgencies: of the jobs that count.
        """
        heads = (jobs[0] for urgency in urgencies for jobs in self._lanes[urgency].values())
        return min((self._ripens_s(job) for job in heads), default=inf) - self._clock()

    def clear(self, urgency: Urgency) -> list[AnyJob]:
        """Take out all jobs that are so urgent."""
        waiting, self._lanes[urgency] = self._lanes[urgency], {}
        return [job for jobs in waiting.values() for job in jobs]

    def _ripens_s(self, job: AnyJob) -> float:
        return job.arrived_s + (self._delay_s if isinstance(job.task, Joint) else 0.0)

    def _waits(self, model: str) -> bool:
        return any(model in waiting for waiting in self._lanes.values())

    def _remove(self, urgency: Urgency, model: str, batch: list[AnyJob]) -> None:
        waiting, jobs = self._lanes[urgency], self._lanes[urgency][model]
        taken = set(map(id, batch))
        waiting[model] = deque(job for job in jobs if id(job) not in taken)
        if not waiting[model]:
            del waiting[model]

    def _batch(
        self, jobs: deque[AnyJob], may_run: Callable[[AnyJob], bool]
    ) -> tuple[list[AnyJob], bool]:
        """The first job that may run, with its likes as far as they fit; and whether no more do."""
        first = next((job for job in jobs if may_run(job)), None)
        if first is None or not isinstance(first.task, Joint):
            return [first] if first else [], True
        key, most = first.task.key, first.task.most_rows
        most = min(most, self._short.get(hash(key), _FIRST_ROWS))
        batch, rows = [first], first.task.num_rows
        for job in jobs:
            if rows >= most:
                return batch, True
            task = job.task
            if job is first or not isinstance(task, Joint) or task.key != key or not may_run(job):
                continue
            if rows + task.num_rows > min(most, task.most_rows):
                return batch, True
            batch.append(job)
            rows += task.num_rows
        return batch, rows >= most


def _short_rows(rows: int, seconds: float) -> int:
    """How many rows of a kind make a short batch, by what a batch took.

    One that was short may be followed by one of twice the rows: some of what it took is of calls.
    """
    most = int(min(BATCH_S * rows / max(seconds, 1e-9), 1e9))
    return max(most, 2 * rows) if seconds < BATCH_S else most


def _rows(job: AnyJob) -> int:
    return job.task.num_rows if isinstance(job.task, Joint) else 0
