"""Disjoint parts of the labelled rows: one for each fit, and one that no fit has seen.

Flow: number of rows (and their labels) → `parts` → row numbers of each part. The shares are such
that about 450 rows serve all: 113 fit the scaling or noise, 90 the sets, 135 the flag, and 112
judge.

What is asked beside takes parts of its own, 5 shares each: `features` for distances, `choice` to
compare scores, `policy` for the threshold of decisions. A share then counts among 25, 30 or 35.

Dimensions: B rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dubito.calibration.promises import conformal
from dubito.errors import InputError

FIT, CONFORMAL, OOD, REPORT = "fit", "conformal", "ood", "report"
FEATURES, CHOICE, POLICY = "features", "choice", "policy"
SHARES = {FIT: 5, CONFORMAL: 4, OOD: 6, REPORT: 5}
"""Rows of each part in every 20."""

FEWEST_TO_FIT, FEWEST_TO_FIT_ISOTONIC = 10, 100
_FEWEST_TO_REPORT = 10
_MOST_ROWS = 10**9  # beyond it a number of rows is no advice


@dataclass(frozen=True, slots=True)
class Share:
    """A part that not every calibration has.

    Args:
        share: rows of it for every 20 of the usual parts.
        needed: rows without which it serves nothing.
        reason: what they are needed for.
    """

    share: int
    needed: int
    reason: str


def parts(
    num_rows: int,
    *,
    alpha: float,
    coverage: float,
    seed: int,
    label_B: NDArray[np.int64] | None = None,
    to_fit: int = FEWEST_TO_FIT,
    fits: str = "to fit the scaling or noise",
    extra: Mapping[str, Share] | None = None,
) -> dict[str, NDArray[np.int64]]:
    """Row numbers of each part, drawn by the seed; every class in its share of each part.

    Rows are put in random order within classes in random order, then dealt out one by one to the
    part that lags furthest behind its share: each part's size, and its count of each class, is its
    share to within a row or two.

    Args:
        num_rows: labelled rows.
        alpha: false-alarm rate of the flag.
        coverage: of sets or intervals.
        seed: of the order.
        label_B: their classes.
        to_fit: fewest rows that the scaling or noise can be fitted on.
        fits: what they are needed for, in words.
        extra: parts beside the usual ones.

    Raises:
        InputError: too few rows, naming how many are needed and what for.
    """
    extra = extra or {}
    shares = with_extra(extra)
    _check_enough(num_rows, alpha, coverage, (to_fit, fits), extra)
    generator = np.random.Generator(np.random.Philox(seed))
    order_B = generator.permutation(num_rows)
    if label_B is not None:
        place_of_class = generator.permutation(int(label_B.max()) + 1)
        order_B = order_B[np.argsort(place_of_class[label_B[order_B]], kind="stable")]
    owner_B = np.resize(_cycle(shares), num_rows)
    return {name: np.sort(order_B[owner_B == index]) for index, name in enumerate(shares)}


def with_extra(extra: Mapping[str, Share]) -> dict[str, int]:
    """Return the shares of the usual parts and of the extra ones."""
    return SHARES | {name: part.share for name, part in extra.items()}


def without_fit(parts: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """The parts where nothing is fitted: those rows are held out for sets or intervals too."""
    joined = np.sort(np.concatenate([parts[FIT], parts[CONFORMAL]]))
    return {**parts, FIT: parts[FIT][:0], CONFORMAL: joined}


def sizes(num_rows: int, shares: Mapping[str, int] = SHARES) -> dict[str, int]:
    """Return the number of rows of each part."""
    cycle = _cycle(shares)
    rounds, rest = divmod(num_rows, len(cycle))
    return {
        name: rounds * cycle.count(index) + cycle[:rest].count(index)
        for index, name in enumerate(shares)
    }


def rows_per_class(needed: int, shares: Mapping[str, int] = SHARES) -> int:
    """Labelled rows of a class that put as many of them among those for sets, however dealt."""
    cycle, part = _cycle(shares), list(shares).index(CONFORMAL)
    dealt = np.array(cycle * (needed + 1)) == part
    return next(
        count
        for count in range(needed, len(dealt))
        if min(dealt[first : first + count].sum() for first in range(len(cycle))) >= needed
    )


def _cycle(named: Mapping[str, int]) -> list[int]:
    """Which part each place of a round goes to: every time the one furthest behind its share."""
    shares = list(named.values())
    dealt, cycle = [0] * len(shares), []
    for count_dealt in range(1, sum(shares) + 1):
        lag = [
            share * count_dealt - count * sum(shares)
            for share, count in zip(shares, dealt, strict=True)
        ]
        cycle.append(lag.index(max(lag)))
        dealt[cycle[-1]] += 1
    return cycle


def _check_enough(
    num_rows: int,
    alpha: float,
    coverage: float,
    to_fit: tuple[int, str],
    extra: Mapping[str, Share],
) -> None:
    shares = with_extra(extra)
    needs = {
        FIT: to_fit,
        CONFORMAL: (conformal.rows_needed(coverage), f"for coverage {coverage}"),
        OOD: (conformal.rows_needed_for_alarm(alpha), f"for a false-alarm rate of {alpha}"),
        REPORT: (_FEWEST_TO_REPORT, "for the report"),
        **{name: (part.needed, part.reason) for name, part in extra.items()},
    }
    total = 0  # a lower bound at first
    for part, (need, _) in needs.items():
        total = max(total, (need - 1) * sum(shares.values()) // shares[part])
    while any(size < needs[part][0] for part, size in sizes(total, shares).items()):
        total += 1
    if total > _MOST_ROWS:
        which = "coverage" if needs[CONFORMAL][0] > needs[OOD][0] else "alpha"
        value, remedy = (coverage, "lower") if which == "coverage" else (alpha, "higher")
        raise InputError(
            f"`{which}` {value} expects more than {_MOST_ROWS:,} labelled rows, got {num_rows}: "
            f"ask for a {remedy} one"
        )
    if num_rows < total:
        dealt = " : ".join(str(share) for share in shares.values())
        reasons = ", ".join(f"{need} {reason}" for need, reason in needs.values())
        raise InputError(
            f"calibration expects at least {total} labelled rows, got {num_rows}: it needs "
            f"{reasons}, each on rows of its own, and deals rows out to them as {dealt}; send more "
            "rows, or ask for a lower coverage or a higher alpha"
        )
