"""Batch after batch on the device, each giving way to what is more urgent at its checks.

A batch gives way to what is more urgent and, of its own kind, to jobs of at most a quarter of its
work: what is short passes what is long, and never waits for more than what lies between two checks.
So that long ones come to an end as well, a batch gives away at most `_GIVEN` times what it used
itself; a job behind all requests gives way to all.

What gives way stays on the stack below what it gave way to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from dubito.errors import DubitoError
from dubito.serving.turns.batch import AnyJob, run
from dubito.serving.turns.job import Clock, Died, Urgency
from dubito.serving.turns.queue import Queue

_GIVEN = 4.0  # times of its own, that a batch gives to others
_LEAST_CREDIT_S, _MOST_CREDIT_S = -0.25, 0.5
_SHORTER = 4  # times the work of what passes
_DEEPEST = 6  # batches on the stack


@dataclass(eq=False)
class _Running:
    """A batch that has the device, or gave way.

    Args:
        jobs: of the batch.
        since_s: when it went on last.
        own_s: for how long it had the device before.
        credit_s: for how long it may give way.
    """

    jobs: Sequence[AnyJob]
    since_s: float
    own_s: float = 0.0
    credit_s: float = 0.0
    work: int = field(init=False)
    longest: int = field(init=False)

    def __post_init__(self) -> None:
        self.work = sum(job.work for job in self.jobs)
        self.longest = max(job.work for job in self.jobs)  # its likes that wait pass none of these

    @property
    def urgency(self) -> Urgency:
        return self.jobs[0].urgency

    def stops(self, now_s: float) -> None:
        """It stands still from now on."""
        used_s = now_s - self.since_s
        self.own_s += used_s
        self.credit_s = min(self.credit_s + _GIVEN * used_s, _MOST_CREDIT_S)

    def goes_on(self, away_s: float, now_s: float) -> None:
        """It has the device again, after so long."""
        self.credit_s = max(self.credit_s - away_s, _LEAST_CREDIT_S)
        self.since_s = now_s


class Schedule:
    """The queue, and the batches that have the device.

    Args:
        clock: seconds.
        beat: called often by whoever does the work.
        learn: told the work and the seconds of every batch that is no job behind.
        leaves: why a job behind shall end now; None: it may go on.
        weights: of models.
        delay_s: how long a job that is alone may wait for likes.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        beat: Callable[[], None],
        learn: Callable[[int, float], None],
        leaves: Callable[[], DubitoError | None],
        weights: Mapping[str, float] | None = None,
        delay_s: float = 0.0,
    ) -> None:
        self.changed = threading.Condition()
        self.queue = Queue(clock, weights, delay_s)
        self._clock = clock
        self._beat = beat
        self._learn = learn
        self._leaves = leaves
        self._running: list[_Running] = []

    def put(self, job: AnyJob) -> None:
        """Add a job; the caller holds `changed`."""
        self.queue.put(job)
        self.changed.notify_all()

    def run_next(self) -> bool:
        """Do what comes next, if anything may run now.

        Raises:
            Died: the thread ends; see `turn_away`.
        """
        with self.changed:
            batch = self.queue.take(self._may_run, is_late=self._leaves() is not None)
        if batch:
            self._run(batch)
        return bool(batch)

    def turn_away(self, error: BaseException) -> None:
        """Resolve all that runs or waits to an error, since nobody will do it any more."""
        running, self._running = self._running, []
        with self.changed:
            left = [job for urgency in Urgency for job in self.queue.clear(urgency)]
        for job in [job for batch in running for job in batch.jobs] + left:
            try:
                job.turn_away(error)
            except BaseException:  # of what listens to one; the others are told all the same
                continue

    def _run(self, batch: Sequence[AnyJob]) -> None:
        running = _Running(batch, self._clock())
        self._running.append(running)
        self._beat()
        try:
            run(batch, partial(self._pause, running))
        except Died:
            raise
        except BaseException as error:  # not of a task: of what is around it
            raise Died from error
        running.stops(self._clock())
        self._running.pop()
        with self.changed:
            self.queue.charge(batch, running.own_s)
        if running.urgency is not Urgency.BEHIND:
            self._learn(running.work, running.own_s)
        self._beat()

    def _pause(self, running: _Running) -> None:
        """Give way, within a batch.

        Raises:
            DubitoError: a job behind shall end.
            Died: the thread ends.
        """
        self._beat()
        left_s = self._clock()
        running.stops(left_s)
        is_behind = running.urgency is Urgency.BEHIND
        while is_behind or running.credit_s > self._clock() - left_s:
            if not self.run_next():
                break
        back_s = self._clock()
        running.goes_on(back_s - left_s, back_s)
        if is_behind and (reason := self._leaves()) is not None:
            raise reason

    def _may_run(self, job: AnyJob) -> bool:
        if not self._running:
            return True
        outer = self._running[-1]
        if len(self._running) == _DEEPEST or job.urgency > outer.urgency:
            return False
        if job.urgency < outer.urgency:
            return True
        return job.urgency is not Urgency.BEHIND and job.work * _SHORTER <= outer.longest
