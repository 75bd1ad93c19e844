"""Batch after batch on a device, each giving way to what is more urgent at its checks.

A batch gives way to what is more urgent and, of its own kind, to jobs of at most a quarter of its
work: what is short passes what is long, and never waits for more than what lies between two checks.
So that long ones come to an end as well, a batch gives away at most `GIVEN` times what it used
itself; a job behind all requests gives way to all.

What gives way stays on the stack below what it gave way to.

Several devices take from one queue: what comes next goes to the first of them that is free. Jobs
behind all requests run on the first device alone, which gives them the same bits after a restart.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from dubito.errors import DubitoError
from dubito.serving.turns.backlog import Load, WaitingLine, size_of
from dubito.serving.turns.batch import AnyJob, run
from dubito.serving.turns.job import GIVEN, SHORTER, Clock, Died, Urgency
from dubito.serving.turns.queue import Queue

_LEAST_CREDIT_S, _MOST_CREDIT_S = -0.25, 0.5
_DEEPEST = 6  # batches on the stack
_OF_REQUESTS = (Urgency.PREDICTIONS, Urgency.LABELLED)


@dataclass(eq=False)
class _Running:
    """A batch that has the device, or gave way.

    Args:
        jobs: of the batch.
        since_s: when it went on last; None: it stands still.
        booked_s: for how long it was expected to have the device; 0: that is not known.
        own_s: for how long it had the device before.
        credit_s: for how long it may give way.
    """

    jobs: Sequence[AnyJob]
    since_s: float | None
    booked_s: float = 0.0
    own_s: float = 0.0
    credit_s: float = 0.0
    longest: int = field(init=False)

    def __post_init__(self) -> None:
        self.longest = max(job.work for job in self.jobs)  # likes of one size that wait pass none

    @property
    def urgency(self) -> Urgency:
        return self.jobs[0].urgency

    def load(self, now_s: float, device: int) -> Load:
        """What is left of it; what is late is believed to take as long again as it is late."""
        since_s = self.since_s  # which its own thread moves
        used_s = self.own_s + (0.0 if since_s is None else now_s - since_s)
        left_s = abs(self.booked_s - used_s) if self.booked_s else 0.0
        line = WaitingLine(self.urgency, self.jobs[0].model)
        return Load(line, size_of(self.longest), left_s, device)

    def stops(self, now_s: float) -> None:
        """It stands still from now on."""
        assert self.since_s is not None
        used_s = now_s - self.since_s
        self.since_s = None
        self.own_s += used_s
        self.credit_s = min(self.credit_s + GIVEN * used_s, _MOST_CREDIT_S)

    def goes_on(self, away_s: float, now_s: float) -> None:
        """It has the device again, after so long."""
        self.credit_s = max(self.credit_s - away_s, _LEAST_CREDIT_S)
        self.since_s = now_s


class Schedule:
    """The queue, and the batches that have a device.

    Args:
        clock: seconds.
        beat: called often by whoever does the work.
        learn: told the jobs and the seconds of every batch with an answer that is no job behind.
        leaves: why a job behind shall end now; None: it may go on.
        weights: of models.
        delay_s: how long a job that is alone may wait for likes.
        beside: that of the device before, with which it has one queue; None: it is the first.

    Attributes:
        changed: the lock of the queue, told of what comes.
        queue: of all devices.
        number: of its device.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        beat: Callable[[], None],
        learn: Callable[[Sequence[AnyJob], float], None],
        leaves: Callable[[], DubitoError | None],
        weights: Mapping[str, float] | None = None,
        delay_s: float = 0.0,
        beside: Schedule | None = None,
    ) -> None:
        self.changed: threading.Condition = (
            threading.Condition() if beside is None else beside.changed
        )
        self.queue: Queue = Queue(clock, weights, delay_s) if beside is None else beside.queue
        self.number: int = 0 if beside is None else beside.number + 1
        self._clock = clock
        self._beat = beat
        self._learn = learn
        self._leaves = leaves
        self._running: list[_Running] = []

    def under_way(self) -> list[Load]:
        """What is left of the batches that have the device, or gave way; asked from any thread."""
        now_s = self._clock()
        return [running.load(now_s, self.number) for running in list(self._running)]

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

    def ripens_in_s(self) -> float:
        """Seconds until something may run here, by what waits now; the caller holds `changed`."""
        return self.queue.ripens_in_s(Urgency if self.number == 0 else _OF_REQUESTS)

    def turn_away(self, error: BaseException, *, is_alone: bool = True) -> None:
        """Resolve all that runs to an error, and what waits if nobody else will do it.

        Args:
            error: what is told.
            is_alone: whether no other device takes from the queue.
        """
        running, self._running = self._running, []
        left: list[AnyJob] = []
        if is_alone:
            with self.changed:
                left = [job for urgency in Urgency for job in self.queue.clear(urgency)]
        for job in [job for batch in running for job in batch.jobs] + left:
            try:
                job.turn_away(error)
            except BaseException:  # of what listens to one; the others are told all the same
                continue

    def _run(self, batch: Sequence[AnyJob]) -> None:
        booked_s = sum(job.reservation.begin() for job in batch)
        running = _Running(batch, self._clock(), booked_s)
        self._running.append(running)
        self._beat()
        try:
            begun = run(batch, partial(self._pause, running))
        except Died:
            raise
        except BaseException as error:  # not of a task: of what is around it
            raise Died from error
        running.stops(self._clock())
        self._running.pop()
        with self.changed:
            self.queue.charge(batch, running.own_s)
        if running.urgency is not Urgency.BEHIND and any(job.has_answer for job in begun):
            self._learn(begun, running.own_s)
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
        if self.number and job.urgency is Urgency.BEHIND:
            return False
        if not self._running:
            return True
        outer = self._running[-1]
        if len(self._running) == _DEEPEST or job.urgency > outer.urgency:
            return False
        if job.urgency < outer.urgency:
            return True
        return job.urgency is not Urgency.BEHIND and job.work * SHORTER <= outer.longest
