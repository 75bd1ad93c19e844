"""A figure as a function of how often each row counts, and its interval by resampling rows.

Flow: columns and truths → `Statistic` per figure → `figures` (every row counts once) and
`intervals` (rows count as resamples drew them). One function gives both, so an interval is always
one of the figure beside it. Means are one matrix product for all resamples; `scipy.stats.bootstrap`
would draw rows anew for every figure, which costs more and loses that figures belong together.

An interval tells what another draw of as many rows would give. It does not hold the spread over
the seeds of the masks, nor that of the rows which a calibration was fitted on.

Dimensions: R resamples, B rows, N out-of-distribution rows.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13; Davison and
Hinkley 1997, "Bootstrap Methods and their Application", section 5.2 (basic interval); Bröcker and
Smith 2007, Weather and Forecasting 22:651-661 (what calibration errors are by chance).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Report: TypeAlias = dict[str, float | None]
Interval: TypeAlias = tuple[float, float]
Intervals: TypeAlias = dict[str, Interval | None]
Check: TypeAlias = Callable[[], None]

NUM_RESAMPLES = 400
LEVEL = 0.95
_RESAMPLES_AT_ONCE_ELEMENTS = 2**19  # numbers in one block of counts: 4 MiB stay near the cache


@dataclass(frozen=True, slots=True)
class RowCounts:
    """How often each row (R, B) and each strange row (R, N) counts in each resample."""

    rows: Floats
    strange: Floats

    @classmethod
    def once(cls, num_rows: int, num_strange: int = 0) -> RowCounts:
        """Return the counts by which every row counts once, R = 1."""
        return cls(np.ones((1, num_rows)), np.ones((1, num_strange)))


@dataclass(frozen=True, slots=True)
class Statistic:
    """A figure of the rows.

    Args:
        value: counts → one number per resample, shape (R,).
        by_chance: for an error of calibration, draws of what it would be if every probability were
            right. It lies above the truth by chance, and its resamples above it again, so its
            interval is the basic one, [2θ - q_high, 2θ - q_low], in place of percentiles
            [q_low, q_high]; and it begins at 0 where chance alone gives as much in 1 of 20 draws.
        is_dear: whether there are too many numbers to resample; it gets no interval then.
        is_upward: whether it lies above the truth by chance, though nobody knows by how much: the
            basic interval too.
    """

    value: Callable[[RowCounts], Floats]
    by_chance: Callable[[np.random.Generator], Floats] | None = None
    is_dear: bool = False
    is_upward: bool = False


Statistics: TypeAlias = Mapping[str, Statistic | None]


def no_check() -> None:
    """Let the work go on: nobody asks for its end."""


def mean_of(value_B: Floats) -> Statistic:
    """The mean of one number per row."""
    return Statistic(lambda counts: _mean(value_B, counts.rows))


def root_mean_of(square_B: Floats) -> Statistic:
    """The root of the mean of one number per row."""
    return Statistic(lambda counts: np.sqrt(_mean(square_B, counts.rows)))


def figures(statistics: Statistics, num_rows: int, num_strange: int = 0) -> Report:
    """Each figure; None where it is not defined or not finite."""
    once = RowCounts.once(num_rows, num_strange)
    return {
        name: None if statistic is None else finite(statistic.value(once)[0])
        for name, statistic in statistics.items()
    }


def intervals(
    statistics: Statistics,
    report: Report,
    num_rows: int,
    num_strange: int = 0,
    *,
    seed: int = 0,
    check: Check = no_check,
) -> Intervals:
    """The 95 % interval of each figure, by name; None where the figure is, or for one row.

    Args:
        statistics: the figures as functions of counts.
        report: their values.
        num_rows: B.
        num_strange: N; these rows are drawn apart from the others.
        seed: of the resamples; the same seed draws the same rows.
        check: called between blocks of resamples; whatever it raises ends them.
    """
    asked = {
        name: statistic
        for name, statistic in statistics.items()
        if statistic is not None
        and not statistic.is_dear
        and report[name] is not None
        and num_rows > 1
    }
    drawn: dict[str, list[Floats]] = {name: [] for name in asked}
    for counts in _resamples(num_rows, num_strange, seed) if asked else ():
        check()
        for name, statistic in asked.items():
            drawn[name].append(statistic.value(counts))
    interval_of: Intervals = dict.fromkeys(statistics)
    for name, statistic in asked.items():
        check()
        interval_of[name] = _interval(
            np.concatenate(drawn[name]), report[name] or 0.0, statistic, seed
        )
    return interval_of


def finite(value: float | np.floating) -> float | None:
    """The number, or None where it is not finite."""
    return float(value) if isfinite(value) else None


def _mean(value_B: Floats, row_RB: Floats) -> Floats:
    # An infinite value that no resample drew would give 0 * inf = NaN: the figure itself is then
    # not finite, and nobody asks for its resamples.
    mean_R: Floats = row_RB @ value_B / row_RB.sum(axis=1)
    return mean_R


def _interval(value_R: Floats, figure: float, statistic: Statistic, seed: int) -> Interval | None:
    if not np.isfinite(value_R).all():
        return None
    low, high = np.quantile(value_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    if statistic.by_chance is not None or statistic.is_upward:
        low, high = max(2 * figure - high, 0.0), max(2 * figure - low, 0.0)
    # all resamples may lie on one side of a figure that chance moves one way
    low, high = min(low, figure), max(high, figure)
    if statistic.by_chance is None:
        return low, high
    chance_R = statistic.by_chance(np.random.Generator(np.random.Philox(seed)))
    is_chance = figure <= np.quantile(chance_R, LEVEL)
    return 0.0 if is_chance else low, high


def _resamples(num_rows: int, num_strange: int, seed: int) -> Iterator[RowCounts]:
    """Counts of as many rows as there are, drawn with replacement, some resamples at a time."""
    rows, strange = np.random.Generator(np.random.Philox(seed)).spawn(2)
    step = max(1, _RESAMPLES_AT_ONCE_ELEMENTS // (num_rows + num_strange))
    for start in range(0, NUM_RESAMPLES, step):
        num = min(step, NUM_RESAMPLES - start)
        yield RowCounts(_drawn(rows, num, num_rows), _drawn(strange, num, num_strange))


def _drawn(generator: np.random.Generator, num: int, num_rows: int) -> Floats:
    if num_rows == 0:
        return np.zeros((num, 0))
    row = generator.integers(0, num_rows, size=(num, num_rows))
    flat = (row + num_rows * np.arange(num)[:, None]).ravel()
    return np.bincount(flat, minlength=num * num_rows).reshape(num, num_rows).astype(np.float64)
