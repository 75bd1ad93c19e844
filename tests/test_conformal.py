"""Ranks, thresholds and p-values; coverage and size against exact beta-binomial bounds."""

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.special import softmax

from dubito.calibration.promises import conformal, intervals
from dubito.calibration.promises.sets import LAC
from dubito.errors import InputError

NONE = np.zeros(0)  # lac takes no uniform numbers


@pytest.mark.parametrize(
    ("num_rows", "coverage", "rank"),
    [(9, 0.9, 9), (19, 0.95, 19), (20, 0.9, 19), (99, 0.99, 99), (100, 0.9, 91), (8, 0.9, 9)],
)
def test_the_rank_is_exact_where_the_product_is_whole(
    num_rows: int, coverage: float, rank: int
) -> None:
    assert conformal.order(num_rows, coverage) == rank


@pytest.mark.parametrize(("coverage", "rows"), [(0.9, 9), (0.95, 19), (0.99, 99), (0.5, 1)])
def test_the_rows_needed_are_the_fewest_that_bound_a_set(coverage: float, rows: int) -> None:
    assert conformal.rows_needed(coverage) == rows
    assert conformal.order(rows, coverage) <= rows
    assert conformal.order(rows - 1, coverage) > rows - 1
    assert conformal.rows_needed_for_alarm(round(1 - coverage, 6)) == rows


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_coverage_outside_0_and_1_is_refused(coverage: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        conformal.order(10, coverage)


def test_too_few_held_out_rows_have_no_threshold_each_column_for_itself() -> None:
    held_out = conformal.ConformalScores.of([np.array([0.2, 0.1]), np.arange(9.0)])
    assert held_out.thresholds(0.9).tolist() == [inf, 8.0]
    assert held_out.thresholds(0.5).tolist() == [0.2, 4.0]
    assert held_out.num_rows == 2


def labelled(
    num_rows: int, generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities of five classes that are off by a temperature, and labels."""
    logits_BC = 2 * generator.normal(size=(num_rows, 5))
    truth_BC = softmax(logits_BC, axis=-1)
    uniform_B = generator.random(num_rows)
    label_B = (truth_BC.cumsum(axis=-1) < uniform_B[:, None]).sum(axis=-1).clip(max=4)
    return softmax(2.5 * logits_BC, axis=-1), label_B


@pytest.mark.parametrize("num_rows", [20, 100])
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_covered_rows_over_random_splits_follow_the_beta_binomial(
    num_rows: int, coverage: float
) -> None:
    """Each split's count has an exact law; the test over 300 of them fails by chance 1 in 1,000.

    Among m rows the covered are beta-binomial(m, k, n+1-k): the probability integral transform of
    the counts, randomised over their steps, is uniform.
    """
    generator = np.random.default_rng(int(1000 * coverage) + num_rows)
    k, asked = conformal.order(num_rows, coverage), 200
    law = stats.betabinom(asked, k, num_rows + 1 - k)
    places = []
    for _ in range(300):
        mean_BC, label_B = labelled(num_rows + asked, generator)
        held_out = LAC.fit(mean_BC[:num_rows], label_B[:num_rows], NONE)
        sets_BC = LAC.sets(held_out, mean_BC[num_rows:], NONE, coverage)
        covered = int(sets_BC[np.arange(asked), label_B[num_rows:]].sum())
        places.append(law.cdf(covered - 1) + generator.random() * law.pmf(covered))
    assert stats.kstest(places, "uniform").pvalue > 0.001


def test_sets_are_no_larger_than_those_of_the_best_threshold_by_more_than_5_percent() -> None:
    """Against the threshold that a million rows give: right coverage alone would allow any size."""
    generator = np.random.default_rng(5)
    mean_BC, label_B = labelled(200_000, generator)
    true_scores_B = 1 - mean_BC[np.arange(len(label_B)), label_B]
    best = ((1 - mean_BC) <= np.quantile(true_scores_B, 0.9)).sum(axis=-1).mean()
    sizes = []
    for _ in range(200):
        rows = generator.choice(len(label_B), 300, replace=False)
        held_out = LAC.fit(mean_BC[rows[:200]], label_B[rows[:200]], NONE)
        sizes.append(LAC.sets(held_out, mean_BC[rows[200:]], NONE, 0.9).sum(axis=-1).mean())
    assert np.mean(sizes) < 1.05 * best
    assert np.mean(sizes) > 0.97 * best


def test_intervals_cover_at_their_rate_whatever_the_variance_is_worth() -> None:
    """Counts over 200 splits of 100 + 100 rows; fails by chance 1 in 1,000."""
    generator = np.random.default_rng(8)
    law = stats.betabinom(100, conformal.order(100, 0.9), 101 - conformal.order(100, 0.9))
    places = []
    for _ in range(200):
        variance_BD = generator.gamma(2.0, size=(200, 1))
        target_BD = generator.standard_t(3, size=(200, 1)) * np.sqrt(variance_BD)
        zero_BD = np.zeros((100, 1))
        scores = intervals.fit_normalised(zero_BD, 9 * variance_BD[:100], target_BD[:100])
        lower_BD, upper_BD = intervals.normalised(scores, zero_BD, 9 * variance_BD[100:], 0.9)
        covered = int(((lower_BD <= target_BD[100:]) & (target_BD[100:] <= upper_BD)).sum())
        places.append(law.cdf(covered - 1) + generator.random() * law.pmf(covered))
    assert stats.kstest(places, "uniform").pvalue > 0.001


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=30),
    st.lists(st.integers(-6, 6), min_size=1, max_size=10),
)
def test_p_values_count_the_held_out_scores_at_least_as_large(
    held_out: list[int], asked: list[int]
) -> None:
    held_out_n = np.sort(np.array(held_out, dtype=np.float64))
    p_value_B = conformal.p_values(held_out_n, np.array(asked, dtype=np.float64))
    for score, p_value in zip(asked, p_value_B, strict=True):
        at_least = sum(1 for one in held_out if one >= score)
        assert p_value == (1 + at_least) / (len(held_out) + 1)
