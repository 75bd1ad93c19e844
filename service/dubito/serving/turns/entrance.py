"""Who may wait for the device, by the time that it would take; whoever came last is refused first.

Flow: `look` before a body, by what is ahead → `expect` once it is there: booked like others of its
line → `enter` once it is decoded: booked with its own work, and refused where that is what makes it
wait too long → the device has it, or `leave`.

What comes when nothing is ahead is never refused. Where times are not known yet, nothing is.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from dubito.errors import QueueFullError
from dubito.serving.turns.backlog import Backlog, Booking, JobWork, Load, WaitingLine
from dubito.serving.turns.batch import AnyJob
from dubito.serving.turns.job import Clock, Joint
from dubito.serving.turns.queue import BATCH_S
from dubito.serving.turns.rates import CallCosts
from dubito.serving.turns.slack import Slack

_LINES = 1000  # whose usual jobs are remembered
_PAST = 0.9  # weight of the past in what is usual
_GROWS = 1.05  # of the least work, at every job, so that it is that of late


@dataclass
class _Usual:
    """The jobs of a line, of late: their seconds, and the least work of one."""

    slack: Slack
    seconds: float
    least_work: float

    def note(self, work: int, seconds: float) -> None:
        """A job came in."""
        self.seconds = _PAST * self.seconds + (1 - _PAST) * seconds
        self.least_work = min(float(work), self.least_work * _GROWS)


@dataclass(eq=False)
class Expected:
    """A request whose body is there.

    Args:
        booking: as others of its line.
        ahead_s: seconds that it was to wait when it was booked.
        since_s: when that was.
        is_usual: whether there were others to go by.
    """

    booking: Booking
    ahead_s: float
    since_s: float
    is_usual: bool


class Entrance:
    """Books what comes, and refuses what would wait too long.

    Args:
        under_way: what has the device, or gave way.
        longest_s: most seconds that a request may wait.
        weights: of models; of others 1.
        clock: seconds.
        num_devices: that take from what waits.

    Attributes:
        refused: how many were refused, by the reason.
    """

    def __init__(
        self,
        under_way: Callable[[], Sequence[Load]],
        longest_s: float,
        weights: Mapping[str, float],
        clock: Clock,
        num_devices: int = 1,
    ) -> None:
        self._under_way = under_way
        self._longest_s = longest_s
        self._clock = clock
        self._backlog = Backlog(CallCosts(), weights, BATCH_S, num_devices)
        self._usual: LRUCache[WaitingLine, _Usual] = LRUCache(_LINES)
        self._lock = threading.Lock()
        self.refused: Counter[str] = Counter()

    def look(self, line: WaitingLine, deadline_s: float | None, beside_s: float = 0.0) -> None:
        """See whether a request of a line may wait, by what is ahead of it.

        Args:
            line: where it would stand.
            deadline_s: on the clock, when it has to be answered; None: never.
            beside_s: seconds that it waits for other things than the device.

        Raises:
            QueueFullError: it would wait too long.
        """
        with self._lock:
            self._look(line, deadline_s, beside_s)

    def expect(
        self, line: WaitingLine, deadline_s: float | None, beside_s: float = 0.0
    ) -> Expected:
        """Look once more, since its body took time, and book it with what is usual.

        Raises:
            QueueFullError: it would wait too long.
        """
        with self._lock:
            ahead_s = self._look(line, deadline_s, beside_s)
            usual = self._usual.get(line)
            work, seconds = (1, 0.0) if usual is None else (int(usual.least_work), usual.seconds)
            booking = self._backlog.expect(line, work, seconds)
            return Expected(booking, ahead_s, self._clock(), usual is not None)

    def enter(self, job: AnyJob, expected: Expected | None) -> Booking:
        """Book a job with its own work.

        Args:
            job: that shall wait.
            expected: as what it was expected; None: it was not.

        Raises:
            QueueFullError: it would wait too long.
        """
        line, wanted = WaitingLine(job.urgency, job.model), _wanted(job)
        with self._lock:
            if expected is not None:
                self._backlog.remove(expected.booking)
            if wanted.kind is not None:
                own_s = self._backlog.own_s(wanted)
                self._check(line, wanted.work, own_s, job.deadline_s, expected)
            booking = self._backlog.book(line, wanted)
            if booking.seconds:
                self._note(line, wanted.work, booking.seconds)
            return booking

    def leave(self, booking: Booking) -> None:
        """It waits no more: the device has it, or nobody waits for its answer."""
        with self._lock:
            self._backlog.remove(booking)

    def learn(self, jobs: Sequence[AnyJob], seconds: float) -> None:
        """A batch had the device for so long."""
        kind, work = jobs[0].kind, sum(job.work for job in jobs)
        if kind is not None and work:
            with self._lock:
                self._backlog.learn(kind, work, seconds)

    def ahead_s(self) -> float:
        """Seconds until all that waits or is under way is done, but for jobs behind requests."""
        with self._lock:
            return self._backlog.total_s(self._under_way())

    def _look(self, line: WaitingLine, deadline_s: float | None, beside_s: float) -> float:
        usual = self._usual.get(line)
        work = 1 if usual is None else int(usual.least_work)
        ahead_s = beside_s + self._backlog.ahead_s(line, self._under_way(), work=work)
        if usual is not None:
            usual.slack.look(ahead_s, usual.seconds)
        self._refuse(ahead_s, 0.0, self._bound_s(usual), deadline_s)
        return ahead_s

    def _check(
        self,
        line: WaitingLine,
        work: int,
        own_s: float,
        deadline_s: float | None,
        expected: Expected | None,
    ) -> None:
        """Refuse what its own work makes wait too long; who came later than it does not count."""
        under_way = self._under_way()
        ahead_s = self._backlog.ahead_s(line, under_way, work=work, own_s=own_s)
        if expected is not None and expected.is_usual:
            least_s = self._backlog.ahead_s(line, under_way, work=expected.booking.wanted.work)
            waits_s = expected.ahead_s - (self._clock() - expected.since_s)
            ahead_s = max(0.0, waits_s) + max(0.0, ahead_s - least_s)
        self._refuse(ahead_s, own_s, self._bound_s(self._usual.get(line)), deadline_s)

    def _refuse(
        self, ahead_s: float, own_s: float, bound_s: float, deadline_s: float | None
    ) -> None:
        if ahead_s <= 0.0:
            return
        if ahead_s > bound_s:
            self.refused["wait"] += 1
            raise QueueFullError(
                f"queue: expected a wait of at most {bound_s:.1f} s, got {ahead_s:.1f} s of work "
                "ahead: send the request again after the time in Retry-After, or to another server",
                retry_after_s=max(ahead_s - bound_s, 1.0),
            )
        if deadline_s is None:
            return
        late_s = ahead_s + own_s - (deadline_s - self._clock())
        if late_s > 0.0:
            self.refused["deadline"] += 1
            raise QueueFullError(
                f"deadline: expected an answer {late_s:.3f} s before it can be made, with "
                f"{ahead_s:.3f} s of work ahead: allow more time with X-Request-Timeout-Ms, or "
                "send the request again after the time in Retry-After",
                retry_after_s=max(min(late_s, ahead_s), 1.0),
            )

    def _bound_s(self, usual: _Usual | None) -> float:
        return self._longest_s if usual is None else usual.slack.bound_s(usual.seconds)

    def _note(self, line: WaitingLine, work: int, seconds: float) -> None:
        usual = self._usual.get(line)
        if usual is None:
            slack = Slack(self._longest_s, self._clock)
            usual = self._usual[line] = _Usual(slack, seconds, float(work))
        usual.note(work, seconds)


def _wanted(job: AnyJob) -> JobWork:
    task, work = job.task, job.work
    if not isinstance(task, Joint):
        return JobWork(job.kind, work)
    most_work = task.most_rows * work / task.num_rows
    return JobWork(job.kind, work, hash(task.key), most_work)
