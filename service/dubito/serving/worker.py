"""The bounded queue before the devices, each of which a thread owns (`device_worker.py`).

Flow: `reserve` a place (rows x samples) → decode the request → `resize` the place → `submit` a
task, which is refused where it would wait too long (`turns/entrance.py`) → the first thread that is
free runs it, with others like it → its future resolves and the place is free again. The task gets a
`Check` to call between chunks: it beats the heart, gives way to what is more urgent, and ends work
that nobody waits for any more. Whatever a task raises goes into its future; nothing that a task
does ends a thread.

Behind the queue is a second lane for long work. Its tasks run when nothing else waits, and each
`Check` that one calls first runs all that has come meanwhile: a request waits for what lies between
two checks, whatever stands in that lane.

Where a thread ends all the same, what it ran is turned away and another one takes its place; what
waits is turned away where no other thread is there for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from dubito.errors import DubitoError, InputError, QueueFullError, UnavailableError
from dubito.serving.device_worker import RESTART_S, DeviceWorker, WorkerState
from dubito.serving.turns.backlog import Booking, Load, WaitingLine
from dubito.serving.turns.entrance import Entrance, Expected
from dubito.serving.turns.job import Check, Clock, Job, Joint, Urgency
from dubito.serving.turns.rates import Kind
from dubito.serving.turns.schedule import Schedule

__all__ = ["Check", "Job", "Joint", "Reservation", "Urgency", "Worker"]

T = TypeVar("T")


class Reservation:
    """A place in the queue, held from before the body is read until the answer is there."""

    def __init__(self, worker: Worker, work: int) -> None:
        self._worker = worker
        self.work = work
        self._is_held = True
        self._expected: Expected | None = None
        self._booking: Booking | None = None

    def expect(self, line: WaitingLine, deadline_s: float | None, beside_s: float = 0.0) -> None:
        """Have it booked like others of its line, since its body is there.

        Raises:
            QueueFullError: it would wait too long.
        """
        self._expected = self._worker.entrance.expect(line, deadline_s, beside_s)
        self._booking = self._expected.booking

    def enter(self, job: Job[Any]) -> None:
        """Have it booked with its own work.

        Raises:
            QueueFullError: it would wait too long.
        """
        self._booking = self._worker.entrance.enter(job, self._expected)

    def begin(self) -> float:
        """The device has it: the seconds that it was booked with."""
        if self._booking is None:
            return 0.0
        self._worker.entrance.leave(self._booking)
        return self._booking.seconds

    def resize(self, work: int) -> None:
        """Take the place that the request needs, now that its size is known.

        Args:
            work: rows x samples.

        Raises:
            InputError: more than the queue can ever hold.
            QueueFullError: more than is free now; the place held so far is kept.
            UnavailableError: it was given back, since the caller went away.
        """
        with self._worker._changed:
            self.check()
            self._worker._move(self.work, work)
            self.work = work

    def release(self) -> None:
        """Give the place back; once is enough, more does nothing."""
        with self._worker._changed:
            if self._is_held:
                self._is_held = False
                self._worker._work -= self.work
                if self._booking is not None:
                    self._worker.entrance.leave(self._booking)

    def check(self) -> None:
        """See that it is held.

        Raises:
            UnavailableError: it was given back, since the caller went away.
        """
        if not self._is_held:
            raise UnavailableError("the caller went away before the request was queued")


class Worker:
    """The queue and its threads, one per device.

    Args:
        max_queued_work: most rows x samples that may wait or run at once.
        max_wait_s: longest time that a request may wait for a device.
        weights: shares of the devices that models get while several wait; of others 1.
        delay_s: how long a request may wait for others like it.
        devices: as torch names them.
        clock: seconds.
    """

    def __init__(
        self,
        max_queued_work: int,
        *,
        max_wait_s: float = 2.0,
        weights: Mapping[str, float] | None = None,
        delay_s: float = 0.0,
        devices: Sequence[str] = ("cpu",),
        clock: Clock = time.monotonic,
    ) -> None:
        self._limit = max_queued_work
        self._work = 0
        self._clock = clock
        self._is_draining = False
        self._devices: list[DeviceWorker] = []

        def schedule(beat: Callable[[], None]) -> Schedule:
            return Schedule(
                clock,
                beat=beat,
                learn=lambda jobs, seconds: self.entrance.learn(jobs, seconds),
                leaves=self._leaves,
                weights=weights,
                delay_s=delay_s,
                beside=self._devices[-1].schedule if self._devices else None,
            )

        for device in devices:
            self._devices.append(
                DeviceWorker(
                    device,
                    clock,
                    schedule,
                    is_draining=lambda: self._is_draining,
                    is_alone=lambda: self._are_all_lost,
                )
            )
        first = self._devices[0].schedule
        self._queue, self._changed, self._put_job = first.queue, first.changed, first.put
        self.entrance = Entrance(
            self._under_way, max_wait_s, weights or {}, clock, len(self._devices)
        )

    def start(self) -> None:
        """Start the threads."""
        for device in self._devices:
            device.start()

    def close(self, timeout_s: float) -> None:
        """Take no more work, finish what waits, and end the threads.

        Args:
            timeout_s: time for the work that waits; what is left then is answered with 503.
        """
        with self._changed:
            self._is_draining = True
            left = self._queue.clear(Urgency.BEHIND)
            self._changed.notify_all()
        self._turn_away(left)
        if not any(device.state.is_running for device in self._devices):
            return
        ends_s = time.monotonic() + timeout_s
        for device in self._devices:
            device.join(max(0.0, ends_s - time.monotonic()))
        with self._changed:
            left = [job for urgency in Urgency for job in self._queue.clear(urgency)]
            self._changed.notify_all()
        self._turn_away(left)

    @property
    def states(self) -> tuple[WorkerState, ...]:
        """How the thread of each device is."""
        return tuple(device.state for device in self._devices)

    @property
    def heartbeat_age_s(self) -> float:
        """Seconds since all threads have shown that they live."""
        return max(state.heartbeat_age_s for state in self.states)

    @property
    def is_running(self) -> bool:
        """Whether all threads live and take work."""
        return all(state.is_running for state in self.states)

    @property
    def is_lost(self) -> bool:
        """Whether a thread ended and another one has yet to take its place."""
        return any(device.is_lost for device in self._devices)

    @property
    def is_draining(self) -> bool:
        """Whether the worker takes no more work."""
        return self._is_draining

    @property
    def queued_rows(self) -> int:
        """Rows of predictions that wait, and are not computed yet."""
        with self._changed:
            return self._queue.num_rows

    @property
    def queued_work(self) -> int:
        """Rows x samples that hold a place now."""
        return self._work

    def reserve(self, work: int) -> Reservation:
        """Take a place in the queue.

        Args:
            work: rows x samples.

        Raises:
            InputError: more than the queue can ever hold.
            QueueFullError: more than is free now.
            UnavailableError: the worker drains, or is being replaced.
        """
        if self._is_draining or self._are_all_lost:
            raise self._unavailable()
        self._move(0, work)
        return Reservation(self, work)

    def submit(
        self,
        reservation: Reservation,
        task: Callable[[Check], T] | Joint[Any, T],
        *,
        deadline_s: float | None = None,
        urgency: Urgency = Urgency.PREDICTIONS,
        model: str = "",
        kind: Kind | None = None,
    ) -> Job[T]:
        """Queue a task; its place is given back when it has ended.

        Args:
            reservation: the place it takes.
            task: what to run; called with a `Check` for its pauses between chunks.
            deadline_s: time on the clock of `time.monotonic` after which it is not run.
            urgency: what it goes before.
            model: whose turn it takes.
            kind: whose cost it has; None: it is not measured, and never waits too long.

        Raises:
            QueueFullError: it would wait too long.
            UnavailableError: the worker drains, or is being replaced, or the place was given back.
        """
        job = Job(task, reservation, deadline_s, urgency, model, self._clock, kind)
        with self._changed:
            reservation.check()
            if not self._is_draining:
                reservation.enter(job)
            return self._put(job)

    def submit_behind(self, task: Callable[[Check], T]) -> Job[T]:
        """Queue a task that gives way to all that is submitted otherwise; it takes no place.

        Args:
            task: what to run; called with a `Check`, at which it gives way.

        Raises:
            UnavailableError: the worker drains, or is being replaced.
        """
        return self._put(Job(task, Reservation(self, 0), None, Urgency.BEHIND, clock=self._clock))

    def _put(self, job: Job[T]) -> Job[T]:
        with self._changed:
            if self._is_draining or self._are_all_lost:
                raise self._unavailable()
            self._put_job(job)
        return job

    @property
    def _are_all_lost(self) -> bool:
        return all(device.is_lost for device in self._devices)

    def _under_way(self) -> list[Load]:
        return [load for device in self._devices for load in device.schedule.under_way()]

    def _leaves(self) -> DubitoError | None:
        return self._unavailable() if self._is_draining else None

    def _move(self, held: int, wanted: int) -> None:
        with self._changed:
            if wanted > self._limit:
                raise InputError(
                    f"rows x num_samples: expected at most {self._limit}, got {wanted}: "
                    "send fewer rows at once or ask for fewer samples"
                )
            if wanted > held and self._work - held + wanted > self._limit:
                self.entrance.refused["places"] += 1
                raise QueueFullError(
                    f"the queue holds at most {self._limit} rows x samples, {self._work} wait, "
                    f"{wanted} more were asked: try again later",
                    retry_after_s=max(self.entrance.ahead_s(), 1.0),
                )
            self._work += wanted - held

    def _turn_away(self, jobs: list[Job[Any]]) -> None:
        for job in jobs:
            job.turn_away(self._unavailable())

    def _unavailable(self) -> UnavailableError:
        if not self._is_draining:
            return UnavailableError(
                "the device's worker ended and another takes its place: try again",
                retry_after_s=RESTART_S,
            )
        return UnavailableError(
            "the server is shutting down: send the request to another one or try again later",
            retry_after_s=5.0,
        )
