"""Jobs that wait, and which of them come next.

What is more urgent first; of equal urgency model by model in turns (`shares.py`); of a model the
job that has waited longest, with all its likes that wait behind it and fit into one batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from math import inf

from dubito.serving.turns.batch import AnyJob
from dubito.serving.turns.job import Clock, Joint, Urgency
from dubito.serving.turns.shares import Shares


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
        self._lanes: dict[Urgency, dict[str, deque[AnyJob]]] = {urgency: {} for urgency in Urgency}

    def __len__(self) -> int:
        return sum(len(jobs) for lane in self._lanes.values() for jobs in lane.values())

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
                batch, is_full = _batch(waiting[model], may_run)
                if batch and (is_full or is_late or self._ripens_s(batch[0]) <= self._clock()):
                    self._remove(urgency, model, batch)
                    self._shares.take(model)
                    return batch
        return []

    def charge(self, job: AnyJob, seconds: float) -> None:
        """A batch with that job had the device for so long."""
        self._shares.charge(job.model, seconds)
        if not self._waits(job.model):
            self._shares.rest(job.model)

    def ripens_in_s(self) -> float:
        """Seconds until a job has waited long enough for likes; infinite where none waits."""
        heads = (jobs[0] for lane in self._lanes.values() for jobs in lane.values())
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


def _batch(jobs: deque[AnyJob], may_run: Callable[[AnyJob], bool]) -> tuple[list[AnyJob], bool]:
    """The first job that may run, with its likes as far as they fit; and whether no more do."""
    batch: list[AnyJob] = []
    rows = most = 0
    key = None
    for job in jobs:
        task = job.task
        if not batch:
            if not may_run(job):
                continue
            batch.append(job)
            if not isinstance(task, Joint):
                return batch, True
            rows, most, key = task.num_rows, task.most_rows, task.key
        elif isinstance(task, Joint) and task.key == key and may_run(job):
            if rows + task.num_rows > min(most, task.most_rows):
                return batch, True
            batch.append(job)
            rows += task.num_rows
        if rows >= most:
            return batch, True
    return batch, False
