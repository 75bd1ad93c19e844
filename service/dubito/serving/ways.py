"""Method `auto`: of the ways whose agreement with the passes was measured, the one that will do.

Flow: a fit of `agreement` (`jobs/agreeing.py`) → `MeasuredWays` → the ways that a request allows →
those within its tolerance and its time → the fastest of them, or the most exact one.

Dimensions: B rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dubito.engine import Sampling
from dubito.engine.calling.sampling import Method, as_sites
from dubito.errors import InputError

AGREEMENT = "agreement"
TIMED_ROWS = (1, 64)
"""Numbers of rows that each way is timed with."""
SHARE = 0.95
"""Share of the rows whose error is at most what is stated of a way."""


@dataclass(frozen=True)
class Way:
    """One way to answer, and what was measured of it against many passes.

    Args:
        method: of the engine.
        num_samples: T.
        sites: that are sampled, as a reply says them.
        fit: number of the fit that it answers from; None: it needs none.
        error_of_mean: that 95 % of the rows do not exceed: the largest difference of a row's means,
            in probabilities or target units.
        spearman: rank correlation over the rows of what is epistemic.
        milliseconds: of a call, by its number of rows.
    """

    method: Method
    num_samples: int
    sites: Any
    fit: int | None
    error_of_mean: float
    spearman: float
    milliseconds: Mapping[str, float]

    def time_ms(self, num_rows: int) -> float:
        """Time of a call of B rows: the line through the two that were timed."""
        few, many = TIMED_ROWS
        at_few, at_many = (self.milliseconds[str(count)] for count in TIMED_ROWS)
        per_row = max(0.0, at_many - at_few) / (many - few)
        return at_few + per_row * (num_rows - few)

    def over(self, sampling: Sampling) -> Sampling:
        """The sampling of a request, answered in this way."""
        return replace(
            sampling,
            method=self.method,
            num_samples=self.num_samples,
            sites=as_sites(self.sites),
            masks="shared" if self.fit is not None else sampling.masks,
            fit=self.fit,
            tolerance=None,
        )


@dataclass(frozen=True)
class MeasuredWays:
    """The ways of a version.

    Args:
        number: of the fit that measured them.
        ways: of which each was measured on the same rows.
    """

    number: int
    ways: tuple[Way, ...]

    @classmethod
    def of(cls, number: int, document: Mapping[str, Any]) -> MeasuredWays:
        """The agreement that a fit holds."""
        return cls(number, tuple(Way(**way) for way in document["report"]["ways"]))

    def usable(self, active_fits: Mapping[str, int], *, with_samples: bool) -> Sequence[Way]:
        """The ways that still hold: those of active fits, and that make samples where wanted."""
        return [
            way
            for way in self.ways
            if (way.fit is None or active_fits.get(way.method) == way.fit)
            and not (with_samples and way.method in ("moments", "distilled"))
        ]


@dataclass(frozen=True)
class ChosenWay:
    """How an `auto` request is answered.

    Args:
        sampling: of the way, or of `mc` where none is known to do.
        told: number of the agreement and figures of the way; None: none was relied on.
        warning: why `mc` answers, where it does for want of a way.
    """

    sampling: Sampling
    told: Mapping[str, object] | None = None
    warning: str | None = None


def check_auto(method: str | None, tolerance: float | None, budget_ms: float | None) -> None:
    """Refuse an `auto` that is bound to nothing, and a budget of another method.

    Raises:
        InputError: naming the field.
    """
    if method != "auto":
        if budget_ms is not None:
            raise InputError(
                f"`budget_ms` expects method `auto`, got `{method or 'the default'}`: leave one out"
            )
        return
    if tolerance is None and budget_ms is None:
        raise InputError(
            "method `auto` expects `tolerance`, the largest error of the mean, or `budget_ms`, the"
            " time of the call, or both, got neither: such as tolerance 0.02"
        )
    for name, value in (("tolerance", tolerance), ("budget_ms", budget_ms)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"`{name}` expects a number above 0, got {value}: such as 0.02")


def choose(
    agreement: MeasuredWays | None,
    sampling: Sampling,
    active_fits: Mapping[str, int],
    *,
    num_rows: int,
    tolerance: float | None,
    budget_ms: float | None,
    with_samples: bool,
) -> ChosenWay:
    """The way that a request is answered.

    Args:
        agreement: the active one; None: none was measured.
        sampling: of the request with method `mc`, which answers where no way is known to do.
        active_fits: of the version, by method.
        num_rows: B.
        tolerance: largest error of the mean.
        budget_ms: longest time of the call.
        with_samples: whether samples are wanted.
    """
    if agreement is None:
        warning = (
            "method `auto`: no agreement is on record, so `mc` answers: fit one, with method"
            f" `{AGREEMENT}`, to rows like those that are asked"
        )
        return ChosenWay(sampling, None, warning)
    fit_in_time = [
        way
        for way in agreement.usable(active_fits, with_samples=with_samples)
        if budget_ms is None or way.time_ms(num_rows) <= budget_ms
    ]
    good = [way for way in fit_in_time if tolerance is None or way.error_of_mean <= tolerance]
    if not good:
        wanted = [] if tolerance is None else [f"an error of the mean of at most {tolerance:g}"]
        wanted += [] if budget_ms is None else [f"at most {budget_ms:g} ms for {num_rows} rows"]
        return ChosenWay(
            sampling,
            None,
            f"method `auto`: no way is known to have {' and '.join(wanted)} (agreement"
            f" {agreement.number}), so `mc` answers: ask for less",
        )
    by_time = tolerance is not None
    best = min(good, key=lambda way: way.time_ms(num_rows) if by_time else way.error_of_mean)
    told = {
        "fit": agreement.number,
        "error_of_mean": best.error_of_mean,
        "spearman": best.spearman,
        "milliseconds": round(best.time_ms(num_rows), 3),
    }
    return ChosenWay(best.over(sampling), told)
