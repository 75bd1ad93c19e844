"""One thread that owns the device, and the bounded queue before it.

Flow: `reserve` a place (rows x samples) → decode the request → `resize` the place → `submit` a
task → the thread runs it → its future resolves and the place is free again. The task gets a
`Check` to call between chunks: it beats the heart, and ends work that nobody waits for any more.
Whatever a task raises goes into its future; nothing that a task does ends the thread.

Behind the queue is a second lane for long work. Its tasks run when nothing else waits, and each
`Check` that one calls first runs all that has come meanwhile: a request waits for what lies between
two checks, whatever stands in that lane.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import structlog

from dubito.errors import DeadlineError, InputError, QueueFullError, UnavailableError

Check = Callable[[], None]
T = TypeVar("T")

_IDLE_BEAT_S = 0.5
_RATE_MEMORY = 0.8  # weight of the past in the running estimate of work per second
_log = structlog.get_logger(__name__)


class Reservation:
    """A place in the queue, held from before the body is read until the answer is there."""

    def __init__(self, worker: Worker, work: int) -> None:
        self._worker = worker
        self.work = work
        self._is_held = True

    def resize(self, work: int) -> None:
        """Take the place that the request needs, now that its size is known.

        Args:
            work: rows x samples.

        Raises:
            InputError: more than the queue can ever hold.
            QueueFullError: more than is free now; the place held so far is kept.
        """
        self._worker._move(self.work, work)
        self.work = work

    def release(self) -> None:
        """Give the place back; once is enough, more does nothing."""
        if self._is_held:
            self._is_held = False
            self._worker._give_back(self.work)


@dataclass(eq=False)
class Job(Generic[T]):
    """A task in the queue; `future` resolves to what it returns or raises.

    `deadline_s` is on the clock of `time.monotonic`.
    """

    task: Callable[[Check], T]
    reservation: Reservation
    deadline_s: float | None
    future: Future[T] = field(default_factory=Future)
    _is_abandoned: threading.Event = field(default_factory=threading.Event)

    def abandon(self) -> None:
        """Nobody waits for the answer any more: drop it, or end it at its next check."""
        self._is_abandoned.set()
        if self.future.cancel():
            self.reservation.release()

    def check(self) -> None:
        """End a job that was abandoned or whose deadline passed.

        Raises:
            CancelledError: it was abandoned.
            DeadlineError: its deadline passed.
        """
        if self._is_abandoned.is_set():
            raise CancelledError
        if self.deadline_s is not None and time.monotonic() > self.deadline_s:
            raise DeadlineError(
                "expected an answer before the deadline, got none in time: allow more time with "
                "X-Request-Timeout-Ms, or ask for fewer rows or samples"
            )


class Worker:
    """The thread and its queue.

    Args:
        max_queued_work: most rows x samples that may wait or run at once.
    """

    def __init__(self, max_queued_work: int) -> None:
        self._limit = max_queued_work
        self._work = 0
        self._rate: float | None = None
        self._jobs: deque[Job[object]] = deque()
        self._behind: deque[Job[object]] = deque()
        self._changed = threading.Condition()
        self._is_draining = False
        self._beat_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="dubito-worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._beat()
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Take no more work, finish what waits, and end the thread.

        Args:
            timeout_s: time for the work that waits; what is left then is answered with 503.
        """
        with self._changed:
            self._is_draining = True
            left = list(self._behind)
            self._behind.clear()
            self._changed.notify_all()
        self._turn_away(left)
        if not self._thread.is_alive():
            return
        self._thread.join(timeout_s)
        with self._changed:
            left = list(self._jobs)
            self._jobs.clear()
            self._changed.notify_all()
        self._turn_away(left)

    @property
    def heartbeat_age_s(self) -> float:
        """Seconds since the thread last showed that it lives."""
        return time.monotonic() - self._beat_s

    @property
    def is_running(self) -> bool:
        """Whether the thread lives."""
        return self._thread.is_alive()

    @property
    def is_draining(self) -> bool:
        """Whether the worker takes no more work."""
        return self._is_draining

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
            UnavailableError: the worker drains.
        """
        if self._is_draining:
            raise self._unavailable()
        self._move(0, work)
        return Reservation(self, work)

    def submit(
        self,
        reservation: Reservation,
        task: Callable[[Check], T],
        *,
        deadline_s: float | None = None,
    ) -> Job[T]:
        """Queue a task; its place is given back when it has ended.

        Args:
            reservation: the place it takes.
            task: what to run; called with a `Check` for its pauses between chunks.
            deadline_s: time on the clock of `time.monotonic` after which it is not run.

        Raises:
            UnavailableError: the worker drains.
        """
        job = Job(task, reservation, deadline_s)
        with self._changed:
            if self._is_draining:
                raise self._unavailable()
            self._jobs.append(job)  # type: ignore[arg-type]  # Future is invariant
            self._changed.notify_all()
        return job

    def submit_behind(self, task: Callable[[Check], T]) -> Job[T]:
        """Queue a task that gives way to all that is submitted otherwise; it takes no place.

        Args:
            task: what to run; called with a `Check`, at which it gives way.

        Raises:
            UnavailableError: the worker drains.
        """
        job = Job(task, Reservation(self, 0), None)
        with self._changed:
            if self._is_draining:
                raise self._unavailable()
            self._behind.append(job)  # type: ignore[arg-type]  # Future is invariant
            self._changed.notify_all()
        return job

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._behind and not self._is_draining:
                    self._beat()
                    self._changed.wait(_IDLE_BEAT_S)
                if not self._jobs and not self._behind:
                    return
                is_behind = not self._jobs
                job = (self._jobs or self._behind).popleft()
            self._beat()
            self._do(job, self._give_way if is_behind else None)
            del job  # holds the request's arrays

    def _give_way(self) -> None:
        """Do all that waits, within a task of the lane behind.

        Raises:
            UnavailableError: the worker drains.
        """
        while (job := self._next()) is not None:
            self._do(job)
        if self._is_draining:
            raise self._unavailable()

    def _next(self) -> Job[object] | None:
        with self._changed:
            return self._jobs.popleft() if self._jobs else None

    def _do(self, job: Job[object], give_way: Callable[[], None] | None = None) -> None:
        def check() -> None:
            self._beat()
            if give_way is not None:
                give_way()
            job.check()

        began_s = time.monotonic()
        try:
            if not job.future.set_running_or_notify_cancel():
                return
            check()
            result = job.task(check)
        except BaseException as error:  # a request must never end the loop
            job.reservation.release()
            job.future.set_exception(error)
        else:
            if give_way is None:
                self._learn_rate(job.reservation.work, time.monotonic() - began_s)
            job.reservation.release()
            job.future.set_result(result)
        finally:
            job.reservation.release()
            self._beat()

    def _beat(self) -> None:
        self._beat_s = time.monotonic()

    def _learn_rate(self, work: int, took_s: float) -> None:
        rate = work / max(took_s, 1e-6)
        past = rate if self._rate is None else self._rate
        self._rate = _RATE_MEMORY * past + (1 - _RATE_MEMORY) * rate

    def _move(self, held: int, wanted: int) -> None:
        with self._changed:
            if wanted > self._limit:
                raise InputError(
                    f"rows x num_samples: expected at most {self._limit}, got {wanted}: "
                    "send fewer rows at once or ask for fewer samples"
                )
            if wanted > held and self._work - held + wanted > self._limit:
                raise QueueFullError(
                    f"the queue holds at most {self._limit} rows x samples, {self._work} wait, "
                    f"{wanted} more were asked: try again later",
                    retry_after_s=self._retry_after_s(),
                )
            self._work += wanted - held

    def _give_back(self, work: int) -> None:
        with self._changed:
            self._work -= work

    def _retry_after_s(self) -> float:
        if self._rate is None:
            return 1.0
        return min(max(self._work / self._rate, 1.0), 60.0)

    def _turn_away(self, jobs: list[Job[object]]) -> None:
        for job in jobs:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(self._unavailable())
            job.reservation.release()

    def _unavailable(self) -> UnavailableError:
        return UnavailableError(
            "the server is shutting down: send the request to another one or try again later",
            retry_after_s=5.0,
        )
