"""How long a line may be: a burst may wait longer than what never ends.

A line longer than a short one spends its slack, one that is well below earns it again. So a
burst that a calm server takes in is answered in full; under a load that is above what the device
can do the line becomes short within seconds and stays so, since what stands in it serves nobody:
the same number of requests is answered, each of them sooner.

    bound = min(short + slack, longest),    0 ≤ slack ≤ longest - the shortest

Source: Nichols, Jacobson 2012, "Controlling Queue Delay", for the difference between a queue that
is good, since it empties, and one that stands.
"""

from __future__ import annotations

from dubito.serving.turns.job import Clock

SHORT = 0.05
"""The shortest of short lines, as a part of the longest."""

_SHORT_JOBS = 8  # a line of so many jobs is short, however long they take
_SPENT, _EARNED = 0.5, 1.0  # seconds a second


class Slack:
    """What one line may be longer than a short one, and has not spent.

    Args:
        longest_s: seconds of the longest line.
        clock: seconds.
    """

    def __init__(self, longest_s: float, clock: Clock) -> None:
        self._longest_s = longest_s
        self._clock = clock
        self._left_s = self._most_s = (1 - SHORT) * longest_s
        self._seen_s = clock()

    def bound_s(self, job_s: float) -> float:
        """The longest wait that a newcomer may have now.

        Args:
            job_s: seconds of a usual job.
        """
        short_s = self._short_s(job_s)
        return min(short_s + self._left_s, self._longest_s)

    def look(self, ahead_s: float, job_s: float) -> None:
        """A newcomer came.

        Args:
            ahead_s: seconds that it would wait.
            job_s: seconds of a usual job.
        """
        now_s, short_s = self._clock(), self._short_s(job_s)
        passed_s, self._seen_s = now_s - self._seen_s, now_s
        if ahead_s > short_s:
            self._left_s = max(0.0, self._left_s - _SPENT * passed_s)
        elif ahead_s < short_s / 2:
            self._left_s = min(self._most_s, self._left_s + _EARNED * passed_s)

    def _short_s(self, job_s: float) -> float:
        return min(max(SHORT * self._longest_s, _SHORT_JOBS * job_s), self._longest_s)
