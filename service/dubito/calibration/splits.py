"""Disjoint parts of the labelled rows: one for each fit, and one that no fit has seen.

Flow: number of rows (and their labels) → `parts` → row numbers of each part. The shares are such
that about 450 rows serve all: 113 fit the temperature or noise, 90 the sets, 135 the flag, and 112
judge.

Dimensions: B rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dubito.calibration import conformal
from dubito.errors import InputError

FIT, CONFORMAL, OOD, REPORT = "fit", "conformal", "ood", "report"
SHARES = {FIT: 5, CONFORMAL: 4, OOD: 6, REPORT: 5}
"""Rows of each part in every 20."""

FEWEST_TO_FIT, FEWEST_TO_FIT_ISOTONIC = 10, 100
_FEWEST_TO_REPORT = 10


def parts(
    num_rows: int,
    *,
    alpha: float,
    coverage: float,
    seed: int,
    label_B: NDArray[np.int64] | None = None,
    to_fit: int = FEWEST_TO_FIT,
) -> dict[str, NDArray[np.int64]]:
    """Row numbers of each part, drawn by the seed; every class in its share of each part.

    Rows are put in random order within classes in random order, then dealt out one by one to the
    part that lags furthest behind its share: each part's size, and its count of each class, is its
    share to within a row or two.

    Raises:
        InputError: too few rows, naming how many are needed and what for.
    """
    _check_enough(num_rows, alpha, coverage, to_fit)
    generator = np.random.Generator(np.random.Philox(seed))
    order_B = generator.permutation(num_rows)
    if label_B is not None:
        place_of_class = generator.permutation(int(label_B.max()) + 1)
        order_B = order_B[np.argsort(place_of_class[label_B[order_B]], kind="stable")]
    owner_B = np.resize(_cycle(), num_rows)
    return {name: np.sort(order_B[owner_B == index]) for index, name in enumerate(SHARES)}


def without_fit(parts: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """The parts where nothing is fitted: those rows are held out for sets or intervals too."""
    joined = np.sort(np.concatenate([parts[FIT], parts[CONFORMAL]]))
    return {**parts, FIT: parts[FIT][:0], CONFORMAL: joined}


def sizes(num_rows: int) -> dict[str, int]:
    """Rows of each part."""
    cycle = _cycle()
    rounds, rest = divmod(num_rows, len(cycle))
    return {
        name: rounds * cycle.count(index) + cycle[:rest].count(index)
        for index, name in enumerate(SHARES)
    }


def rows_per_class(needed: int) -> int:
    """Labelled rows of a class that put as many of them among those for sets, however dealt."""
    cycle, place = _cycle(), list(SHARES).index(CONFORMAL)
    dealt = np.array(cycle * (needed + 1)) == place
    return next(
        count
        for count in range(needed, len(dealt))
        if min(dealt[first : first + count].sum() for first in range(len(cycle))) >= needed
    )


def _cycle() -> list[int]:
    """Which part each of 20 places goes to: every time the one furthest behind its share."""
    shares = list(SHARES.values())
    given, cycle = [0] * len(shares), []
    for place in range(1, sum(shares) + 1):
        lag = [
            share * place - count * sum(shares) for share, count in zip(shares, given, strict=True)
        ]
        cycle.append(lag.index(max(lag)))
        given[cycle[-1]] += 1
    return cycle


def _check_enough(num_rows: int, alpha: float, coverage: float, to_fit: int) -> None:
    needs = {
        FIT: (to_fit, "to fit the scaling or noise"),
        CONFORMAL: (conformal.rows_needed(coverage), f"for coverage {coverage}"),
        OOD: (conformal.rows_needed_for_alarm(alpha), f"for a false-alarm rate of {alpha}"),
        REPORT: (_FEWEST_TO_REPORT, "for the report"),
    }
    total = 0  # a lower bound at first
    for part, (need, _) in needs.items():
        total = max(total, (need - 1) * sum(SHARES.values()) // SHARES[part])
    while any(size < needs[part][0] for part, size in sizes(total).items()):
        total += 1
    if num_rows < total:
        reasons = ", ".join(f"{need} {reason}" for need, reason in needs.values())
        raise InputError(
            f"calibration expects at least {total} labelled rows, got {num_rows}: it needs "
            f"{reasons}, each on rows of its own; send more rows, or ask for a lower coverage "
            "or a higher alpha"
        )
