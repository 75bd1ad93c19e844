"""A device on a clock that it alone moves, what comes to it, and who is let in.

The queue, the entrance and the turns are the real ones; what the device computes takes the time
that its speed says, in chunks between which others may come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Any

import torch
from torch import Tensor

from dubito.errors import DeadlineError, QueueFullError
from dubito.serving.turns.backlog import Booking, WaitingLine
from dubito.serving.turns.entrance import Entrance, Expected
from dubito.serving.turns.job import Check, Job, Joint, Urgency
from dubito.serving.turns.schedule import Schedule

SAMPLES = 16
MOST_ROWS = 64
CHUNK_S = 0.01


@dataclass
class Echo:
    """What the device makes of rows: themselves."""

    rows: list[int]

    def cut(self, part: range) -> Echo:
        return Echo(self.rows[part.start : part.stop])

    def joined(self, others: Sequence[Echo]) -> Echo:
        return Echo(self.rows + [row for other in others for row in other.rows])


@dataclass(eq=False)
class Place:
    """A place in the queue, as a worker's reservation."""

    entrance: Entrance
    work: int
    booking: Booking | None = None

    def begin(self) -> float:
        assert self.booking is not None
        self.entrance.leave(self.booking)
        return self.booking.seconds

    def release(self) -> None:
        if self.booking is not None:
            self.entrance.leave(self.booking)


@dataclass(eq=False)
class Visit:
    """One request, and what became of it.

    Attributes:
        outcome: the status that it gets; None: it waits.
        retry_after_s: where it was refused.
    """

    came_s: float
    rows: int = 1
    model: str = "model"
    urgency: Urgency = Urgency.PREDICTIONS
    timeout_s: float | None = None
    how: object = "usual"
    outcome: int | None = None
    ended_s: float = 0.0
    retry_after_s: float | None = None
    reason: str = ""
    job: Job[Any] | None = None

    @property
    def took_s(self) -> float:
        return self.ended_s - self.came_s


@dataclass
class Device:
    """A device and its clock.

    Args:
        fixed_s: seconds of every call.
        row_s: seconds of every row of it.
        longest_s: most seconds that a request may wait.
        weights: of models.
    """

    fixed_s: float = 0.005
    row_s: float = 0.005
    longest_s: float = 2.0
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.now_s = 0.0
        self.calls: list[tuple[float, int]] = []
        self.visits: list[Visit] = []
        self.pauses: list[tuple[float, float]] = []
        self._coming: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self.schedule = Schedule(
            self, beat=lambda: None, learn=self._learn, leaves=lambda: None, weights=self.weights
        )
        self.entrance = Entrance(self.schedule.under_way, self.longest_s, self.weights, self)

    def __call__(self) -> float:
        """The time."""
        return self.now_s

    def at(self, seconds: float, do: Callable[[], object]) -> None:
        """Have something done at a time, between two chunks."""
        heappush(self._coming, (seconds, next(self._numbers), do))

    def visit(self, visit: Visit) -> Visit:
        """Have a request come at its time."""
        self.visits.append(visit)
        self.at(visit.came_s, partial(self._come, visit))
        return visit

    def run(self, until_s: float = float("inf")) -> None:
        """Do all that comes."""
        while self.now_s < until_s:
            self._let_in()
            if self.schedule.run_next():
                continue
            if not self._coming:
                return
            self.now_s = max(self.now_s, self._coming[0][0])

    def outcomes(self, begin_s: float = 0.0, end_s: float = float("inf")) -> Counter[int | None]:
        """What became of those that came within a time."""
        return Counter(v.outcome for v in self.came(begin_s, end_s))

    def came(self, begin_s: float, end_s: float) -> list[Visit]:
        """Those that came within a time."""
        return [visit for visit in self.visits if begin_s <= visit.came_s < end_s]

    def _come(self, visit: Visit) -> None:
        line = WaitingLine(visit.urgency, visit.model)
        deadline_s = None if visit.timeout_s is None else self.now_s + visit.timeout_s
        try:
            self.entrance.look(line, deadline_s)
            expected = self.entrance.expect(line, deadline_s)
            self._enter(visit, expected, deadline_s)
        except QueueFullError as error:
            visit.outcome, visit.ended_s = error.status, self.now_s
            visit.retry_after_s, visit.reason = error.retry_after_s, error.detail

    def _enter(self, visit: Visit, expected: Expected, deadline_s: float | None) -> None:
        place = Place(self.entrance, visit.rows * SAMPLES, expected.booking)
        task: Joint[Any, list[int]] = Joint(
            key=(visit.model, visit.urgency, visit.how),
            rows={"x": torch.zeros(visit.rows)},
            most_rows=MOST_ROWS,
            compute=self._compute,
            finish=lambda echo: echo.rows,
        )
        kind = (visit.model, visit.urgency), visit.how
        job: Job[Any] = Job(*(task, place, deadline_s, visit.urgency, visit.model, self), kind=kind)
        visit.job = job
        job.future.add_done_callback(lambda _: self._end(visit))
        try:
            place.booking = self.entrance.enter(job, expected)
        except QueueFullError:
            place.release()
            raise
        with self.schedule.changed:
            self.schedule.put(job)

    def _end(self, visit: Visit) -> None:
        assert visit.job is not None
        future = visit.job.future
        is_late = not future.cancelled() and isinstance(future.exception(), DeadlineError)
        visit.outcome = 0 if future.cancelled() else 504 if is_late else 200
        visit.ended_s = self.now_s

    def _compute(self, inputs: Mapping[str, Tensor], check: Check) -> Echo:
        rows = len(inputs["x"])
        self.calls.append((self.now_s, rows))
        for chunk_s in self._chunks(self.fixed_s + self.row_s * rows):
            self._let_in()
            check()
            self.now_s += chunk_s
            while self.pauses and self.now_s >= self.pauses[0][0]:
                self.now_s += self.pauses.pop(0)[1]
        return Echo(list(range(rows)))

    def _chunks(self, seconds: float) -> Iterator[float]:
        while seconds > 0:
            yield min(seconds, CHUNK_S)
            seconds -= CHUNK_S

    def _let_in(self) -> None:
        while self._coming and self._coming[0][0] <= self.now_s:
            heappop(self._coming)[2]()

    def _learn(self, jobs: Sequence[Job[Any]], seconds: float) -> None:
        self.entrance.learn(jobs, seconds)
