"""The work that waits for the device, in seconds, and how much of it a newcomer would wait for.

Flow: a job is booked with the seconds that it adds → the cells sum what waits → a newcomer waits
for the cells that go before it, and for what is under way, until the first device is free.

A job that joins likes adds its slope and its part of their call's fixed time, one that begins a
call all of it. What is of a kind that has never run is booked with nothing, and with its seconds
once the first of its kind has run.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from dubito.serving.turns.job import GIVEN, SHORTER, Urgency
from dubito.serving.turns.rates import CallCost, CallCosts, Kind


class WaitingLine(NamedTuple):
    """Where a job stands: in the line of its model, among what is as urgent."""

    urgency: Urgency
    model: str


@dataclass(frozen=True)
class Load:
    """Work that waits, or is under way.

    Args:
        line: where it stands.
        size: its rows x samples, rounded up to a power of 2, as the power.
        seconds: that it will take.
        device: number of the one that it has, or gave way on; None: it waits.
    """

    line: WaitingLine
    size: int
    seconds: float
    device: int | None


@dataclass(frozen=True)
class JobWork:
    """A job's work.

    Args:
        kind: whose cost it has; None: it is not known, and never will be.
        work: rows x samples.
        key: what its likes share; None: it has none.
        most_work: of one call with its likes.
    """

    kind: Kind | None
    work: int
    key: Hashable = None
    most_work: float = 1.0


@dataclass(eq=False)
class Booking:
    """What one job adds to the work that waits, until it begins or goes.

    Args:
        line: where it stands.
        wanted: its work.
        seconds: that it adds.
        is_waiting: whether it counts.
    """

    line: WaitingLine
    wanted: JobWork
    seconds: float = 0.0
    is_waiting: bool = True

    @property
    def cell(self) -> tuple[WaitingLine, int]:
        """What it is summed in."""
        return self.line, size_of(self.wanted.work)


class Backlog:
    """Bookings, and their sums; callers hold a lock.

    Args:
        rates: what work costs.
        weights: of models; of others 1.
        batch_s: that a call of several jobs shall take at most.
        num_devices: that take from what waits.
    """

    def __init__(
        self,
        rates: CallCosts,
        weights: Mapping[str, float],
        batch_s: float,
        num_devices: int = 1,
    ) -> None:
        self._rates = rates
        self._weights = weights
        self._batch_s = batch_s
        self._num_devices = num_devices
        self._seconds: defaultdict[tuple[WaitingLine, int], float] = defaultdict(float)
        self._jobs: Counter[tuple[WaitingLine, int]] = Counter()
        self._alike: Counter[Hashable] = Counter()
        self._unknown: defaultdict[Kind, set[Booking]] = defaultdict(set)

    def book(self, line: WaitingLine, wanted: JobWork) -> Booking:
        """Add a job's work."""
        booking = Booking(line, wanted)
        cost = None if wanted.kind is None else self._rates.cost(wanted.kind)
        if cost is not None:
            booking.seconds = self._seconds_of(wanted, cost)
        elif wanted.kind is not None:
            self._unknown[wanted.kind].add(booking)
        self._add(booking)
        if wanted.key is not None:
            self._alike[wanted.key] += 1
        return booking

    def expect(self, line: WaitingLine, work: int, seconds: float) -> Booking:
        """Add a job whose work is not known yet."""
        booking = Booking(line, JobWork(None, work), seconds)
        self._add(booking)
        return booking

    def remove(self, booking: Booking) -> None:
        """It waits no more; once is enough."""
        if not booking.is_waiting:
            return
        booking.is_waiting = False
        wanted = booking.wanted
        self._subtract(booking)
        if wanted.key is not None:
            self._alike[wanted.key] -= 1
            if not self._alike[wanted.key]:
                del self._alike[wanted.key]
        if wanted.kind is not None and wanted.kind in self._unknown:
            self._unknown[wanted.kind].discard(booking)
            if not self._unknown[wanted.kind]:
                del self._unknown[wanted.kind]

    def learn(self, kind: Kind, work: int, seconds: float) -> None:
        """A call of a kind ran; what waits and was not known is booked now."""
        self._rates.learn(kind, work, seconds)
        cost = self._rates.cost(kind)
        assert cost is not None
        for unknown in [other for other in self._unknown if other[0] == kind[0]]:
            for booking in self._unknown.pop(unknown):
                self._subtract(booking)
                booking.seconds = self._seconds_of(booking.wanted, cost)
                self._add(booking)

    def own_s(self, wanted: JobWork) -> float:
        """Seconds of a job alone; 0 where they are not known."""
        cost = None if wanted.kind is None else self._rates.cost(wanted.kind)
        return 0.0 if cost is None else cost.seconds(wanted.work)

    def total_s(self, under_way: Iterable[Load]) -> float:
        """Seconds until all that waits or is under way is done, but for jobs behind requests."""
        return sum(load.seconds for load in self._loads(under_way)) / self._num_devices

    @property
    def num_jobs(self) -> int:
        """How many wait."""
        return self._jobs.total()

    def ahead_s(
        self, line: WaitingLine, under_way: Sequence[Load], *, work: int = 1, own_s: float = 0.0
    ) -> float:
        """Seconds that a newcomer waits until it begins.

        All that is more urgent goes before it, and of its own model what came first. Other models
        have their turns meanwhile, by their weights. What is much larger, or less urgent and under
        way, gives way, and keeps a part of the device.

        Args:
            line: where it would stand.
            under_way: what has the device, or gave way.
            work: its rows x samples.
            own_s: its seconds.
        """
        if not under_way and not self._seconds:
            return 0.0
        before = passed = 0.0
        busy = [0.0] * self._num_devices
        turns: defaultdict[str, float] = defaultdict(float)
        for load in self._loads(under_way):
            urgency, model = load.line
            if urgency > line.urgency:
                passed += 0.0 if load.device is None else load.seconds
            elif urgency == line.urgency and is_passed(load.size, work):
                passed += load.seconds
            elif load.device is not None:
                busy[load.device] += load.seconds
            elif urgency < line.urgency:
                before += load.seconds
            else:
                turns[model] += load.seconds
        own_line = turns.pop(line.model, 0.0)
        share = (own_line + own_s) / self._weights.get(line.model, 1.0)
        others = (min(s, share * self._weights.get(model, 1.0)) for model, s in turns.items())
        ahead = free_in_s(busy, before + own_line + sum(others))
        return ahead + min(passed / self._num_devices, (ahead + own_s) / GIVEN)

    def _loads(self, under_way: Iterable[Load]) -> Iterable[Load]:
        yield from (load for load in under_way if load.line.urgency is not Urgency.BEHIND)
        for (line, size), seconds in self._seconds.items():
            yield Load(line, size, seconds, None)

    def _seconds_of(self, wanted: JobWork, cost: CallCost) -> float:
        slope_s = cost.slope_s * wanted.work
        if wanted.key is None or not self._alike[wanted.key]:
            return cost.fixed_s + slope_s
        most_work = wanted.most_work
        if cost.slope_s:
            most_work = min(most_work, (self._batch_s - cost.fixed_s) / cost.slope_s)
        return cost.fixed_s * min(1.0, wanted.work / max(most_work, 1.0)) + slope_s

    def _add(self, booking: Booking) -> None:
        self._seconds[booking.cell] += booking.seconds
        self._jobs[booking.cell] += 1

    def _subtract(self, booking: Booking) -> None:
        cell = booking.cell
        self._seconds[cell] -= booking.seconds
        self._jobs[cell] -= 1
        if not self._jobs[cell]:  # and no rounding is left
            del self._jobs[cell], self._seconds[cell]


def free_in_s(busy: Sequence[float], work_s: float) -> float:
    """Seconds until a device is free, when some work has gone to whichever was free first.

    Args:
        busy: seconds that each is busy already.
        work_s: seconds of the work, in parts that are small beside it.
    """
    if len(busy) == 1:
        return busy[0] + work_s
    ascending = sorted(busy)
    for count, next_s in enumerate([*ascending[1:], inf], start=1):
        level_s = (sum(ascending[:count]) + work_s) / count
        if level_s <= next_s:
            break
    return level_s


def size_of(work: int) -> int:
    """The power of 2 that is above some work."""
    return work.bit_length()


def is_passed(size: int, work: int) -> bool:
    """Whether what is so large surely gives way to so much work."""
    return work * SHORTER <= (1 << size) // 2
