"""Sides timed in turn, in one process, each call with rows that no call had before it.

Its job: a ratio of two times means something only where both saw the same machine at the same
time, and where no result could be kept from one call to the next. So sides take turns,

    round 1: a b c   round 2: a b c   ...

and the figure to compare is the minimum, which other load on the machine disturbs least. A side
returns what it computed on the host, so that a device has finished when the clock is read.

Sides in turn find the caches full of what others left there: their times are cold ones. One after
the other, as a server makes them, calls of one side find what it left there itself: warm.

    side a: a a a a   side b: b b b b   ...
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from dubito.errors import InputError

Rows = TypeVar("Rows")


@dataclass(frozen=True, slots=True)
class Timing:
    """The times of the calls of one side.

    Args:
        seconds: of every call, in order; at least one.
    """

    seconds: tuple[float, ...]

    @property
    def minimum_s(self) -> float:
        """The figure to compare with another side's."""
        return min(self.seconds)

    @property
    def median_s(self) -> float:
        """The median, which is what a caller may expect."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class Limits:
    """When the rounds end.

    Args:
        repeats: rounds at most.
        least: rounds at least, however long they take.
        limit_s: no further round is begun after so many seconds.

    Raises:
        InputError: for a number of rounds below 1.
    """

    repeats: int = 7
    least: int = 3
    limit_s: float = 60.0

    def __post_init__(self) -> None:
        if min(self.repeats, self.least) < 1:
            raise InputError(
                f"timing expects at least 1 round, got {min(self.repeats, self.least)}: "
                "raise the number of repeats"
            )


def interleaved(
    sides: Mapping[str, Callable[[Rows], object]],
    fresh: Callable[[], Rows],
    limits: Limits | None = None,
    *,
    step: Callable[[], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time sides in turn, after one call of each that does not count.

    Args:
        sides: what is called, by name.
        fresh: gives the rows of the next call.
        limits: when the rounds end.
        step: called after every call.
        clock: in seconds.
    """
    limits = Limits() if limits is None else limits
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    call = _Calls(sides, fresh, step, clock)
    start = clock()
    for name in sides:
        call(name)
    for done in range(limits.repeats):
        if done >= limits.least and clock() - start > limits.limit_s:
            break
        for name in sides:
            seconds[name].append(call(name))
    return {name: Timing(tuple(times)) for name, times in seconds.items()}


def one_after_the_other(
    sides: Mapping[str, Callable[[Rows], object]],
    fresh: Callable[[], Rows],
    limits: Limits | None = None,
    *,
    step: Callable[[], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time all calls of one side, then all of the next; arguments as of `interleaved`.

    One call of each side does not count, and each side has its share of the limit.
    """
    limits = Limits() if limits is None else limits
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    call = _Calls(sides, fresh, step, clock)
    for name, times in seconds.items():
        start = clock()
        call(name)
        while len(times) < limits.repeats:
            is_late = clock() - start > limits.limit_s / len(sides)
            if is_late and len(times) >= limits.least:
                break
            times.append(call(name))
    return {name: Timing(tuple(times)) for name, times in seconds.items()}


@dataclass(frozen=True)
class _Calls(Generic[Rows]):
    """Calls by name, each with fresh rows, and how long it took."""

    sides: Mapping[str, Callable[[Rows], object]]
    fresh: Callable[[], Rows]
    step: Callable[[], None] | None
    clock: Callable[[], float]

    def __call__(self, name: str) -> float:
        rows = self.fresh()
        before = self.clock()
        self.sides[name](rows)
        took = self.clock() - before
        if self.step is not None:
            self.step()
        return took
