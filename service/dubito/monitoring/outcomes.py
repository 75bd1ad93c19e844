"""One outcome, the watch over a stream of them, and figures over the last W.

Flow: a prediction that was kept, and its truth → `Outcome` → `Watch.add` → alarms; the last W
outcomes → `Figures`.

Dimensions: W outcomes of a window, D outputs (1 for classes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter

from dubito.monitoring.windows import FALSE_ALARM_RATE, Law, Windows
from dubito.report import expected_calibration_error, reliability_bins

CONFIDENCE = 0.95
_TWO = 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a truth says of a prediction.

    Args:
        is_covered: per output, whether the set or interval holds the truth.
        is_flagged: whether the row was flagged as out of distribution.
        confidence: probability of the most probable class; None for a regression.
        is_right: whether that class is the truth; None for a regression.
    """

    is_covered: tuple[bool, ...]
    is_flagged: bool
    confidence: float | None = None
    is_right: bool | None = None


@dataclass(frozen=True, slots=True)
class Laws:
    """What misses and flags follow where nothing changed."""

    misses: Law
    flags: Law


@dataclass(frozen=True, slots=True)
class Watch:
    """Windows of misses, for every output, and of flags.

    The misses of all D outputs share one false-alarm rate of 1 %, the flags have another.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    misses: tuple[Windows, ...]
    flags: Windows

    @classmethod
    def start(cls, num_outputs: int, size: int) -> Watch:
        """A watch that has seen nothing.

        Args:
            num_outputs: D; 1 for classes.
            size: outcomes of a window.
        """
        return cls((Windows(size),) * num_outputs, Windows(size))

    def add(self, outcome: Outcome, at: str, laws: Laws, next_size: int) -> Watch:
        """Return the watch with one more outcome."""
        rate = FALSE_ALARM_RATE / len(self.misses)
        misses = tuple(
            windows.add(not is_covered, at, laws.misses, rate, next_size)
            for windows, is_covered in zip(self.misses, outcome.is_covered, strict=True)
        )
        flags = self.flags.add(outcome.is_flagged, at, laws.flags, FALSE_ALARM_RATE, next_size)
        return Watch(misses, flags)

    @property
    def alarms(self) -> dict[str, str]:
        """The alarms that are up by name, each with the time since when."""
        since = [windows.alarm_since for windows in self.misses if windows.alarm_since is not None]
        alarms = {"coverage": min(since)} if since else {}
        if self.flags.alarm_since is not None:
            alarms["flag_rate"] = self.flags.alarm_since
        return alarms

    def to_json(self) -> dict[str, object]:
        """Return the watch as plain JSON values."""
        return {"misses": [asdict(windows) for windows in self.misses], "flags": asdict(self.flags)}

    @classmethod
    def from_json(cls, values: object) -> Watch:
        """Return the watch that `to_json` wrote."""
        return TypeAdapter(cls).validate_python(values)


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of outcomes with its exact interval (Clopper-Pearson 1934) at `CONFIDENCE`."""

    observed: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures over the last outcomes.

    Args:
        num_outcomes: how many they are of.
        coverage: per output, the share of sets or intervals that hold the truth.
        flag_rate: share of rows that were flagged.
        accuracy: share of right classes; None for a regression.
        ece: expected calibration error, 15 equal-width bins; None for a regression.
    """

    num_outcomes: int
    coverage: tuple[Rate, ...]
    flag_rate: Rate
    accuracy: float | None
    ece: float | None


def figures(outcomes: Sequence[Outcome]) -> Figures | None:
    """Figures over outcomes; None where there are none."""
    if not outcomes:
        return None
    covered_WD = np.array([outcome.is_covered for outcome in outcomes])
    confidence_W = [outcome.confidence for outcome in outcomes if outcome.confidence is not None]
    right_W = np.array(
        [outcome.is_right for outcome in outcomes if outcome.is_right is not None], dtype=bool
    )
    return Figures(
        num_outcomes=len(outcomes),
        coverage=tuple(_rate(covered_W) for covered_W in covered_WD.T),
        flag_rate=_rate(np.array([outcome.is_flagged for outcome in outcomes])),
        accuracy=float(right_W.mean()) if len(right_W) else None,
        ece=_ece(np.array(confidence_W), right_W) if len(right_W) else None,
    )


def _rate(is_event_W: NDArray[np.bool_]) -> Rate:
    from scipy.stats import binomtest

    count, total = int(is_event_W.sum()), len(is_event_W)
    interval = binomtest(count, total).proportion_ci(CONFIDENCE, "exact")
    return Rate(count / total, float(interval.low), float(interval.high))


def _ece(confidence_W: NDArray[np.float64], is_right_W: NDArray[np.bool_]) -> float:
    """Return the ECE as in a report, from the most probable class alone."""
    places = np.arange(len(confidence_W))
    top_WC = np.zeros((len(confidence_W), _TWO))
    top_WC[places, 0] = confidence_W
    return expected_calibration_error(reliability_bins(top_WC, np.where(is_right_W, 0, 1)))
