"""The drift test: do the scores of a stream still come from where the held-out scores came from?

Flow: held-out scores of a calibration → scores of predictions → p-values → capital → alarm.

For rows that are exchangeable with the held-out ones, the alarm ever rings with a probability of at
most `FALSE_ALARM_RATE`, however long the stream and however few the held-out rows. It tells that
the scores changed, in either direction, not why. A score that ties with a held-out one counts as
that one; the map is the same for all scores and does not move with the stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, isfinite, log

import numpy as np
from numpy.typing import NDArray

from dubito import ties
from dubito.monitoring.martingale import Jumper
from dubito.monitoring.ranks import Ranks

FALSE_ALARM_RATE = 0.01


@dataclass(frozen=True)
class DriftState:
    """What a drift test knows.

    Args:
        num_scores: scores that it has taken in.
        num_skipped: scores that are not finite, which it has not.
        martingale: capital now.
        largest: largest capital so far.
        level: capital at which the alarm rings, 1 / false-alarm rate.
        alarm_after: scores after which it rang; None where it has not.
    """

    num_scores: int
    num_skipped: int
    martingale: float
    largest: float
    level: float
    alarm_after: int | None


class DriftTest:
    """The test of one stream against the held-out scores of one calibration.

    Args:
        held_out: scores of held-out rows.
        seed: of the numbers that break ties.
        score: name of the score, by which values tie (`dubito.ties`).
    """

    def __init__(self, held_out: Sequence[float], seed: int = 0, score: str = "") -> None:
        self._usual = np.sort([value for value in held_out if isfinite(value)])
        self._least = ties.least_of(score)
        self._ranks = Ranks(self._settled(self._usual), seed)
        self._jumper = Jumper()
        self._level = 1.0 / FALSE_ALARM_RATE
        self._log_level = log(self._level)
        self._largest_log = 0.0
        self._num_scores = self._num_skipped = 0
        self._alarm_after: int | None = None

    def feed(self, scores: Iterable[float]) -> bool:
        """Take in scores in the order of their rows; whether the alarm rang just now."""
        rang = False
        for score in self._settled(np.asarray(list(scores), np.float64)):
            if not isfinite(score):
                self._num_skipped += 1
                continue
            self._num_scores += 1
            log_capital = self._jumper.bet(self._ranks.p_value(score))
            self._largest_log = max(self._largest_log, log_capital)
            if self._alarm_after is None and log_capital >= self._log_level:
                self._alarm_after = self._num_scores
                rang = True
        return rang

    def _settled(self, score_B: NDArray[np.float64]) -> list[float]:
        """Scores that tie with a held-out one as that: one map for held-out and later ones."""
        settled: list[float] = ties.settled(score_B, self._usual, self._least).tolist()
        return settled

    @property
    def state(self) -> DriftState:
        """What the test knows after all scores so far."""
        return DriftState(
            num_scores=self._num_scores,
            num_skipped=self._num_skipped,
            martingale=self._jumper.capital,
            largest=exp(min(self._largest_log, 700.0)),
            level=self._level,
            alarm_after=self._alarm_after,
        )
