"""Scores and batches of optimisation, by their formulas in many digits."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from statistics import NormalDist

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray

from dubito.acquisition import optimisation
from dubito.acquisition.batches import penalisation
from dubito.acquisition.batches.picks import Picks
from dubito.acquisition.draws import words
from dubito.acquisition.strategies.upper_confidence_bound import upper_confidence_bound

Floats = NDArray[np.float64]


def picks(rows: int, k: int, seed: int = 0) -> Picks:
    return Picks(k, words(seed, np.arange(rows)))


def exact_logs(z: float, std: float) -> tuple[float, float]:
    """Log EI and log PI by 60 digits, of a Gaussian whose mean is z deviations above."""
    with mpmath.workdps(60):
        above, below = (mpmath.erfc(sign * mpmath.mpf(z) / mpmath.sqrt(2)) / 2 for sign in (-1, 1))
        improvement = mpmath.npdf(z) + z * above
        chance = mpmath.log(above) if z < 0 else mpmath.log1p(-below)
        return float(mpmath.log(improvement * std)), float(chance)


@pytest.mark.parametrize("std", [1.0, 1e-9, 1e6])
def test_logarithms_of_improvements_are_exact_however_far_the_incumbent(std: float) -> None:
    z_B = np.concatenate([-np.geomspace(1e5, 1e-3, 60), [-1.0, 0.0], np.geomspace(1e-3, 30, 20)])
    found = [
        score(0.3 * std + z_B * std, np.full(len(z_B), std), 0.2 * std, 0.1 * std)
        for score in (
            optimisation.log_expected_improvement,
            optimisation.log_probability_of_improvement,
        )
    ]
    rounded_B = (0.3 * std + z_B * std - 0.2 * std - 0.1 * std) / std
    expected = np.array([exact_logs(z, std) for z in rounded_B.tolist()]).T
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "score",
    [optimisation.log_expected_improvement, optimisation.log_probability_of_improvement],
)
def test_improvements_order_rows_without_ties_and_are_finite_whatever_the_spread(
    score: Callable[..., Floats],
) -> None:
    z_B = np.concatenate([-np.geomspace(1e150, 1e-9, 300), [0.0], np.geomspace(1e-9, 1e12, 200)])
    for std in (0.0, 1e-12, 1.0):
        gain_B = z_B * (std or 1e-100)
        found_B = score(gain_B, np.full(len(z_B), std), 0.0)
        assert np.isfinite(found_B).all()
        assert (np.diff(found_B) > 0).all() or std == 0.0
    still_B = score(np.array([-3.0, -2.0, 0.0, 1.0, 2.0]), np.zeros(5), 0.0)
    assert (np.diff(still_B) > 0).all()
    assert np.exp(still_B[:3]).tolist() == [0.0] * 3
    certain = [0.0, log(2)] if score is optimisation.log_expected_improvement else [0.0, 0.0]
    np.testing.assert_allclose(still_B[3:], certain, atol=1e-300)
    assert score(np.full(2, -38.0), np.array([1e-3, 0.0]), 0.0)[0] > still_B[2]
    overflowed_B = np.array([np.inf, -np.inf, np.nan])
    assert np.isnan(score(overflowed_B, np.full(3, np.nan), 0.0)).all()


def test_a_bound_adds_deviations() -> None:
    mean_B, std_B = np.array([0.0, 1.0, -2.0]), np.array([1.0, 0.5, 2.0])
    np.testing.assert_allclose(upper_confidence_bound(mean_B, std_B, 4.0), [2.0, 2.0, 2.0])


def test_a_batch_far_below_the_incumbent_begins_with_the_best_row_and_spreads() -> None:
    """Beyond 38 deviations all improvements are 0 as numbers, but not as logarithms."""
    x = np.linspace(0, 1, 50)
    mean_N, std_N = -np.square(x - 0.3), 0.01 + 0.005 * x
    scores_N = optimisation.log_expected_improvement(mean_N, std_N, 100.0)
    assert not np.exp(scores_N).any()
    for seed in range(6):
        found = picks(50, 3, seed)
        penalisation.choose(
            scores_N, mean_N, std_N, x[:, None], found, incumbent=100.0, is_log=True
        )
        places, left = greedy_penalised(scores_N, mean_N, std_N, x, 100.0)
        assert found.rows == places
        assert found.rows[0] == scores_N.argmax()
        np.testing.assert_allclose(found.scores, left, rtol=1e-12)


def greedy_penalised(
    log_N: Floats, mean_N: Floats, std_N: Floats, x: Floats, incumbent: float
) -> tuple[list[int], list[float]]:
    """Three rows by the formula of the module, by 30 digits, one factor after the other."""
    apart = np.abs(x[:, None] - x)
    slope = (np.abs(mean_N[:, None] - mean_N) / (apart + np.eye(len(x)))).max()
    left, places, scores = [mpmath.mpf(one) for one in log_N.tolist()], list[int](), list[float]()
    for _ in range(3):
        places.append(max(set(range(len(x))) - set(places), key=left.__getitem__))
        place = places[-1]
        scores.append(float(left[place]))
        for n in range(len(x)):
            reach = slope * apart[n, place] - max(incumbent, mean_N.max()) + mean_N[place]
            with mpmath.workdps(30):
                chance = mpmath.erfc(-mpmath.mpf(reach / std_N[place]) / mpmath.sqrt(2)) / 2
                left[n] += mpmath.log(chance)
    return places, scores


def test_rows_on_which_the_network_overflows_do_not_spoil_the_penalties_of_others() -> None:
    x = np.linspace(0, 1, 20)
    mean_N, std_N = np.sin(6 * x), np.full(20, 0.1)
    without = picks(20, 4)
    without.is_open[[3, 4]] = False
    with_two = picks(20, 4)
    with_two.is_open[[3, 4]] = False
    spoiled_N = mean_N.copy()
    spoiled_N[[3, 4]] = [np.nan, np.inf]
    for found, mean in ((without, mean_N), (with_two, spoiled_N)):
        scores_N = optimisation.log_expected_improvement(mean, std_N, 1.5)
        penalisation.choose(scores_N, mean, std_N, x[:, None], found, incumbent=1.5, is_log=True)
    assert with_two.rows == without.rows


@pytest.mark.parametrize("unit", [1.0, 1e-30, 1e30])
def test_a_chosen_row_lowers_its_neighbours_by_the_chance_that_they_lie_in_its_ball(
    unit: float,
) -> None:
    x = np.linspace(0, 1, 101)
    bumps_N = np.exp(-0.5 * ((x - 0.2) / 0.05) ** 2) + 0.9 * np.exp(-0.5 * ((x - 0.8) / 0.05) ** 2)
    mean_N = unit * bumps_N
    std_N = (0.1 + 0.05 * x) * unit
    scores_N = upper_confidence_bound(mean_N, std_N)
    found = picks(101, 2)
    penalisation.choose(scores_N, mean_N, std_N, x[:, None], found, incumbent=None, is_log=False)
    first, second = found.rows
    assert x[first] == pytest.approx(0.2)
    apart = np.abs(x[:, None] - x) + np.eye(101)
    slope = (np.abs(mean_N[:, None] - mean_N) / apart).max()
    chance = NormalDist().cdf
    left_N = np.logaddexp(0, (scores_N - scores_N.mean()) / scores_N.std()) * [
        chance((slope * abs(here - x[first]) - mean_N.max() + mean_N[first]) / std_N[first])
        for here in x
    ]
    left_N[first] = 0
    assert second == left_N.argmax()
    assert abs(second - first) > 1  # one step away is in the ball, more likely than not
    assert found.scores[1] == pytest.approx(log(left_N[second]), rel=1e-9)


def test_the_logarithm_of_a_softplus_is_exact_where_the_softplus_is_0_as_a_number() -> None:
    scores = [-1e4, -746.0, -31.0, -29.0, -1.0, 0.0, 1.0, 1e4]
    with mpmath.workdps(5000):
        expected = [float(mpmath.log(mpmath.log1p(mpmath.exp(one)))) for one in scores]
    found = penalisation._log_softplus(np.array(scores))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
