"""The drift tests of this server: one for every calibration that predictions were made under.

They live in memory and start anew with the process, and with every calibration. A request id that
was seen lately feeds nothing: a request sent again is not a new row.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
from cachetools import LRUCache

from dubito.monitoring.drift import DriftState, DriftTest
from dubito.monitoring.recorder import Observation
from dubito.registry.monitoring import CalibrationName

_MAX_TESTS = 64
_MAX_RECENT = 1024
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class DriftFact:
    """A drift test of this server.

    Args:
        score: name of the score that it follows.
        state: what it knows.
        num_repeated: rows of requests that it has left out as repeated.
        since: when it began.
        alarm_since: when its alarm rang; None where it has not.
    """

    score: str
    state: DriftState
    num_repeated: int
    since: datetime
    alarm_since: datetime | None


@dataclass
class _Followed:
    test: DriftTest
    score: str
    since: datetime
    alarm_since: datetime | None = None
    num_repeated: int = 0
    recent: LRUCache[str, None] = field(default_factory=lambda: LRUCache(_MAX_RECENT))


class Drifts:
    """Tests by calibration; of more than 64 the least recently used is evicted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followed: LRUCache[CalibrationName, _Followed] = LRUCache(_MAX_TESTS)

    def feed(self, observation: Observation) -> None:
        """Take in the scores of a request; a warning is logged when the alarm rings."""
        name = observation.name
        with self._lock:
            followed = self._of(observation)
            is_repeated = observation.request_id in followed.recent
            followed.recent[observation.request_id] = None
            if is_repeated:
                followed.num_repeated += observation.rows.num_rows
                return
            if not followed.test.feed(observation.rows.score.tolist()):
                return
            followed.alarm_since = datetime.now(UTC)
            state = followed.test.state
        _log.warning(
            "the inputs do not look as they did when the model was calibrated",
            model=name.model,
            version=name.version,
            calibration=name.number,
            score=followed.score,
            martingale=state.largest,  # which reached the level; the last row may have lost again
            level=state.level,
            after_rows=state.alarm_after,
        )

    def fact(self, name: CalibrationName) -> DriftFact | None:
        """The test of a calibration; None where no prediction was made under it."""
        with self._lock:
            followed = self._followed.get(name)
            if followed is None:
                return None
            return DriftFact(
                followed.score,
                followed.test.state,
                followed.num_repeated,
                followed.since,
                followed.alarm_since,
            )

    def _of(self, observation: Observation) -> _Followed:
        name, detector = observation.name, observation.calibration.ood
        if name not in self._followed:
            seed = observation.calibration.sampling.seed
            test = DriftTest(detector.held_out, seed, score=detector.score)
            self._followed[name] = _Followed(test, detector.score, datetime.now(UTC))
        return self._followed[name]
