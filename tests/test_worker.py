"""The device worker: order, bounds, deadlines, cancellation, failures, draining."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest

from dubito.application import Application
from dubito.errors import DeadlineError, InputError, QueueFullError, UnavailableError
from dubito.serving.worker import Check, Urgency, Worker
from dubito.settings import Settings

LIMIT = 100
WAIT_S = 20


@pytest.fixture
def worker() -> Iterator[Worker]:
    started = Worker(LIMIT)
    started.start()
    yield started
    started.close(WAIT_S)


class Gate:
    """A task that says when it runs, and waits to be let go."""

    def __init__(self) -> None:
        self.is_running = threading.Event()
        self.may_end = threading.Event()

    def __call__(self, check: Check) -> str:
        self.is_running.set()
        assert self.may_end.wait(WAIT_S)
        check()
        return "ended"


@pytest.fixture
def gate(worker: Worker) -> Iterator[Gate]:
    """Holds the worker busy with work of 10 until it is opened."""
    held = Gate()
    worker.submit(worker.reserve(10), held)
    assert held.is_running.wait(WAIT_S)
    yield held
    held.may_end.set()


def test_answers_come_back_to_whoever_asked(worker: Worker) -> None:
    def ask(number: int) -> int:
        return worker.submit(worker.reserve(1), lambda _: number * number).future.result(WAIT_S)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(64))) == [number * number for number in range(64)]
    assert worker.queued_work == 0


def test_tasks_run_one_at_a_time_in_order(worker: Worker, gate: Gate) -> None:
    order: list[int] = []

    def append(place: int) -> Callable[[Check], None]:
        return lambda _: order.append(place)

    jobs = [worker.submit(worker.reserve(1), append(place)) for place in range(5)]
    gate.may_end.set()
    for job in jobs:
        job.future.result(WAIT_S)
    assert order == list(range(5))


def test_a_full_queue_refuses_and_says_when_to_come_back(worker: Worker, gate: Gate) -> None:
    kept = worker.reserve(LIMIT - 10)
    with pytest.raises(QueueFullError, match="rows x samples") as caught:
        worker.reserve(1)
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s >= 1
    kept.release()
    kept.release()
    assert worker.queued_work == 10


def test_work_that_never_fits_is_refused_as_input(worker: Worker) -> None:
    place = worker.reserve(1)
    with pytest.raises(InputError, match="expected at most 100, got 101"):
        place.resize(LIMIT + 1)
    place.resize(LIMIT)
    place.release()
    assert worker.queued_work == 0


def test_a_place_that_was_given_back_does_not_grow_and_takes_no_work(worker: Worker) -> None:
    place = worker.reserve(1)
    place.release()
    with pytest.raises(UnavailableError, match="went away"):
        place.resize(50)
    with pytest.raises(UnavailableError, match="went away"):
        worker.submit(place, lambda _: None)
    assert worker.queued_work == 0


def test_the_place_is_free_once_the_answer_is_there(worker: Worker) -> None:
    worker.submit(worker.reserve(LIMIT), lambda _: None).future.result(WAIT_S)
    assert worker.queued_work == 0


@pytest.mark.parametrize("error", [ValueError("bad row"), SystemExit(3), KeyboardInterrupt()])
def test_a_task_that_fails_does_not_end_the_loop(worker: Worker, error: BaseException) -> None:
    def fail(_: Check) -> None:
        raise error

    job = worker.submit(worker.reserve(5), fail)
    assert job.future.exception(WAIT_S) is error
    assert worker.submit(worker.reserve(5), lambda _: 7).future.result(WAIT_S) == 7
    assert worker.queued_work == 0


def test_an_abandoned_job_is_never_run(worker: Worker, gate: Gate) -> None:
    ran = threading.Event()
    job = worker.submit(worker.reserve(5), lambda _: ran.set())
    job.abandon()
    assert worker.queued_work == 10
    gate.may_end.set()
    worker.submit(worker.reserve(1), lambda _: None).future.result(WAIT_S)
    assert job.future.cancelled()
    assert not ran.is_set()


def test_a_running_job_that_is_abandoned_ends_at_its_next_check(worker: Worker) -> None:
    task = Gate()
    job = worker.submit(worker.reserve(5), task)
    assert task.is_running.wait(WAIT_S)
    job.abandon()
    task.may_end.set()
    with pytest.raises(CancelledError):
        job.future.result(WAIT_S)


def test_an_expired_job_is_never_run(worker: Worker, gate: Gate) -> None:
    ran = threading.Event()
    job = worker.submit(worker.reserve(5), lambda _: ran.set(), deadline_s=time.monotonic() - 1)
    gate.may_end.set()
    with pytest.raises(DeadlineError):
        job.future.result(WAIT_S)
    assert not ran.is_set()


def test_the_heart_beats_while_idle_and_between_chunks(worker: Worker, gate: Gate) -> None:
    before = worker.heartbeat_age_s
    gate.may_end.set()
    worker.submit(worker.reserve(1), lambda check: check()).future.result(WAIT_S)
    assert worker.heartbeat_age_s < before + WAIT_S
    assert worker.is_running


def test_closing_finishes_what_waits_and_takes_nothing_more() -> None:
    worker = Worker(LIMIT)
    worker.start()
    gate = Gate()
    worker.submit(worker.reserve(1), gate)
    assert gate.is_running.wait(WAIT_S)
    place = worker.reserve(1)
    waiting = worker.submit(worker.reserve(1), lambda _: "done")
    closing = threading.Thread(target=worker.close, args=(WAIT_S,))
    closing.start()
    while not worker.is_draining:
        pass
    with pytest.raises(UnavailableError):
        worker.reserve(1)
    with pytest.raises(UnavailableError):
        worker.submit(place, lambda _: None)
    gate.may_end.set()
    closing.join(WAIT_S)
    assert waiting.future.result(0) == "done"
    assert not worker.is_running


def test_what_is_left_when_the_time_to_drain_is_over_is_told_so() -> None:
    worker = Worker(LIMIT)
    worker.start()
    gate = Gate()
    worker.submit(worker.reserve(1), gate)
    assert gate.is_running.wait(WAIT_S)
    left = worker.submit(worker.reserve(1), lambda _: "done")
    worker.close(0.01)
    assert isinstance(left.future.exception(0), UnavailableError)
    gate.may_end.set()


def test_a_task_behind_gives_way_to_all_that_has_come_at_each_check(worker: Worker) -> None:
    order: list[str] = []
    is_running, may_go_on = threading.Event(), threading.Event()

    def behind(check: Check) -> str:
        order.append("begins")
        is_running.set()
        assert may_go_on.wait(WAIT_S)
        check()
        order.append("ends")
        return "behind"

    def ask(place: int) -> Callable[[Check], None]:
        return lambda _: order.append(f"request {place}")

    first = worker.submit_behind(behind)
    second = worker.submit_behind(lambda _: order.append("next behind"))
    assert is_running.wait(WAIT_S)
    jobs = [worker.submit(worker.reserve(1), ask(place)) for place in range(3)]
    may_go_on.set()
    assert first.future.result(WAIT_S) == "behind"
    second.future.result(WAIT_S)
    assert all(job.future.done() for job in jobs)
    requests = [f"request {place}" for place in range(3)]
    assert order == ["begins", *requests, "ends", "next behind"]
    assert worker.queued_work == 0


def test_what_fails_within_a_task_behind_fails_alone(worker: Worker) -> None:
    is_running, may_go_on = threading.Event(), threading.Event()

    def behind(check: Check) -> int:
        is_running.set()
        assert may_go_on.wait(WAIT_S)
        check()
        return 1

    def fail(_: Check) -> None:
        raise InputError("expected luck, got none")

    job = worker.submit_behind(behind)
    assert is_running.wait(WAIT_S)
    failing = worker.submit(worker.reserve(1), fail)
    may_go_on.set()
    assert job.future.result(WAIT_S) == 1
    with pytest.raises(InputError, match="luck"):
        failing.future.result(WAIT_S)


def test_a_worker_that_drains_turns_tasks_behind_away_and_finishes_requests() -> None:
    worker = Worker(LIMIT)
    worker.start()
    is_running, may_go_on = threading.Event(), threading.Event()

    def behind(check: Check) -> None:
        is_running.set()
        assert may_go_on.wait(WAIT_S)
        check()

    running = worker.submit_behind(behind)
    waiting = worker.submit_behind(lambda _: None)
    assert is_running.wait(WAIT_S)
    request = worker.submit(worker.reserve(1), lambda _: "answered")
    closing = threading.Thread(target=worker.close, args=(WAIT_S,))
    closing.start()
    with pytest.raises(UnavailableError):
        waiting.future.result(WAIT_S)
    may_go_on.set()
    closing.join(WAIT_S)
    assert request.future.result(WAIT_S) == "answered"
    with pytest.raises(UnavailableError):
        running.future.result(WAIT_S)
    with pytest.raises(UnavailableError):
        worker.submit_behind(lambda _: None)


def test_a_thread_that_ends_turns_its_requests_away_and_another_takes_its_place(
    tmp_path: Path,
) -> None:
    application = Application(Settings(data_dir=tmp_path, max_queued_work=LIMIT))
    worker, vitals = application.worker, application.vitals
    seen: list[tuple[bool, bool]] = []

    def die(_: object) -> None:
        raise SystemExit("what listens to a job must never do this")

    def look(_: object) -> None:
        seen.append((vitals.health().is_live, vitals.health().is_ready))
        with pytest.raises(UnavailableError, match="another takes its place"):
            worker.reserve(1)

    with application.running():
        held = Gate()
        running = worker.submit(worker.reserve(10), held)
        assert held.is_running.wait(WAIT_S)
        running.future.add_done_callback(die)
        waiting = [
            worker.submit(worker.reserve(10), lambda _: None),
            worker.submit(worker.reserve(1), lambda _: None, urgency=Urgency.LABELLED),
            worker.submit_behind(lambda _: None),
        ]
        for job in waiting:
            job.future.add_done_callback(look)
        held.may_end.set()
        for job in waiting:
            with pytest.raises(UnavailableError, match="send the request again"):
                job.future.result(WAIT_S)
        while worker.is_lost:
            pass
        assert seen == [(True, False)] * 3
        assert worker.submit(worker.reserve(LIMIT), lambda _: "answered").future.result(WAIT_S)
        assert vitals.health().is_ready
        assert worker.queued_work == 0
