"""What a calibration promised, and what came of it, in a sentence each for the reader of a reply.

Flow: a record with its verdict and report → sentences: of the fit, of sets or intervals, of the
flag. The figures are those of the report, on rows that no fit has seen.

Of n rows that set a threshold and m that judge it, events are beta-binomial where scores do not
tie: coverage of them with k = ceil((n+1)c), Beta(k, n+1-k), false alarms with floor(α(n+1)). So
what chance explains is said beside what came.

Dimensions: n held-out rows, m rows of the report.

Source: Vovk 2012, arXiv:1209.2673 (coverage given the held-out rows); Marques 2023,
arXiv:2303.02770 (beta-binomial); Clopper and Pearson 1934, Biometrika 26:404-413 (the interval
where no row, or every one, is an event).
"""

from __future__ import annotations

from math import ceil, floor, log10
from typing import TYPE_CHECKING

from dubito.calibration import splits
from dubito.calibration.promises.conformal import exact_decimal, order
from dubito.report.statistics import LEVEL, Interval

if TYPE_CHECKING:
    from dubito.calibration.record import Calibration

FINE = 0.02
"""To either side: how far an interval narrows with the rows that a sentence asks for."""

_FARTHEST = 1000.0  # times the rows: beyond it a number of rows says nothing


def sentences(record: Calibration) -> tuple[str, ...]:
    """What was promised and what came, beginning with the verdict; none of an earlier build's.

    Args:
        record: with its report.
    """
    if record.verdict is None:
        return ()
    told = (f"{record.verdict}{_seen(record)}", _covered(record), _alarms(record))
    return tuple(f"{one}." for one in told if one)


def chance(num_rows: int, rank: int, num_judged: int) -> Interval:
    """Shares of events that all but 1 in 20 calibrations have, of m rows judged.

    Events are beta-binomial: Beta(rank, n + 1 - rank), m rows.

    Args:
        num_rows: n, that set the threshold.
        rank: of the n + 1 places that a new score may take, those that are an event.
        num_judged: m.
    """
    from scipy.stats import betabinom

    if not 0 < rank <= num_rows:  # an event never, or always
        return (0.0, 0.0) if rank <= 0 else (1.0, 1.0)
    low, high = betabinom.interval(LEVEL, num_judged, rank, num_rows + 1 - rank)
    return float(low) / num_judged, float(high) / num_judged


def interval_of(share: float, num_judged: int, resampled: Interval | None) -> Interval:
    """The 95 % interval of a share: of the resamples, or where these are all equal the exact one.

    Args:
        share: what came.
        num_judged: m.
        resampled: the report's; None of a record without.
    """
    if resampled is not None and resampled[0] < resampled[1]:
        return resampled
    from scipy.stats import binomtest

    exact = binomtest(round(share * num_judged), num_judged).proportion_ci(LEVEL)
    return float(exact.low), float(exact.high)


def rows_wanted(num_rows: int, interval: Interval) -> int | None:
    """Labelled rows in all that would narrow an interval to `FINE` either way; None: it is so.

    n' = n (half of its width / FINE)², with two digits, since widths fall as 1 / √n
    """
    half = (interval[1] - interval[0]) / 2
    return None if half <= FINE else _rounded_up(num_rows * (half / FINE) ** 2)


def _seen(record: Calibration) -> str:
    """What the fit came to on the rows of the report, and how many would tell."""
    verdict, told = record.verdict, ""
    assert verdict is not None
    if verdict.against != "none":
        return ""
    before, after = record.report.before, record.report.after
    if not verdict.is_left_out and before.get("nll") is not None and after.get("nll") is not None:
        named = [name for name in ("nll", "ece") if before.get(name) is not None]
        changes = " and ".join(
            f"`{name}` from {before[name]:.3g} to {after[name]:.3g}{_shown(record, name)}"
            for name in named
        )
        told = (
            f"; on the {record.splits[splits.REPORT]} rows that no fit has seen it takes {changes}"
        )
    if 0 < abs(verdict.nats) <= verdict.margin:
        factor = (verdict.margin / abs(verdict.nats)) ** 2
        if factor <= _FARTHEST:
            wanted = _rounded_up(record.num_rows * factor)
            return f"{told}; some {wanted:,} labelled rows would tell such a difference from chance"
        return f"{told}; no number of rows in reach would tell so small a difference from chance"
    return told


def _covered(record: Calibration) -> str:
    """Whether sets or intervals held the truth as often as was promised."""
    after, asked = record.report.after, record.coverage
    name, what = (
        ("interval_coverage", "intervals")
        if after.get("interval_coverage") is not None
        else ("set_coverage", "sets")
    )
    came = after.get(name)
    if came is None:
        return ""
    num_set = record.splits[splits.CONFORMAL]
    bounds = chance(num_set, order(num_set, asked), record.splits[splits.REPORT])
    told = _told(record, name, came, f"{what}: at least {asked:g} was promised", bounds)
    size, accuracy = after.get("set_size"), after.get("accuracy")
    if name == "set_coverage" and size is not None:
        told += f"; they hold {size:.3g} classes on average"
        empty = after.get("empty_sets")
        if empty:
            told += f", and {empty:.2g} of them none"
        elif accuracy is not None and accuracy > asked and came > asked:
            told += (
                f"; the predicted class, right in {accuracy:.3g}, is always among them, so they "
                "hold the truth more often than was asked: a higher `coverage` tells more"
            )
    return told


def _alarms(record: Calibration) -> str:
    """Whether the flag was up as often as was allowed."""
    came = record.report.after.get("ood_flag_rate")
    if came is None:
        return ""
    num_set = record.splits[splits.OOD]
    rank = floor((num_set + 1) * exact_decimal("alpha", record.alpha))
    bounds = chance(num_set, rank, record.splits[splits.REPORT])
    promised = f"flag: at most {record.alpha:g} of ordinary rows was promised"
    return _told(record, "ood_flag_rate", came, promised, bounds)


def _told(record: Calibration, name: str, came: float, promised: str, bounds: Interval) -> str:
    """A share with its interval, by the side of what chance explains."""
    num_judged = record.splits[splits.REPORT]
    intervals = record.report.intervals.get("after", {})
    interval = interval_of(came, num_judged, intervals.get(name))
    judged = "less than" if came < bounds[0] else "more than" if came > bounds[1] else "as"
    told = (
        f"{promised}; on {num_judged} rows that no fit has seen it came to {came:.3g} "
        f"[{interval[0]:.3g}, {interval[1]:.3g}], {judged} chance gives ({bounds[0]:.3g} to "
        f"{bounds[1]:.3g} in 19 of 20 calibrations on so few)"
    )
    wanted = rows_wanted(record.num_rows, interval)
    if wanted is None:
        return told
    return f"{told}; some {wanted:,} labelled rows would tell it to {FINE:g} either way"


def _shown(record: Calibration, name: str) -> str:
    interval = record.report.intervals.get("after", {}).get(name)
    return "" if interval is None else f" [{interval[0]:.3g}, {interval[1]:.3g}]"


def _rounded_up(count: float) -> int:
    """With two digits."""
    unit: int = 10 ** max(0, floor(log10(max(count, 1))) - 1)
    return ceil(count / unit) * unit
