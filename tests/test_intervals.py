"""Intervals around the mean and around the mixture's quantiles: formulas, ends, properties."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri

from dubito.calibration.promises import intervals
from dubito.calibration.promises.conformal import ConformalScores, Promise


def test_normalised_intervals_follow_their_formula() -> None:
    held_out = ConformalScores((tuple(np.arange(1, 10) / 10),))
    ends = intervals.normalised(held_out, np.array([[1.0]]), np.array([[4.0]]), 0.5)
    assert np.ravel(ends) == pytest.approx([0.0, 2.0], abs=1e-4)  # the tolerance of a tie


def test_each_output_has_its_own_scores() -> None:
    target_BD = np.array([[1.0, 10.0], [2.0, 20.0]])
    held_out = intervals.fit_normalised(np.zeros((2, 2)), np.array([[1.0, 4.0]] * 2), target_BD)
    assert held_out.columns == ((1.0, 2.0), (5.0, 10.0))
    ends = np.array([[-1.0, -4.0]] * 2), np.array([[1.0, 4.0]] * 2)
    assert intervals.fit_quantiles(ends, target_BD).columns == ((0.0, 1.0), (6.0, 16.0))


def test_quantile_scores_are_negative_inside_and_the_distance_outside() -> None:
    ends = np.zeros((3, 1)), np.full((3, 1), 4.0)
    held_out = intervals.fit_quantiles(ends, np.array([[1.0], [-2.0], [7.0]]))
    assert held_out.columns == ((-1.0, 2.0, 3.0),)


def test_intervals_are_widened_or_narrowed_by_the_threshold_and_never_turn_round() -> None:
    ends = np.array([[0.0], [2.0]]), np.array([[4.0], [3.0]])
    held_out = ConformalScores(((-1.5, -0.5, 1.0),))
    for coverage, expected in (
        (0.75, [(-1.0, 5.0), (1.0, 4.0)]),
        (0.5, [(0.5, 3.5), (2.5, 2.5)]),
        (0.25, [(1.5, 2.5), (2.5, 2.5)]),
        (0.9, [(-inf, inf), (-inf, inf)]),
    ):
        lower_BD, upper_BD = intervals.widened(held_out, ends, coverage)
        found = np.hstack([lower_BD, upper_BD])
        assert found == pytest.approx(np.array(expected), abs=2e-4)  # the tolerance of a tie


def test_the_ends_of_one_gaussian_are_its_quantiles_and_of_two_far_ones_lie_in_the_tails() -> None:
    one = intervals.quantile_ends(np.full((1, 1, 1), 3.0), np.full((1, 1, 1), 4.0), 0.9)
    np.testing.assert_allclose(np.ravel(one), 3 + 2 * ndtri([0.05, 0.95]), atol=1e-9)
    means_TBD = np.array([-100.0, 100.0]).reshape(2, 1, 1)
    two = intervals.quantile_ends(means_TBD, np.ones((2, 1, 1)), 0.9)
    np.testing.assert_allclose(np.ravel(two), [-100 + ndtri(0.1), 100 + ndtri(0.9)], atol=1e-9)


def test_at_another_coverage_the_quantiles_stay_those_that_scores_were_taken_from() -> None:
    """Held-out rows of a standard normal network; at one half the threshold takes from the width.

    Of scores |y| - 1.645 the ranks of 19 rows at .5 and .9 are 10 and 18.
    """
    rule, passes = intervals.IntervalRule("cqr"), (np.zeros((1, 19, 1)), np.ones((1, 19, 1)))
    target_BD = np.linspace(0.1, 1.9, 19)[:, None]
    held_out = rule.fit(passes, np.ones((19, 1)), target_BD, 0.9)
    promise = Promise(0.9, held_out)
    for coverage, end in ((None, 1.8), (0.9, 1.8), (0.5, 1.0)):
        lower_BD, upper_BD = rule.ends(promise, passes, coverage)
        np.testing.assert_allclose(upper_BD, end, atol=2e-4)
        np.testing.assert_allclose(lower_BD, -end, atol=2e-4)


@given(st.integers(0, 2**32), st.floats(0.3, 0.9), st.floats(0.3, 0.9))
def test_a_higher_coverage_gives_an_interval_around_the_narrower_one(
    seed: int, one: float, other: float
) -> None:
    generator = np.random.default_rng(seed)
    mean_TBD, variance_TBD = (
        generator.normal(size=(4, 30, 2)),
        generator.gamma(1.0, size=(4, 30, 2)),
    )
    target_BD = generator.normal(size=(30, 2))
    ends = intervals.quantile_ends(mean_TBD, variance_TBD, 0.8)
    held_out = intervals.fit_quantiles(ends, target_BD)
    narrow, wide = (intervals.widened(held_out, ends, level) for level in sorted((one, other)))
    assert (wide[0] <= narrow[0]).all()
    assert (narrow[0] <= narrow[1]).all()
    assert (narrow[1] <= wide[1]).all()


def test_quantiles_follow_skewed_noise_where_a_multiple_of_sigma_cannot() -> None:
    """Two far components of unlike weight: σ reaches where no target ever lies."""
    generator = np.random.default_rng(0)
    place_B = np.where(generator.random(4000) < 0.8, 0, 1)
    target_BD = generator.normal(np.array([0.0, 8.0])[place_B], np.array([0.3, 0.3])[place_B])[
        :, None
    ]
    mean_TBD = np.repeat([0.0] * 4 + [8.0], 4000).reshape(5, 4000, 1)
    variance_TBD = np.full((5, 1, 1), 0.09)
    known, fresh = slice(0, 2000), slice(2000, None)
    ends = intervals.quantile_ends(mean_TBD, variance_TBD, 0.9)
    cqr = intervals.widened(
        intervals.fit_quantiles(tuple(end[known] for end in ends), target_BD[known]),  # type: ignore[arg-type]
        (ends[0][fresh], ends[1][fresh]),
        0.9,
    )
    mean_BD, variance_BD = mean_TBD.mean(axis=0), mean_TBD.var(axis=0) + 0.09
    held_out = intervals.fit_normalised(mean_BD[known], variance_BD[known], target_BD[known])
    plain = intervals.normalised(held_out, mean_BD[fresh], variance_BD[fresh], 0.9)
    for lower_BD, upper_BD in (cqr, plain):
        covered = (lower_BD <= target_BD[fresh]) & (target_BD[fresh] <= upper_BD)
        assert covered.mean() == pytest.approx(0.9, abs=0.03)
    assert (plain[0] < -1).all()  # where no target ever lies
    assert (cqr[0] > -1).all()
