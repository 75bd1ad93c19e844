"""How many inferences each version made since the server started, and how long they took.

Flow: a request starts a `Course` → it is marked as its rows are read, its job is done and its
reply is written → it succeeds or fails → sums per version. Times are in nanoseconds.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Spent:
    """How often something was done, and how long it took in all, in nanoseconds."""

    count: int = 0
    ns: int = 0

    def plus(self, ns: int) -> Spent:
        """The same with once more."""
        return Spent(self.count + 1, self.ns + ns)


@dataclass(frozen=True)
class InferenceTally:
    """What one version did.

    Args:
        last_s: when the last inference ended, in seconds since 1970; 0: never.
        num_rows: rows of all that succeeded.
        success: inferences that were answered, from body to reply.
        fail: those that were not.
        reading: rows from bytes.
        waiting: for the device.
        running: the work of the device.
        writing: the reply.
    """

    last_s: float = 0.0
    num_rows: int = 0
    success: Spent = Spent()
    fail: Spent = Spent()
    reading: Spent = Spent()
    waiting: Spent = Spent()
    running: Spent = Spent()
    writing: Spent = Spent()


@dataclass
class Course:
    """The times of one inference: of its start, and of what it was marked with.

    Attributes:
        waited_s: for the device.
    """

    waited_s: float = 0.0
    marks: list[int] = field(default_factory=lambda: [time.perf_counter_ns()])

    def mark(self) -> None:
        """The next part begins: running, then writing, then nothing more."""
        self.marks.append(time.perf_counter_ns())


class Inferences:
    """Sums per version, by model and number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tallies: defaultdict[tuple[str, int], InferenceTally] = defaultdict(InferenceTally)

    def succeeded(self, model: str, number: int, course: Course, num_rows: int) -> None:
        """Count an inference that was answered; its course has all three marks."""
        began, read, ran, written = course.marks
        waited = min(int(course.waited_s * 1e9), ran - read)
        with self._lock:
            past = self._tallies[model, number]
            self._tallies[model, number] = replace(
                past,
                last_s=time.time(),
                num_rows=past.num_rows + num_rows,
                success=past.success.plus(written - began),
                reading=past.reading.plus(read - began),
                waiting=past.waiting.plus(waited),
                running=past.running.plus(ran - read - waited),
                writing=past.writing.plus(written - ran),
            )

    def failed(self, model: str, number: int, course: Course) -> None:
        """Count an inference that was refused, or could not be made."""
        took = time.perf_counter_ns() - course.marks[0]
        with self._lock:
            past = self._tallies[model, number]
            self._tallies[model, number] = replace(
                past, last_s=time.time(), fail=past.fail.plus(took)
            )

    def tally(self, model: str, number: int) -> InferenceTally:
        """What one version did."""
        with self._lock:
            return self._tallies.get((model, number), InferenceTally())
