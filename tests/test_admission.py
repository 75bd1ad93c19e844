"""Room for requests: what waits beside the device, and a real server whose device is slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack

import httpx
import pytest
from torch import Tensor

from dubito.api.border.lag import LoopLag
from dubito.errors import QueueFullError
from dubito.serving.admission import Admission
from dubito.serving.outputs import Computed, Outputs
from dubito.serving.passage import Passage
from dubito.serving.turns.backlog import WaitingLine
from dubito.serving.worker import Check, Urgency, Worker
from dubito.settings import Settings

from .conftest import Bundles, Server
from .http import normals, predicted, upload

PREDICT = "/v1/models/animals/predict"
WAIT_S = 60
SLOW_S = 0.1
ASKED = 16


def test_what_is_decoded_and_written_is_measured_as_one_after_the_other() -> None:
    now_s = 0.0
    passage = Passage(lambda: now_s)
    assert passage.ahead_s == 0.0
    for _ in range(3):  # which say nothing: what they make ready takes no later one any time
        with passage.passing():
            now_s += 1.0
    with passage.passing():
        assert passage.ahead_s == 0.0
    for _ in range(3):
        with ExitStack() as others, passage.passing():
            for _ in range(3):
                others.enter_context(passage.passing())
            now_s += 0.2
        now_s += 5.0  # nothing is being done
    with passage.passing(), passage.passing():
        assert passage.ahead_s == pytest.approx(2 * 0.6 / 13, rel=0.05)
        now_s += 100.0  # the machine stood still
    with passage.passing():
        assert passage.ahead_s == pytest.approx(1.6 / 15, rel=0.05)


def test_a_loop_that_is_late_twice_is_waited_for_and_one_late_turn_is_not() -> None:
    lag = LoopLag()
    for late_s, ahead_s in (
        (3.0, 0.0),
        (0.001, 0.0),
        (0.5, 0.0),
        (0.8, 1.0),
        (0.3, 0.6),
        (0.0, 0.0),
    ):
        lag.note(late_s)
        assert lag.ahead_s == ahead_s


def test_a_loop_that_is_waited_for_too_long_lets_nobody_in() -> None:
    worker = Worker(100, max_wait_s=2.0)
    admission, line = Admission(worker, 100), WaitingLine(Urgency.PREDICTIONS, "model")
    admission.look(line, None, border_s=1.9)
    with pytest.raises(QueueFullError, match=r"at most 2\.0 s, got 2\.1 s"):
        admission.look(line, None, border_s=2.1)
    admission.look(line, None)


def test_memory_goes_back_after_large_bodies_once_none_is_held() -> None:
    worker = Worker(100)
    admission = Admission(worker, 2**30)
    with admission.holding() as small:
        small.take(2**20)
    assert not admission.give_back()
    with admission.holding() as other:
        other.take(1)
        with admission.holding() as large:
            large.take(2**25)
        assert not admission.give_back()
    assert admission.give_back()
    assert not admission.give_back()


class SlowDevice:
    """Takes a tenth of a second for every call, and none before the gate is open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.is_held = threading.Event()
        compute = Outputs.compute

        def slow(outputs: Outputs, inputs: Mapping[str, Tensor], check: Check) -> Computed:
            time.sleep(SLOW_S)
            self.is_held.set()
            assert self.gate.wait(WAIT_S)
            return compute(outputs, inputs, check)

        monkeypatch.setattr(Outputs, "compute", slow)


def test_a_slow_device_is_asked_for_no_more_than_it_can_do_in_time(
    serve: Callable[[Settings], Server],
    settings: Settings,
    bundles: Bundles,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = serve(settings.model_copy(update={"max_queue_ms": 500}))
    device = SlowDevice(monkeypatch)
    with httpx.Client(base_url=server.url, timeout=WAIT_S) as client:
        upload(client, "animals", bundles("first")).raise_for_status()

        def ask(seed: int) -> httpx.Response:  # of other seeds: none is computed with another
            return client.post(PREDICT, json={"inputs": normals(1).tolist(), "seed": seed})

        assert ask(0).status_code == 200
        device.is_held.clear()
        device.gate.clear()
        with ThreadPoolExecutor(ASKED) as pool:
            try:
                asked = [pool.submit(ask, 1)]
                assert device.is_held.wait(WAIT_S)
                asked += [pool.submit(ask, seed) for seed in range(2, ASKED)]
                refused = next(as_completed(asked)).result()
                assert refused.status_code == 429, refused.text
                assert int(refused.headers["Retry-After"]) >= 1
                assert refused.json()["type"] == "urn:dubito:error:queue-full"
                assert "of work ahead" in refused.json()["detail"]
                assert client.get("/health/live").status_code == 200
                hopeless = client.post(
                    f"{PREDICT}?num_samples=2",
                    content=b"no rows at all",
                    headers={"Content-Type": "application/x-npy", "X-Request-Timeout-Ms": "1"},
                )
                assert hopeless.status_code == 429  # before its body was looked at
                assert client.get("/v1/models/animals").status_code == 200
            finally:
                device.gate.set()
            codes = [future.result(WAIT_S).status_code for future in asked]
        assert set(codes) == {200, 429}
        queued = server.app.state.access.application.admission.queued
        assert queued.refused == {"wait": codes.count(429) + 1} or queued.refused == {
            "wait": codes.count(429),
            "deadline": 1,
        }
        assert (queued.ahead_s, queued.work, queued.body_bytes) == (0.0, 0, 0)
        predicted(client, normals(1))
