"""Who has the device next: batches, giving way, shares; on a clock that only the device moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pydantic import ValidationError
from torch import Tensor

from dubito.errors import DeadlineError, DubitoError, InputError, UnavailableError
from dubito.serving.turns.job import SHORTER, Check, Died, Job, Joint, Urgency
from dubito.serving.turns.schedule import Schedule
from dubito.settings import Settings

MOST_ROWS = 8
CHUNK_ROWS = 4
CHUNK_S = 0.01


@dataclass(eq=False)
class Place:
    """A place in a queue that knows who holds one."""

    work: int
    holders: set[Place]

    def __post_init__(self) -> None:
        self.holders.add(self)

    def begin(self) -> float:
        return 0.0

    def release(self) -> None:
        self.holders.discard(self)


@dataclass
class Echo:
    """What the device makes of rows: themselves."""

    rows: list[int]

    def cut(self, part: range) -> Echo:
        return Echo(self.rows[part.start : part.stop])

    def joined(self, others: Sequence[Echo]) -> Echo:
        return Echo(self.rows + [row for other in others for row in other.rows])


class Bench:
    """A device, a clock, and a schedule for both.

    Attributes:
        now_s: moved by chunks alone.
        chunk_s: time of one.
        memory_rows: that fit at once.
        poison: rows on which a computation fails.
        calls: kind and rows of every computation.
        at_checks: done one by one at the next checks.
        learned: work and seconds that the schedule told.
    """

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        delay_s: float = 0.0,
        chunk_s: float = CHUNK_S,
    ) -> None:
        self.now_s = 0.0
        self.chunk_s = chunk_s
        self.memory_rows = 10**6
        self.poison: set[int] = set()
        self.calls: list[tuple[str, list[int]]] = []
        self.at_checks: list[Callable[[], object]] = []
        self.learned: list[tuple[int, float]] = []
        self.holders: set[Place] = set()
        self.is_closing = False
        self.ended: list[Job[Any]] = []
        self._numbers = count()
        self.schedule = Schedule(
            lambda: self.now_s,
            beat=lambda: None,
            learn=lambda jobs, seconds: self.learned.append(
                (sum(job.work for job in jobs), seconds)
            ),
            leaves=lambda: UnavailableError("closing") if self.is_closing else None,
            weights=weights,
            delay_s=delay_s,
        )

    def ask(
        self,
        num_rows: int,
        kind: str = "kind",
        *,
        model: str = "model",
        urgency: Urgency = Urgency.PREDICTIONS,
        deadline_s: float | None = None,
        is_poisoned: bool = False,
    ) -> Job[list[int]]:
        """Queue rows of new numbers that are to be echoed."""
        rows = [next(self._numbers) for _ in range(num_rows)]
        if is_poisoned:
            self.poison.add(rows[-1])
        task: Joint[Any, list[int]] = Joint(
            key=(model, kind, urgency),
            rows={"x": torch.tensor(rows)},
            most_rows=MOST_ROWS,
            compute=partial(self._compute, kind),
            finish=lambda echo: echo.rows,
        )
        return self.put(Job(task, Place(num_rows, self.holders), deadline_s, urgency, model, self))

    def put(self, job: Job[Any]) -> Job[Any]:
        """Queue a job."""
        job.future.add_done_callback(lambda _: self.ended.append(job))
        with self.schedule.changed:
            self.schedule.put(job)
        return job

    def run(self) -> None:
        """Do all that waits."""
        while self.schedule.run_next():
            pass

    def __call__(self) -> float:
        """The time."""
        return self.now_s

    def _compute(self, kind: str, inputs: Mapping[str, Tensor], check: Check) -> Echo:
        rows: list[int] = inputs["x"].tolist()
        self.calls.append((kind, rows))
        if len(rows) > self.memory_rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        for first in range(0, len(rows), CHUNK_ROWS):
            if self.at_checks:
                self.at_checks.pop(0)()
            check()
            self.now_s += self.chunk_s
            if self.poison.intersection(rows[first : first + CHUNK_ROWS]):
                raise InputError("a row that cannot be computed")
        return Echo(rows)


def test_what_waits_is_computed_once_and_cut_apart() -> None:
    bench = Bench()
    jobs = [bench.ask(rows) for rows in (1, 2, 3)]
    bench.run()
    assert [job.future.result(0) for job in jobs] == [[0], [1, 2], [3, 4, 5]]
    assert bench.calls == [("kind", [0, 1, 2, 3, 4, 5])]
    assert bench.learned == [(6, pytest.approx(2 * CHUNK_S))]


def test_other_kinds_and_models_are_not_joined_and_batches_are_bounded() -> None:
    bench = Bench()
    for kind in ("a", "b", "a", "b"):
        bench.ask(3, kind)
    bench.ask(3, "a")
    bench.ask(MOST_ROWS + 5, "a")
    bench.ask(1, "a", model="other")
    bench.run()
    assert [(kind, len(rows)) for kind, rows in bench.calls] == [
        ("a", 6),
        ("a", 1),  # the other model's turn
        ("b", 6),
        ("a", 3),
        ("a", MOST_ROWS + 5),
    ]


def test_a_batch_of_what_takes_long_holds_few_rows() -> None:
    bench = Bench(chunk_s=0.25)
    for _ in range(14):
        bench.ask(1)
    bench.run()
    assert [len(rows) for _, rows in bench.calls] == [8, 1, 1, 1, 1, 1, 1]
    bench = Bench(chunk_s=0.04)
    for _ in range(16):
        bench.ask(1)
    bench.run()
    assert [len(rows) for _, rows in bench.calls] == [8, 8]


def test_who_goes_while_a_batch_is_computed_leaves_the_others_their_own_rows() -> None:
    bench = Bench()
    jobs = [bench.ask(rows) for rows in (1, 2, 5)]
    bench.at_checks = [jobs[0].abandon]
    bench.run()
    assert [job.future.result(0) for job in jobs[1:]] == [[1, 2], [3, 4, 5, 6, 7]]


def test_one_that_fails_fails_alone() -> None:
    bench = Bench()
    jobs = [bench.ask(1, is_poisoned=place == 4) for place in range(7)]
    bench.run()
    for place, job in enumerate(jobs):
        if place == 4:
            assert isinstance(job.future.exception(0), InputError)
        else:
            assert job.future.result(0) == [place]
    assert not bench.holders


def test_where_memory_runs_out_rows_are_halved() -> None:
    bench = Bench()
    bench.memory_rows = 3
    jobs = [bench.ask(rows) for rows in (1, 6, 1)]
    bench.run()
    assert [len(job.future.result(0)) for job in jobs] == [1, 6, 1]
    assert [len(rows) for _, rows in bench.calls] == [8, 4, 2, 2, 4, 2, 2]
    bench.memory_rows = 0
    too_large = bench.ask(4)
    bench.run()
    assert isinstance(too_large.future.exception(0), torch.OutOfMemoryError)


def test_small_ones_pass_a_large_one_and_it_comes_to_an_end_all_the_same() -> None:
    bench = Bench()
    large = bench.ask(400)
    waited_s: list[float] = []

    def come_again() -> None:
        began_s = bench.now_s
        small = bench.ask(1)
        small.future.add_done_callback(lambda _: waited_s.append(bench.now_s - began_s))
        small.future.add_done_callback(lambda _: None if large.future.done() else come_again())

    bench.at_checks = [come_again] * 8
    bench.run()
    assert len(waited_s) > 100
    used_s = 400 / CHUNK_ROWS * CHUNK_S
    assert max(waited_s) < 0.1
    assert used_s < bench.now_s < 6 * used_s


def test_a_small_one_passes_what_was_joined_with_a_large_one() -> None:
    bench = Bench()
    first, large = bench.ask(1), bench.ask(MOST_ROWS - 1)
    later: list[Job[list[int]]] = []
    bench.at_checks = [lambda: later.append(bench.ask(1))]
    bench.run()
    assert bench.ended == [*later, first, large]


def test_a_long_one_that_had_the_device_for_long_gives_it_away_for_half_a_second() -> None:
    bench = Bench()
    bench.ask(4000)
    ended: list[int] = []

    def look() -> None:
        if len(bench.schedule.under_way()) > 1:
            return
        if not ended:
            for _ in range(100):
                bench.ask(MOST_ROWS)
        ended.append(len(bench.ended))

    bench.at_checks = [lambda: None] * 300 + [look] * 100
    bench.run()
    assert ended[:2] == [0, pytest.approx(0.5 / (2 * CHUNK_S), abs=1)]


def test_the_urgent_comes_first_and_alike_ones_in_order() -> None:
    bench = Bench()
    asked = [
        bench.ask(40, urgency=Urgency.LABELLED),
        bench.ask(40),
        bench.ask(30),
        bench.ask(2, "other"),
    ]
    bench.run()
    assert bench.ended == [asked[place] for place in (3, 1, 2, 0)]


def test_a_calibration_gives_way_to_predictions_of_any_size() -> None:
    bench = Bench()
    calibration = bench.ask(40, urgency=Urgency.LABELLED)
    bench.at_checks = [lambda: None, lambda: bench.ask(100)]
    bench.run()
    assert [len(job.future.result(0)) for job in bench.ended] == [100, 40]
    assert bench.ended[-1] is calibration


def test_models_share_the_device_by_their_weights() -> None:
    bench = Bench(weights={"heavy": 3.0})
    for _ in range(40):
        for model in ("heavy", "light"):
            bench.ask(MOST_ROWS, model=model)
    for _ in range(40):
        bench.schedule.run_next()
    done = [job.model for job in bench.ended]
    assert done.count("heavy") == pytest.approx(30, abs=2)
    bench.run()
    assert len(bench.ended) == 80


def test_weights_are_numbers_above_0_by_model() -> None:
    assert Settings(model_weights=("heavy=3", "other=0.5")).shares == {"heavy": 3.0, "other": 0.5}
    for wrong in ("heavy", "heavy=0", "heavy=-1", "heavy=nan", "=2"):
        with pytest.raises(ValidationError, match="expected MODEL=NUMBER above 0"):
            Settings(model_weights=(wrong,))


def test_who_comes_late_saves_up_no_turns() -> None:
    bench = Bench()
    for _ in range(50):
        bench.ask(MOST_ROWS, model="early")
    for _ in range(30):
        bench.schedule.run_next()
    for _ in range(20):
        bench.ask(MOST_ROWS, model="late")
    for _ in range(20):
        bench.schedule.run_next()
    assert [job.model for job in bench.ended[30:]].count("late") == pytest.approx(10, abs=1)


def test_a_delay_is_waited_for_unless_the_batch_is_full() -> None:
    bench = Bench(delay_s=0.5)
    bench.ask(1)
    assert not bench.schedule.run_next()
    assert bench.schedule.queue.ripens_in_s() == 0.5
    bench.now_s = 0.3
    bench.ask(2)
    bench.now_s = 0.5
    assert bench.schedule.run_next()
    bench.ask(5)
    bench.ask(3)
    assert bench.schedule.run_next()
    bench.ask(1)
    assert not bench.schedule.run_next()
    bench.is_closing = True
    assert bench.schedule.run_next()
    assert [len(rows) for _, rows in bench.calls] == [3, 8, 1]


def test_what_is_around_a_task_ends_the_thread_and_all_that_waits_is_told() -> None:
    bench = Bench()
    large, behind = bench.ask(100), bench.ask(1, urgency=Urgency.BEHIND)

    def fatal() -> None:
        def die(_: object) -> None:
            raise SystemExit

        bench.ask(1).future.add_done_callback(die)

    bench.at_checks = [lambda: None, fatal]
    with pytest.raises(Died):
        bench.run()
    bench.schedule.turn_away(UnavailableError("the worker ended"))
    for job in (large, behind):
        assert isinstance(job.future.exception(0), UnavailableError)
    assert not bench.holders
    later = bench.ask(2)
    bench.run()
    assert len(later.future.result(0)) == 2


def test_only_so_many_batches_give_way_to_each_other() -> None:
    bench = Bench()
    sizes = [(Urgency.BEHIND, 8)]
    for urgency in (Urgency.LABELLED, Urgency.PREDICTIONS):
        sizes += [(urgency, rows) for rows in (512, 128, 32, 8)]
    depths, asked = [0], [bench.ask(sizes[0][1], urgency=sizes[0][0])]

    def ask_within_the_innermost() -> None:
        depths.append(len(bench.schedule.under_way()))
        if len(asked) == depths[-1] < len(sizes):
            urgency, rows = sizes[len(asked)]
            asked.append(bench.ask(rows, urgency=urgency))

    bench.at_checks = [ask_within_the_innermost] * 1000
    bench.run()
    assert max(depths) == 6
    assert len(bench.ended) == len(asked) == 7
    assert bench.ended[0] is asked[5]  # the innermost; who asked last waited for it


@dataclass
class Asked:
    """A job of the random walk, and what may become of it."""

    job: Job[list[int]]
    client: int
    rows: list[int]
    is_poisoned: bool = False
    is_cancelled: bool = False


class Walk(RuleBasedStateMachine):
    """Clients come, go, wait and fail as they like; each gets what is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.asked: list[Asked] = []
        self.is_dead = False

    def _ask(
        self, client: int, rows: int, kind: str, urgency: Urgency, left_s: float, poisoned: bool
    ) -> None:
        deadline_s = self.bench.now_s + left_s if left_s else None
        job = self.bench.ask(
            rows,
            kind,
            model=kind,
            urgency=urgency,
            deadline_s=deadline_s,
            is_poisoned=poisoned,
        )
        assert isinstance(job.task, Joint)
        self.asked.append(Asked(job, client, job.task.rows["x"].tolist(), poisoned))

    def _cancel(self, place: int) -> None:
        if self.asked:
            one = self.asked[place % len(self.asked)]
            one.is_cancelled = one.is_cancelled or not one.job.future.done()
            one.job.abandon()

    asking = st.builds(
        lambda *arguments: arguments,
        st.integers(0, 2),
        st.sampled_from([1, 1, 2, 3, 7, 20, 90]),
        st.sampled_from("ab"),
        st.sampled_from(list(Urgency)),
        st.sampled_from([0.0, 0.0, 0.02, 0.5]),
        st.sampled_from([False] * 6 + [True]),
    )

    @rule(asked=st.lists(asking, min_size=1, max_size=6))
    def ask(self, asked: list[Any]) -> None:
        for one in asked:
            self._ask(*one)

    @rule(asked=st.lists(asking, min_size=1, max_size=4))
    def ask_meanwhile(self, asked: list[Any]) -> None:
        self.bench.at_checks += [partial(self._ask, *one) for one in asked]

    @rule(place=st.integers(0, 50))
    def cancel(self, place: int) -> None:
        self._cancel(place)

    @rule(place=st.integers(0, 50))
    def cancel_meanwhile(self, place: int) -> None:
        self.bench.at_checks.append(partial(self._cancel, place))

    @rule(seconds=st.sampled_from([0.01, 0.1]))
    def time_passes(self, seconds: float) -> None:
        self.bench.now_s += seconds

    @rule(rows=st.sampled_from([1, 2, 5, 10**6]))
    def memory_is(self, rows: int) -> None:
        self.bench.memory_rows = rows

    @rule()
    def run_next(self) -> None:
        self.bench.schedule.run_next()

    @rule()
    def the_thread_ends(self) -> None:
        def die(_: object) -> None:
            raise SystemExit

        doomed = self.bench.ask(1, "doomed", model="doomed")
        doomed.future.add_done_callback(die)
        with pytest.raises(Died):
            self.bench.run()
        assert doomed.future.done()
        self.is_dead = True
        self.bench.schedule.turn_away(UnavailableError("the worker ended"))
        assert len(self.bench.schedule.queue) == 0
        assert not self.bench.holders

    @invariant()
    def only_who_waits_holds_a_place(self) -> None:
        if not self.bench.schedule.queue:
            assert not self.bench.holders

    @invariant()
    def a_batch_is_of_one_kind_and_bounded(self) -> None:
        owners = {row: one for one in self.asked for row in one.rows}
        for kind, rows in self.bench.calls:
            jobs = {id(owners[row].job): owners[row].job for row in rows if row in owners}
            assert {job.model for job in jobs.values()} <= {kind}
            assert len({job.urgency for job in jobs.values()}) <= 1
            assert len(jobs) <= 1 or len(rows) <= MOST_ROWS

    def teardown(self) -> None:
        self.bench.run()
        for act in self.bench.at_checks:
            act()
        self.bench.at_checks = []
        self.bench.run()
        assert not self.bench.holders
        for one in self.asked:
            self._check(one)
        places = {id(job): place for place, job in enumerate(self.bench.ended)}
        done: dict[object, list[int]] = {}
        for one in self.asked:
            if one.job.future.cancelled() or one.job.future.exception(0) is not None:
                continue
            if self._was_beside_a_large_one(one):  # which small ones that come later may pass
                continue
            alike = one.client, one.job.model, one.job.urgency, len(one.rows)
            done.setdefault(alike, []).append(places[id(one.job)])
        for order in done.values():
            assert order == sorted(order)

    def _was_beside_a_large_one(self, one: Asked) -> bool:
        sizes = {row: len(other.rows) for other in self.asked for row in other.rows}
        beside = [row for _, rows in self.bench.calls if one.rows[0] in rows for row in rows]
        return any(sizes[row] >= SHORTER * len(one.rows) for row in beside if row in sizes)

    def _check(self, one: Asked) -> None:
        future, deadline_s = one.job.future, one.job.deadline_s
        assert future.done()
        if future.cancelled():
            assert one.is_cancelled
            return
        error = future.exception(0)
        if error is None:
            assert future.result(0) == one.rows
            assert not one.is_poisoned
        elif isinstance(error, DeadlineError):
            assert deadline_s is not None
            assert self.bench.now_s > deadline_s
        elif isinstance(error, CancelledError):
            assert one.is_cancelled
        elif isinstance(error, UnavailableError):
            assert self.is_dead
        else:
            assert isinstance(error, DubitoError)
            assert one.is_poisoned


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)
