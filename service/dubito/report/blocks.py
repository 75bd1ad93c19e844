"""Long arrays gone through a block at a time, with a look between two at whether to go on.

What fits and reports compute of every pass would keep the device for seconds in one call of numpy;
in blocks it gives way to whoever waits, ends at its deadline, and its temporaries stay in the
cache.
"""

from __future__ import annotations

from collections.abc import Iterator

from dubito.report.statistics import Check

_ELEMENTS = 2**18  # numbers in a temporary: 2 MiB, some 10 ms of exp and log


def blocks(length: int, elements_each: int, check: Check) -> Iterator[slice]:
    """Slices of an axis, in order.

    Args:
        length: of the axis.
        elements_each: numbers that go with one step along it.
        check: called before each; whatever it raises ends the work.
    """
    step = max(1, _ELEMENTS // max(elements_each, 1))
    for start in range(0, length, step):
        check()
        yield slice(start, min(start + step, length))
