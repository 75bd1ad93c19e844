"""What calls cost, learned from those that ran."""

from __future__ import annotations

from itertools import cycle, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dubito.serving.turns.rates import CallCost, CallCosts

KIND = ("predict", "usual")


def learned(calls: list[tuple[int, float]]) -> CallCost:
    rates = CallCosts()
    for work, seconds in calls:
        rates.learn(KIND, work, seconds)
    cost = rates.cost(KIND)
    assert cost is not None
    return cost


@given(
    fixed_s=st.floats(0, 1),
    slope_s=st.floats(1e-6, 1e-2),
    works=st.lists(st.integers(1, 10**5), min_size=2, max_size=30),
)
def test_calls_on_a_line_give_the_line(fixed_s: float, slope_s: float, works: list[int]) -> None:
    cost = learned([(work, fixed_s + slope_s * work) for work in islice(cycle(works), 100)])
    for work in works:
        assert cost.seconds(work) == pytest.approx(fixed_s + slope_s * work, rel=0.1, abs=1e-9)
    exact = learned([(work, fixed_s + slope_s * work) for work in [10, 1000] * 40])
    assert exact.fixed_s == pytest.approx(fixed_s, rel=1e-6, abs=1e-6)
    assert exact.slope_s == pytest.approx(slope_s, rel=1e-6)


def test_of_calls_of_one_size_only_that_size_is_known() -> None:
    cost = learned([(64, 0.032)] * 5)
    assert cost == CallCost(0.0, pytest.approx(0.0005))


@given(
    st.lists(
        st.tuples(st.integers(1, 10**9), st.floats(0, 1e5)),
        min_size=1,
        max_size=30,
    )
)
def test_no_calls_make_a_cost_negative(calls: list[tuple[int, float]]) -> None:
    cost = learned(calls)
    assert cost.fixed_s >= 0
    assert 0 <= cost.slope_s < float("inf")


def test_one_call_that_met_a_pause_counts_little_and_is_forgotten() -> None:
    usual = [(64, 0.01)] * 20
    after = learned([*usual, (64, 3.0)])
    assert 0.01 < after.seconds(64) < 0.015
    assert learned([*usual, (64, 3.0), *usual]).seconds(64) == pytest.approx(0.01, rel=0.05)


def test_a_few_calls_that_are_much_faster_are_believed_soon() -> None:
    cost = learned([*[(64, 1.0)] * 20, *[(64, 0.01)] * 4])
    assert cost.seconds(64) < 0.25  # by the usual memory it would be 0.63


@pytest.mark.parametrize("times", [0.05, 0.5, 2.0, 20.0])
def test_a_machine_that_becomes_slower_or_faster_is_followed(times: float) -> None:
    calls = [(work, 0.01 + 0.001 * work) for work in islice(cycle([16, 64, 256]), 60)]
    changed = [(work, times * seconds) for work, seconds in calls]
    cost = learned([*calls, *changed])
    assert cost.seconds(64) == pytest.approx(times * 0.074, rel=0.1)


def test_a_way_that_never_ran_costs_what_the_same_thing_does_otherwise() -> None:
    rates = CallCosts()
    assert rates.cost(KIND) is None
    rates.learn(KIND, 10, 0.1)
    rates.learn(("predict", "slow"), 10, 1.0)
    usual, other = rates.cost(KIND), rates.cost(("predict", "never"))
    assert usual is not None
    assert other is not None
    assert usual.seconds(10) == pytest.approx(0.1)
    assert 0.1 < other.seconds(10) < 1.0
    assert rates.cost(("evaluate", "usual")) is None
