"""Sides timed in turn, in one process, each call with rows that no call had before it.

Its job: a ratio of two times means something only where both saw the same machine at the same
time, and where no result could be kept from one call to the next. So sides take turns,

    round 1: a b c   round 2: a b c   ...

and the figure to compare is the minimum, which other load on the machine disturbs least. A side
returns what it computed on the host, so that a device has finished when the clock is read.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

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

    def call(name: str) -> float:
        rows = fresh()
        before = clock()
        sides[name](rows)
        took = clock() - before
        if step is not None:
            step()
        return took

    start = clock()
    for name in sides:
        call(name)
    for done in range(limits.repeats):
        if done >= limits.least and clock() - start > limits.limit_s:
            break
        for name in sides:
            seconds[name].append(call(name))
    return {name: Timing(tuple(times)) for name, times in seconds.items()}
