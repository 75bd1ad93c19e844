"""A task that waits for the device, who waits for its answer, and what its likes are.

Dimensions: B rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, Protocol, Self, TypeVar

from torch import Tensor

from dubito.errors import DeadlineError
from dubito.serving.turns.rates import Kind

GIVEN = 4.0
"""Times of its own, that a batch gives to others."""

SHORTER = 4
"""Times the work of what passes, that a batch gives way to it."""

Check = Callable[[], None]
Clock = Callable[[], float]
T = TypeVar("T")


class Urgency(IntEnum):
    """What goes before what."""

    PREDICTIONS = 0
    LABELLED = 1
    """Calibrations, evaluations and selections."""
    BEHIND = 2
    """Long work behind all requests."""


class Died(BaseException):
    """The thread of the device ends: nothing that a task catches."""


class Reserved(Protocol):
    """A place in the queue."""

    work: int

    def begin(self) -> float:
        """It has the device: the seconds that it was booked with."""

    def release(self) -> None:
        """Give it back; more than once does nothing."""


class Rows(Protocol):
    """What is computed of rows, by rows."""

    def cut(self, part: range) -> Self:
        """What was computed of some neighbouring rows."""

    def joined(self, others: Sequence[Self]) -> Self:
        """What was computed of these rows and then of others."""


A = TypeVar("A", bound=Rows)


@dataclass(frozen=True, eq=False)
class Joint(Generic[A, T]):
    """A task whose rows may be computed together with those of its likes, or in parts.

    Args:
        key: tasks with equal ones are likes: `compute` does the same in all of them.
        rows: by input name.
        most_rows: that may be computed at once when others are joined.
        compute: from rows to what is computed of them, row by row the same beside any others.
        finish: from what was computed of the task's own rows to its answer.
    """

    key: Hashable
    rows: Mapping[str, Tensor]
    most_rows: int
    compute: Callable[[Mapping[str, Tensor], Check], A]
    finish: Callable[[A], T]

    @property
    def num_rows(self) -> int:
        """Number of rows, B."""
        return len(next(iter(self.rows.values())))


@dataclass(eq=False)
class Job(Generic[T]):
    """A task in the queue; `future` resolves to what it returns or raises.

    Args:
        task: what to do.
        reservation: given back when there is an answer.
        deadline_s: on the clock, after which nobody needs it; None: never.
        urgency: what it goes before.
        model: whose turn it takes.
        clock: seconds.
        kind: whose cost it has; None: it is not measured.
    """

    task: Callable[[Check], T] | Joint[Rows, T]
    reservation: Reserved
    deadline_s: float | None = None
    urgency: Urgency = Urgency.PREDICTIONS
    model: str = ""
    clock: Clock = time.monotonic
    kind: Kind | None = None
    future: Future[T] = field(default_factory=Future)
    arrived_s: float = field(init=False)
    began_s: float | None = field(init=False, default=None)
    _is_abandoned: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.arrived_s = self.clock()

    @property
    def work(self) -> int:
        """Rows x samples."""
        return self.reservation.work

    @property
    def waited_s(self) -> float:
        """Seconds from its arrival until the device had it; 0 before."""
        return 0.0 if self.began_s is None else self.began_s - self.arrived_s

    def abandon(self) -> None:
        """Nobody waits for the answer any more: drop it, or end it at its next check."""
        self._is_abandoned = True
        if self.future.cancel():
            self.reservation.release()

    def check(self) -> None:
        """End a job that was abandoned or whose deadline passed.

        Raises:
            CancelledError: it was abandoned.
            DeadlineError: its deadline passed.
        """
        if self._is_abandoned:
            raise CancelledError
        if self.deadline_s is not None and self.clock() > self.deadline_s:
            raise DeadlineError(
                "expected an answer before the deadline, got none in time: allow more time with "
                "X-Request-Timeout-Ms, or ask for fewer rows or samples"
            )

    def begin(self) -> bool:
        """Whether it is to be done: not if it was cancelled, or is late, which it is told."""
        self.began_s = self.clock()
        if not self.future.set_running_or_notify_cancel():
            self.reservation.release()
            return False
        return self.is_wanted()

    def is_wanted(self) -> bool:
        """Whether an answer is waited for; the job is told where it is not."""
        if self.future.done():
            return False
        try:
            self.check()
        except BaseException as error:
            self.fail(error)
            return False
        return True

    @property
    def has_answer(self) -> bool:
        """Whether it ended well."""
        future = self.future
        return future.done() and not future.cancelled() and future.exception() is None

    def answer(self, result: T) -> None:
        """Resolve to a result."""
        self.reservation.release()
        self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Resolve to an error."""
        self.reservation.release()
        self.future.set_exception(error)

    def turn_away(self, error: BaseException) -> None:
        """Resolve to an error, wherever the job is; nothing where it has ended."""
        self.reservation.release()
        if self.future.done():
            return
        if self.future.running() or self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)
