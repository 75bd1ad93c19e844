"""One thread off the requests' path: it feeds the drift tests and writes what is kept.

Flow: the device worker puts what it observed into a bounded queue and goes on → the thread takes
all that waits → drift tests → one transaction. What the queue has no room for is dropped and
counted; so is what the database does not take. A batch waits a tenth of a second for company.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from dubito.calibration.record import Calibration
from dubito.errors import DubitoError
from dubito.monitoring.observed import ObservedRows
from dubito.registry.monitoring import CalibrationName, Journal, PredictionFact

_BATCH_S = 0.1
_MOST_AT_ONCE = 1000  # requests of one transaction
_OVERHEAD_BYTES = 1000  # of one waiting request beside its arrays
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, eq=False)
class Observation:
    """What is kept of the rows of one request, and under which calibration."""

    name: CalibrationName
    calibration: Calibration
    request_id: str
    rows: ObservedRows

    @property
    def num_bytes(self) -> int:
        """Approximate memory of the observation while it waits, in bytes."""
        return self.rows.num_bytes + _OVERHEAD_BYTES


@dataclass(frozen=True)
class Counts:
    """Rows of this server since it started: waiting, written and dropped."""

    num_waiting: int
    num_written: int
    num_dropped: int


class Recorder:
    """The queue and its thread.

    Args:
        journal: where predictions are kept.
        feed: called with every observation, in order.
        max_bytes: most bytes that may wait.
        max_rows: most rows that are kept in the database; 0: none is written.
    """

    def __init__(
        self,
        journal: Journal,
        feed: Callable[[Observation], None],
        *,
        max_bytes: int,
        max_rows: int,
    ) -> None:
        self._journal = journal
        self._feed = feed
        self._max_bytes, self._max_rows = max_bytes, max_rows
        self._waiting: deque[Observation] = deque()
        self._changed = threading.Condition()
        self._bytes = self._num_put = self._num_done = 0
        self._num_waiting = self._num_written = self._num_dropped = self._num_unpruned = 0
        self._is_hurried = self._is_closing = self._is_failing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread that feeds and writes."""
        self._thread = threading.Thread(target=self._run, name="dubito-recorder", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write the observations that wait and end the thread."""
        if self._thread is None:
            return
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        self._thread = None

    def put(self, observation: Observation) -> None:
        """Leave an observation for the thread, or drop it where there is no room."""
        num_rows = observation.rows.num_rows
        with self._changed:
            if self._thread is None or self._bytes + observation.num_bytes > self._max_bytes:
                self._num_dropped += num_rows
                return
            self._bytes += observation.num_bytes
            self._num_waiting += num_rows
            self._num_put += 1
            self._waiting.append(observation)
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> None:
        """Wait until all that was put so far is done with, or the time is over."""
        with self._changed:
            if self._thread is None:
                return
            wanted = self._num_put
            self._is_hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._num_done >= wanted, timeout_s)

    @property
    def counts(self) -> Counts:
        """How many rows wait, were written and were dropped since the start."""
        with self._changed:
            return Counts(self._num_waiting, self._num_written, self._num_dropped)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closing)
                self._changed.wait_for(lambda: self._is_hurried or self._is_closing, _BATCH_S)
                if not self._waiting:
                    return
                count = min(len(self._waiting), _MOST_AT_ONCE)
                batch = [self._waiting.popleft() for _ in range(count)]
                self._is_hurried = self._is_hurried and bool(self._waiting)
            num_written = self._do(batch)
            num_rows = sum(observation.rows.num_rows for observation in batch)
            with self._changed:
                self._bytes -= sum(observation.num_bytes for observation in batch)
                self._num_waiting -= num_rows
                self._num_done += len(batch)
                self._num_written += num_written
                if self._max_rows:
                    self._num_dropped += num_rows - num_written
                self._changed.notify_all()

    def _do(self, batch: Sequence[Observation]) -> int:
        """Feed and write; how many rows are written. Whatever fails, the thread goes on."""
        try:
            for observation in batch:
                self._feed(observation)
        except Exception:
            _log.exception("the drift test failed")
        if not self._max_rows:
            return 0
        try:
            return self._write(batch)
        except DubitoError as error:
            if not self._is_failing:
                _log.warning("predictions are not kept for feedback", reason=str(error))
            self._is_failing = True
        except Exception:
            _log.exception("predictions could not be written")
        return 0

    def _write(self, batch: Sequence[Observation]) -> int:
        facts = [
            PredictionFact(
                observation.name,
                observation.request_id,
                observation.rows.num_rows,
                observation.rows.to_bytes(),
            )
            for observation in batch
        ]
        num_rows = sum(fact.num_rows for fact in facts)
        num_gone = self._journal.write(facts)
        self._num_unpruned += num_rows
        if self._num_unpruned > self._max_rows // 20:
            self._journal.prune(self._max_rows)
            self._num_unpruned = 0
        self._is_failing = False
        return num_rows - num_gone
