"""Several devices: one queue, a worker and a copy of every network for each."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from heapq import heapify, heapreplace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dubito.application import Application
from dubito.asked import CalibrateOrder, PredictOrder
from dubito.engine.replicas import replicas
from dubito.errors import UnavailableError
from dubito.serving.turns.backlog import free_in_s
from dubito.serving.worker import Check, Urgency, Worker
from dubito.settings import Settings

from .conftest import Bundles
from .http import normals

WAIT_S = 20
THREADS = ("dubito-worker-0", "dubito-worker-1")


class Gate:
    """A task that holds its device until it is let go, and says which thread that is."""

    def __init__(self) -> None:
        self.thread = ""
        self.is_running = threading.Event()
        self.may_end = threading.Event()

    def __call__(self, check: Check) -> str:
        self.thread = threading.current_thread().name
        self.is_running.set()
        assert self.may_end.wait(WAIT_S)
        check()
        return self.thread


def held(worker: Worker) -> Gate:
    """A device that is held."""
    gate = Gate()
    worker.submit(worker.reserve(1), gate)
    assert gate.is_running.wait(WAIT_S)
    return gate


def on_each(application: Application, order: Any) -> Iterator[Any]:
    """The answers of each device while the other one is held."""
    for thread in THREADS:
        gates = {gate.thread: gate for gate in (held(application.worker), held(application.worker))}
        gates[thread].may_end.set()
        yield application.ask(order).future.result(WAIT_S)
        for gate in gates.values():
            gate.may_end.set()


@pytest.fixture
def worker() -> Iterator[Worker]:
    started = Worker(100, devices=("cpu", "cpu"))
    started.start()
    yield started
    started.close(WAIT_S)


@pytest.fixture(scope="module")
def application(
    tmp_path_factory: pytest.TempPathFactory, bundles: Bundles
) -> Iterator[Application]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("devices"), devices=("cpu", "cpu"))
    with Application(settings).running() as made:
        with made.library.incoming() as path:
            shutil.copyfile(bundles("first"), path)
            made.library.register("animals", path)
        yield made


def test_what_waits_goes_to_the_first_device_that_is_free(worker: Worker) -> None:
    first, second = held(worker), held(worker)
    assert {first.thread, second.thread} == set(THREADS)
    waits = Gate()
    waits.may_end.set()
    job = worker.submit(worker.reserve(1), waits)
    second.may_end.set()
    assert job.future.result(WAIT_S) == second.thread
    first.may_end.set()


def test_jobs_behind_all_requests_run_on_the_first_device(worker: Worker) -> None:
    gates = {gate.thread: gate for gate in (held(worker), held(worker))}
    jobs = [worker.submit_behind(lambda _: threading.current_thread().name) for _ in range(3)]
    gates["dubito-worker-1"].may_end.set()
    passed = worker.submit(worker.reserve(1), lambda _: threading.current_thread().name)
    assert passed.future.result(WAIT_S) == "dubito-worker-1"
    assert not any(job.future.done() for job in jobs)
    gates["dubito-worker-0"].may_end.set()
    assert {job.future.result(WAIT_S) for job in jobs} == {"dubito-worker-0"}


def test_a_thread_that_ends_takes_along_what_it_ran_alone(application: Application) -> None:
    worker, vitals = application.worker, application.vitals
    seen: list[tuple[bool, bool, list[bool]]] = []

    def look(_: object) -> None:
        health = vitals.health()
        seen.append((health.is_live, health.is_ready, [one.is_running for one in health.workers]))

    def die(_: object) -> None:
        raise SystemExit("what listens to a job must never do this")

    def give_way(check: Check) -> None:
        began.set()
        assert may_give_way.wait(WAIT_S)
        check()

    other, began, may_give_way = held(worker), threading.Event(), threading.Event()
    lost = worker.submit(worker.reserve(10), give_way, urgency=Urgency.LABELLED)
    lost.future.add_done_callback(look)
    assert began.wait(WAIT_S)
    deadly = worker.submit(worker.reserve(1), lambda _: "answered")
    deadly.future.add_done_callback(die)
    waiting = worker.submit(worker.reserve(1), lambda _: "answered", urgency=Urgency.LABELLED)
    may_give_way.set()
    assert waiting.future.result(WAIT_S) == deadly.future.result(WAIT_S) == "answered"
    with pytest.raises(UnavailableError, match="send the request again"):
        lost.future.result(WAIT_S)
    other.may_end.set()
    assert seen == [(True, False, [one == other.thread for one in THREADS])]
    while worker.is_lost:
        pass
    assert vitals.health().is_ready


def test_every_device_gives_the_same_bits(application: Application) -> None:
    version = application.library.version("animals")
    engines = replicas(application.library.engine(version))
    assert len(engines) == 2
    assert engines[0].plans is not engines[1].plans
    order = PredictOrder(model="animals", inputs=normals(5, seed=1), num_samples=16, seed=3)
    here, there = (
        [np.asarray(reply.outputs[name]).tobytes() for name in ("mean", "standard_error")]
        for reply in on_each(application, order)
    )
    assert here == there


def test_a_calibration_is_the_same_on_every_device(application: Application) -> None:
    rows = normals(80, seed=2)
    labels = [int(label) for label in rows[:, 0] > 0]
    order = CalibrateOrder(model="animals", inputs=rows, labels=labels, num_samples=16)
    here, there = (reply.record.to_json() for reply in on_each(application, order))
    assert here == there


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=5),
    st.lists(st.floats(0.01, 1), max_size=30),
)
def test_the_first_free_device_is_as_foreseen(busy: list[float], parts: list[float]) -> None:
    ends = list(busy)
    heapify(ends)
    for part in parts:
        heapreplace(ends, ends[0] + part)
    foreseen = free_in_s(busy, sum(parts))
    assert foreseen - 1 <= min(ends) <= foreseen + 1e-9


@pytest.mark.parametrize(
    ("devices", "said"),
    [("cpu,cuda", "one kind, got cpu and cuda"), ("gpu", "cpu, cuda or cuda:1, got 'gpu'")],
)
def test_devices_are_known_and_of_one_kind(devices: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Settings.model_validate({"devices": devices})


def test_a_worker_that_drains_ends_all_its_threads() -> None:
    closing = Worker(100, devices=("cpu", "cpu", "cpu"))
    closing.start()
    jobs = [closing.submit(closing.reserve(1), lambda _: "answered") for _ in range(9)]
    closing.close(WAIT_S)
    assert [job.future.result(0) for job in jobs] == ["answered"] * 9
    assert not any(state.is_running for state in closing.states)
    with pytest.raises(UnavailableError):
        closing.submit(closing.reserve(1), lambda _: None, urgency=Urgency.LABELLED)
