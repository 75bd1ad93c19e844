"""Who may wait for the device, by the time it would take; on a clock that only the device moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dubito.serving.turns.backlog import Backlog, JobWork, WaitingLine
from dubito.serving.turns.job import Urgency
from dubito.serving.turns.rates import CallCosts
from dubito.serving.turns.slack import Slack

from .waiting import Device, Visit


def taught(device: Device, **fields: Any) -> Device:
    """After calls of one and of many rows, so that its costs are known."""
    for rows in (1, 30, 1):
        device.visit(Visit(device.now_s, rows, **fields))
        device.run()
    return device


def arrivals(device: Device, rate: float, begin_s: float, end_s: float, seed: int = 0) -> None:
    """Requests of one row, as a Poisson process."""
    random = np.random.default_rng(seed)
    came_s = begin_s + np.cumsum(random.exponential(1 / rate, int(3 * rate * (end_s - begin_s))))
    for at_s in came_s[came_s < end_s]:
        device.visit(Visit(float(at_s)))


def percentile(visits: list[Visit], share: float) -> float:
    return float(np.percentile([visit.took_s for visit in visits if visit.outcome == 200], share))


def rate(device: Device, begin_s: float, end_s: float) -> float:
    """Answers a second."""
    ended = [v for v in device.visits if v.outcome == 200 and begin_s <= v.ended_s < end_s]
    return len(ended) / (end_s - begin_s)


def test_what_comes_when_nothing_waits_is_never_refused_for_its_size() -> None:
    device = taught(Device())
    for rows in (10_000, 10_000, 1):
        visit = device.visit(Visit(device.now_s + 1.0, rows, timeout_s=500.0))
        device.run()
        assert visit.outcome == 200
    impossible = device.visit(Visit(device.now_s, 10_000, timeout_s=1.0))
    device.run()
    assert impossible.outcome == 504  # nothing was ahead of it: its own time was too short


def test_what_would_wait_too_long_is_refused_at_once_and_told_when_to_come() -> None:
    device = taught(Device(fixed_s=0.0, row_s=0.1))
    start_s = device.now_s
    many = [device.visit(Visit(start_s)) for _ in range(60)]
    device.run()
    outcomes = [visit.outcome for visit in many]
    assert outcomes == sorted(outcomes, key=lambda outcome: outcome == 429)  # who came last
    assert 20 <= outcomes.count(200) <= 22
    refused = [visit for visit in many if visit.outcome == 429]
    assert all(visit.took_s == 0.0 for visit in refused)
    assert "expected a wait of at most 2.0 s, got" in refused[0].reason
    assert max(visit.took_s for visit in many) < 2.0 + 0.3


def test_a_refusal_says_when_the_work_ahead_will_be_little_enough() -> None:
    device = taught(Device(fixed_s=0.0, row_s=0.1))
    large = device.visit(Visit(device.now_s, 100))
    other = device.visit(Visit(device.now_s + 0.05, 100))
    device.run(device.now_s + 0.1)
    assert other.outcome == 429
    assert other.retry_after_s == pytest.approx(8.0, abs=0.3)
    again = device.visit(Visit(other.came_s + other.retry_after_s + 0.3, 100))
    device.run()
    assert (large.outcome, again.outcome) == (200, 200)


def test_a_deadline_that_cannot_be_met_is_refused_and_one_that_can_is_met() -> None:
    device = taught(Device(fixed_s=0.0, row_s=0.1))
    for _ in range(10):
        device.visit(Visit(device.now_s))
    hurried = device.visit(Visit(device.now_s, timeout_s=0.5))
    patient = device.visit(Visit(device.now_s, timeout_s=1.5))
    device.run()
    assert hurried.outcome == 429
    assert "X-Request-Timeout-Ms" in hurried.reason
    assert patient.outcome == 200


def test_its_own_time_counts_for_a_deadline_once_it_is_known() -> None:
    device = taught(Device(fixed_s=0.0, row_s=0.1))
    device.visit(Visit(device.now_s))
    long = device.visit(Visit(device.now_s + 0.01, 30, timeout_s=2.0))
    short = device.visit(Visit(device.now_s + 0.01, 1, timeout_s=2.0))
    device.run()
    assert (long.outcome, short.outcome) == (429, 200)


def test_what_is_small_passes_what_is_large_and_is_not_refused_for_it() -> None:
    device = taught(Device(fixed_s=0.0, row_s=0.1))
    large = device.visit(Visit(device.now_s, 300))
    small = [device.visit(Visit(device.now_s + 1.0 + place)) for place in range(10)]
    device.run()
    assert large.outcome == 200
    assert {visit.outcome for visit in small} == {200}
    assert max(visit.took_s for visit in small) < 0.5


def test_the_line_of_another_model_is_not_ones_own() -> None:
    device = taught(Device(fixed_s=0.0, row_s=0.1))
    taught(device, model="other")
    for _ in range(60):
        device.visit(Visit(device.now_s, model="other"))
    own = [device.visit(Visit(device.now_s + 0.01)) for _ in range(5)]
    device.run()
    assert {visit.outcome for visit in own} == {200}
    assert max(visit.took_s for visit in own) < 1.5
    assert device.outcomes()[429] > 20


def test_a_heavy_model_waits_less_for_others() -> None:
    took_s = {}
    for weight in (1.0, 4.0):
        device = taught(Device(fixed_s=0.0, row_s=0.1, weights={"model": weight}))
        taught(device, model="other")
        for place in range(15):
            device.visit(Visit(device.now_s, model="other"))
            device.visit(Visit(device.now_s + 0.001 * place, timeout_s=1.8))
        device.run()
        took_s[weight] = [v for v in device.visits if v.timeout_s and v.outcome == 200]
    assert len(took_s[1.0]) < len(took_s[4.0])
    assert all(visit.took_s < 1.9 for taken in took_s.values() for visit in taken)


def test_predictions_do_not_wait_for_calibrations_which_wait_for_them() -> None:
    device = taught(Device(fixed_s=0.0, row_s=0.1))
    taught(device, urgency=Urgency.LABELLED)
    calibration = device.visit(Visit(device.now_s, 100, urgency=Urgency.LABELLED))
    prediction = device.visit(Visit(device.now_s + 1.0))
    another = device.visit(Visit(device.now_s + 1.0, 100, urgency=Urgency.LABELLED))
    device.run()
    assert (calibration.outcome, prediction.outcome, another.outcome) == (200, 200, 429)
    assert prediction.took_s < 0.3
    for _ in range(25):
        device.visit(Visit(device.now_s))
    late = device.visit(Visit(device.now_s, 1, urgency=Urgency.LABELLED, timeout_s=1.0))
    device.run()
    assert late.outcome == 429


def test_what_has_never_run_is_not_refused_and_counts_once_its_first_has_run() -> None:
    device = Device(fixed_s=0.0, row_s=0.2)
    start_s = device.now_s
    first = [device.visit(Visit(start_s, how=place % 16)) for place in range(32)]
    device.run(start_s + 0.1)
    assert {visit.outcome for visit in first} == {None, 200}
    assert device.entrance.ahead_s() == pytest.approx(0.2 * 31, rel=0.4)
    after = device.visit(Visit(device.now_s))
    device.run()
    assert after.outcome == 429
    assert {visit.outcome for visit in first} == {200}


def test_a_device_that_stands_still_is_noticed() -> None:
    device = taught(Device(fixed_s=0.0, row_s=0.01))
    stands_s = device.now_s
    device.pauses = [(stands_s, 3.0)]
    device.visit(Visit(stands_s))
    seen: list[float] = []
    come = device._compute

    def look(*given: Any) -> Any:
        echo = come(*given)
        seen.append(device.entrance.ahead_s())
        return echo

    device._compute = look  # type: ignore[method-assign]
    device.run()
    assert seen == [pytest.approx(3.0, abs=0.1)]


def test_who_joins_likes_adds_its_part_of_a_call_that_is_as_long_as_calls_may_be() -> None:
    costs = CallCosts()
    for work in (10, 100, 10):
        costs.learn(("predict", "usual"), work, 0.05 + 0.01 * work)
    backlog = Backlog(costs, {}, batch_s=0.1)
    line = WaitingLine(Urgency.PREDICTIONS, "model")
    wanted = JobWork(("predict", "usual"), 1, "likes", most_work=64)
    first, second = (backlog.book(line, wanted) for _ in range(2))
    assert first.seconds == pytest.approx(0.06)
    assert second.seconds == pytest.approx(0.05 / 5 + 0.01)  # five fit into a call of 0.1 s


def test_a_burst_waits_and_what_never_ends_does_not() -> None:
    clock = [0.0]
    slack = Slack(2.0, lambda: clock[0])

    def look(ahead_s: float, until_s: float) -> None:
        while clock[0] < until_s:
            clock[0] += 0.1
            slack.look(ahead_s, 0.01)

    assert slack.bound_s(0.01) == 2.0
    look(1.0, until_s=0.4)
    assert 1.7 < slack.bound_s(0.01) < 2.0
    look(1.0, until_s=6.0)
    assert slack.bound_s(0.01) == pytest.approx(0.1)
    assert slack.bound_s(0.1) == pytest.approx(0.8)  # eight of its jobs
    assert slack.bound_s(60.0) == 2.0
    look(0.075, until_s=7.0)  # no longer than a short line, and not well below
    assert slack.bound_s(0.01) == pytest.approx(0.1)
    look(0.0, until_s=9.0)
    assert slack.bound_s(0.01) == 2.0


@pytest.mark.parametrize("times", [2.0, 5.0])
@pytest.mark.parametrize(("fixed_s", "row_s"), [(0.0, 0.02), (0.02, 0.01), (0.05, 0.01)])
def test_an_overload_is_answered_as_far_as_the_device_can_and_soon(
    fixed_s: float, row_s: float, times: float
) -> None:
    rows = max(1, int((0.1 - fixed_s) / row_s))
    capacity = rows / (fixed_s + rows * row_s)
    calm = Device(fixed_s, row_s)
    arrivals(calm, 0.8 * capacity, 0.0, 20.0)
    calm.run()
    assert calm.outcomes() == {200: len(calm.visits)}
    device = Device(fixed_s, row_s)
    arrivals(device, times * capacity, 0.0, 15.0)
    arrivals(device, 0.8 * capacity, 15.0, 25.0, seed=1)
    device.run()
    assert set(device.outcomes()) == {200, 429}
    assert rate(device, 5.0, 15.0) > 0.9 * capacity
    assert percentile(device.came(5.0, 15.0), 99) < 3 * percentile(calm.visits, 99)
    assert device.outcomes(17.0, 25.0)[429] <= 0.01 * len(device.came(17.0, 25.0))
    assert percentile(device.came(17.0, 25.0), 50) < 2 * percentile(calm.visits, 50)


def test_a_pause_of_the_machine_is_forgotten_within_seconds() -> None:
    device = Device(fixed_s=0.0, row_s=0.01)
    arrivals(device, 70.0, 0.0, 25.0)
    device.pauses = [(10.0, 3.0)]
    device.run()
    before = percentile(device.came(0.0, 10.0), 50)
    assert device.outcomes(18.0, 25.0)[429] == 0
    assert percentile(device.came(18.0, 25.0), 50) < 2 * before


class Walk(RuleBasedStateMachine):
    """Requests of all kinds come, go and are late; what waits is always what is booked."""

    def __init__(self) -> None:
        super().__init__()
        self.device = Device(fixed_s=0.004, row_s=0.003, longest_s=0.3, weights={"a": 2.0})

    coming = st.builds(
        lambda *arguments: arguments,
        st.sampled_from([0.0, 0.0, 0.001, 0.05, 1.0]),
        st.sampled_from([1, 1, 2, 5, 40, 300]),
        st.sampled_from("ab"),
        st.sampled_from([Urgency.PREDICTIONS, Urgency.PREDICTIONS, Urgency.LABELLED]),
        st.sampled_from([None, None, 0.05, 0.5]),
        st.sampled_from(["usual", "other"]),
    )

    @rule(coming=st.lists(coming, min_size=1, max_size=12))
    def come(self, coming: list[Any]) -> None:
        for after_s, *asked in coming:
            self.device.visit(Visit(self.device.now_s + after_s, *asked))

    @precondition(lambda self: self.device.visits)
    @rule(place=st.integers(0, 1000), after_s=st.sampled_from([0.0, 0.002, 0.02]))
    def go(self, place: int, after_s: float) -> None:
        place %= len(self.device.visits)
        self.device.at(self.device.now_s + after_s, lambda: self._go(place))

    def _go(self, place: int) -> None:
        job = self.device.visits[place].job
        if job is not None:
            job.abandon()

    @rule(seconds=st.sampled_from([0.1, 1.0]))
    def stand_still(self, seconds: float) -> None:
        self.device.pauses.append((self.device.now_s, seconds))

    @rule(seconds=st.sampled_from([0.001, 0.03, 0.5]))
    def run(self, seconds: float) -> None:
        self.device.run(self.device.now_s + seconds)

    @invariant()
    def what_is_booked_is_what_waits(self) -> None:
        waiting = [
            visit.job.reservation.booking.seconds  # type: ignore[attr-defined]
            for visit in self.device.visits
            if visit.job is not None and visit.outcome is None
        ]
        assert self.device.entrance.ahead_s() == pytest.approx(sum(waiting), abs=1e-6)

    @invariant()
    def who_is_refused_is_told_when_to_come_back_and_never_queued(self) -> None:
        for visit in self.device.visits:
            if visit.outcome == 429:
                assert visit.retry_after_s is not None
                assert visit.retry_after_s >= 1.0
                assert visit.job is None or not visit.job.future.done()

    def teardown(self) -> None:
        self.device.run()
        assert self.device.entrance.ahead_s() == 0.0
        for visit in self.device.visits:
            assert visit.outcome in (0, 200, 429, 504)
        calm = self.device.visit(Visit(self.device.now_s + 100.0, 300))
        self.device.run()
        assert calm.outcome == 200


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
