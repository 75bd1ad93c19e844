"""The statistics of monitoring: closed forms, exact rates."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations
from math import comb, exp, isclose, log

import numpy as np
import pytest
from scipy.stats import binom, kstest

from dubito.monitoring.drift import DriftTest
from dubito.monitoring.martingale import Jumper
from dubito.monitoring.observed import ObservedRows
from dubito.monitoring.outcomes import Laws, Outcome, Watch, figures
from dubito.monitoring.ranks import Ranks
from dubito.monitoring.windows import Law, Windows

RATE = 0.01
NUM_STREAMS = 300
LAWS = Laws(Law(99, 10), Law(99, 5))


def test_a_p_value_is_the_share_of_scores_at_least_as_high_with_a_random_part_of_ties() -> None:
    ranks = Ranks([1.0, 2.0, 2.0, 3.0], seed=7)
    u = np.random.Generator(np.random.Philox(7)).random()
    assert ranks.p_value(2.0) == (1 + u * 3) / 5
    assert len(ranks) == 5
    assert 0 <= ranks.p_value(9.0) <= 1 / 6


def test_p_values_over_all_orders_of_scores_are_every_rank_once() -> None:
    """Three of a stream behind two held-out scores: all 3 x 4 x 5 rank patterns, equally often."""
    patterns: dict[tuple[int, ...], int] = {}
    for order in permutations((1.0, 2.0, 3.0, 4.0, 5.0)):
        ranks = Ranks(order[:2], seed=0)
        sizes = (3, 4, 5)
        pattern = tuple(
            int(ranks.p_value(score) * size) for score, size in zip(order[2:], sizes, strict=True)
        )
        patterns[pattern] = patterns.get(pattern, 0) + 1
    assert set(patterns.values()) == {2}
    assert len(patterns) == 3 * 4 * 5


def test_p_values_stay_uniform_and_independent_while_memory_is_bounded() -> None:
    """Kolmogorov-Smirnov and the correlation of neighbours, each at a false-alarm rate of 0.1 %."""
    generator = np.random.default_rng(0)
    p_values = []
    for seed in range(200):
        ranks = Ranks(np.round(generator.normal(size=20), 1).tolist(), seed, capacity=32)
        stream = np.round(generator.normal(size=100), 1).tolist()
        p_values.append([ranks.p_value(score) for score in stream])
        assert len(ranks) < 32
    p_ST = np.array(p_values)
    assert kstest(p_ST.ravel(), "uniform").pvalue > 1e-3
    products = ((p_ST[:, 1:] - 0.5) * (p_ST[:, :-1] - 0.5)).ravel() * 12
    assert abs(products.mean()) < 3.3 / np.sqrt(len(products))


def test_the_capital_is_that_of_the_formula_and_has_mean_one_over_uniform_p_values() -> None:
    jumper, stakes = Jumper(), (-2, -1, 0, 1, 2)
    jumper.bet(0.0)
    assert isclose(jumper.capital, 1.0)  # stakes of both signs are equal at first
    first = [0.5 * 0.2 * (1 - stake / 2) for stake in stakes]  # half of the capital is at stake
    joined = [share + 1 / 6 / 5 for share in first]
    second = sum(
        (0.99 * share + 0.01 * sum(joined) / 5) * (1 - stake * 0.25)
        for share, stake in zip(joined, stakes, strict=True)
    )
    assert isclose(jumper.bet(0.25), log(second + 1 / 3))
    grid = (np.arange(40) + 0.5) / 40
    means = []
    for first in grid:
        for last in grid:
            gambler = Jumper()
            gambler.bet(float(first))
            means.append(exp(gambler.bet(float(last))))
    assert isclose(float(np.mean(means)), 1.0, rel_tol=1e-12)


@pytest.mark.parametrize("num_held_out", [5, 100])
def test_false_alarms_over_whole_streams_are_within_their_exact_bound(num_held_out: int) -> None:
    """300 streams of 1,000 rows; the bound fails one time in a hundred, and the seed is fixed."""
    generator = np.random.default_rng(num_held_out)
    alarms = 0
    for seed in range(NUM_STREAMS):
        drift = DriftTest(generator.normal(size=num_held_out).tolist(), seed)
        drift.feed(generator.normal(size=1000).tolist())
        alarms += drift.state.alarm_after is not None
    assert alarms <= binom.ppf(0.99, NUM_STREAMS, RATE)


def test_a_shift_is_seen_within_200_rows_though_twenty_thousand_ordinary_ones_came_before() -> None:
    generator = np.random.default_rng(0)
    drift = DriftTest(generator.normal(size=100).tolist())
    drift.feed(generator.normal(size=20_000).tolist())
    assert drift.state.alarm_after is None
    assert drift.state.martingale >= 1 / 20_001
    drift.feed(generator.normal(2.0, 1.0, size=200).tolist())
    assert drift.state.alarm_after is not None


def test_a_shift_rings_once_and_the_state_tells_after_how_many_scores() -> None:
    generator = np.random.default_rng(0)
    drift = DriftTest(generator.normal(size=100).tolist())
    drift.feed(generator.normal(size=200).tolist())
    assert drift.state.alarm_after is None
    rings = [drift.feed([score]) for score in generator.normal(2.0, 1.0, size=200).tolist()]
    assert sum(rings) == 1
    assert drift.state.alarm_after == 200 + rings.index(True) + 1
    assert drift.state.largest >= drift.state.level == 100.0
    assert not drift.feed([float("nan"), float("inf")])
    assert drift.state.num_skipped == 2


def test_scores_that_fall_are_seen_too() -> None:
    generator = np.random.default_rng(0)
    drift = DriftTest(generator.normal(size=100).tolist())
    drift.feed(generator.normal(-2.0, 1.0, size=200).tolist())
    assert drift.state.alarm_after is not None


def test_a_law_gives_the_beta_binomial_tail_counted_by_hand() -> None:
    """Polya's urn: every order of the new scores among the held-out ones is equally likely."""
    num_rows, rank, window = 4, 2, 3
    above = num_rows + 1 - rank
    exact = [
        Fraction(
            comb(rank + k - 1, k) * comb(above + window - k - 1, window - k),
            comb(num_rows + window, window),
        )
        for k in range(window + 1)
    ]
    assert sum(exact) == 1
    law = Law(num_rows, rank)
    for k in range(window + 1):
        assert isclose(law.tail(k, window), float(sum(exact[k:])))
    assert law.mean == 0.4
    assert (Law(9, 0).tail(0, 5), Law(9, 0).tail(1, 5)) == (1.0, 0.0)


def test_the_levels_of_all_windows_add_up_to_less_than_one() -> None:
    shares = [Windows(10, index).share_of_level for index in range(1, 1001)]
    assert isclose(sum(shares), 1 - 1 / 1001)


def test_false_alarms_over_all_windows_are_within_their_exact_bound() -> None:
    """500 streams of 20 windows, the held-out rows drawn anew for each; at most 1 % ring."""
    generator, num_streams, window = np.random.default_rng(0), 500, 50
    law, alarms = Law(29, 3), 0
    for _ in range(num_streams):
        miss_rate = generator.beta(law.rank, law.num_rows + 1 - law.rank)
        watched = Windows(window)
        for is_miss in (generator.random(20 * window) < miss_rate).tolist():
            watched = watched.add(is_miss, "now", law, RATE, window)
        assert watched.index == 21
        alarms += watched.alarm_since is not None
    assert alarms <= binom.ppf(0.99, num_streams, RATE)


def test_an_alarm_rises_at_the_end_of_a_window_and_keeps_its_time() -> None:
    watch, bad = Watch.start(2, 10), Outcome((False, True), is_flagged=False)
    for place in range(40):
        assert (place >= 10) == bool(watch.alarms)
        watch = watch.add(bad, f"at {place}", LAWS, 10)
    assert watch.alarms == {"coverage": "at 9"}
    assert Watch.from_json(watch.to_json()) == watch


def test_a_changed_window_size_counts_from_the_next_window_on() -> None:
    watched = Windows(3)
    for _ in range(3):
        watched = watched.add(False, "", LAWS.flags, RATE, 5)
    assert (watched.size, watched.index) == (5, 2)


def test_figures_have_exact_intervals_and_the_ece_of_a_report() -> None:
    outcomes = [Outcome((place > 0,), place == 1, 0.75, place < 6) for place in range(10)]
    found = figures(outcomes)
    assert found is not None
    coverage = found.coverage[0]
    assert (coverage.observed, found.accuracy) == (0.9, 0.6)
    assert found.ece is not None
    assert isclose(found.ece, 0.15)
    # Clopper-Pearson: the ends put 2.5 % into the tail that the count is in.
    assert isclose(binom.sf(8, 10, coverage.lower), 0.025, rel_tol=1e-6)
    assert isclose(binom.cdf(9, 10, coverage.upper), 0.025, rel_tol=1e-6)
    assert figures([]) is None


def test_what_is_kept_comes_back_and_is_held_against_truths() -> None:
    mean_BC = np.array([[0.5, 0.25, 0.25], [0.0, 0.125, 0.875]], dtype=np.float32)
    kept = ObservedRows(mean_BC, np.array([1.0, 2.0]), np.array([False, True]), mean_BC >= 0.5)
    back = ObservedRows.from_bytes(kept.to_bytes())
    assert back.num_rows == 2
    assert back.class_outcome(0, 1) == Outcome((False,), False, 0.5, False)
    assert back.class_outcome(1, 2) == Outcome((True,), True, 0.875, True)
    with pytest.raises(ValueError, match="regression"):
        back.number_outcome(0, [1.0])
    ends_BD = np.array([[1.0, 5.0]])
    numbers = ObservedRows(
        ends_BD, np.zeros(1), np.zeros(1, bool), lower=ends_BD - 1, upper=ends_BD + 1
    )
    back = ObservedRows.from_bytes(numbers.to_bytes())
    assert back.number_outcome(0, [2.0, 6.5]) == Outcome((True, False), False)
    with pytest.raises(ValueError, match="classification"):
        back.class_outcome(0, 1)
