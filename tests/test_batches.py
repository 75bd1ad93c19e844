"""Requests that are computed together, cut apart as they were asked, each as if it were alone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dubito.asked import PredictOrder
from dubito.calibration.heads import head_of
from dubito.columns import arrays_of
from dubito.engine import Engine, Sampling
from dubito.engine.calling.sampling import Method
from dubito.serving.outputs import Built, Computed, Outputs
from dubito.serving.turns import queue
from dubito.serving.worker import Check
from dubito.settings import Settings
from dubito_nn import export

from . import golden
from .conftest import CLASSES, Bundles, Server
from .http import ANIMALS, agree, normals, predicted, upload

WAIT_S = 60
TOO_LATE = (429, 504)
"""Before it is queued, where others are ahead of it, or after."""
BUNDLES = sorted(golden.FOLDER.glob("*.dubito"))


@pytest.mark.parametrize(
    ("path", "method"),
    [
        pytest.param(path, method, id=f"{path.stem}-{method}")
        for path in BUNDLES
        for method in ("mc", "moments", "point")
        if method != "moments" or path.stem not in ("labels", "places")  # one per row alone
    ],
)
def test_what_is_cut_from_a_batch_is_what_its_rows_get_alone(path: Path, method: Method) -> None:
    engine = Engine.load(path)
    sampling = Sampling(num_samples=32, seed=3, method=method)
    names = list(head_of(engine.manifest).outputs)
    if method == "mc":
        names.append("samples")
    order = PredictOrder(model="golden", outputs=names)
    outputs = Outputs.begin(order, engine, sampling, None, may_keep_samples=True)
    rows = {name: _varied(tensor) for name, tensor in engine.made_up_rows(7).items()}
    whole = outputs.compute(rows, lambda: None)
    alone = []
    for part in (range(3), range(3, 4), range(4, 7)):
        own = {name: tensor[part.start : part.stop] for name, tensor in rows.items()}
        alone.append(outputs.compute(own, lambda: None))
        _same(outputs.build(own, whole.cut(part)), outputs.build(own, alone[-1]))
    _same(outputs.build(rows, alone[0].joined(alone[1:])), outputs.build(rows, whole))


def _varied(rows: Tensor) -> Tensor:
    scale = torch.linspace(-1, 2, len(rows)).view(-1, *[1] * (rows.ndim - 1))
    return rows * scale if rows.is_floating_point() else rows


def _same(found: Built, wanted: Built) -> None:
    assert found.warnings == wanted.warnings
    arrays = dict(arrays_of(found.outputs, 8))
    others = dict(arrays_of(wanted.outputs, 8))
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(array, others[name], atol=1e-6, rtol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(array, others[name], err_msg=name)


class Next(nn.Module):
    """Looks up the word behind the one that is asked for: what is out of bounds shows late."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.table(x + 1)
        return out


class Held:
    """A worker that stands still while requests gather, and what its networks computed."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self.worker = server.app.state.access.application.worker
        self.computed: list[int] = []
        compute = Outputs.compute

        def counted(outputs: Outputs, inputs: Mapping[str, Tensor], check: Check) -> Computed:
            self.computed.append(len(next(iter(inputs.values()))))
            return compute(outputs, inputs, check)

        monkeypatch.setattr(Outputs, "compute", counted)
        monkeypatch.setattr(queue, "BATCH_S", WAIT_S)  # nothing is cut apart by how long calls took

    @contextmanager
    def still(self) -> Iterator[None]:
        is_held, may_go_on = threading.Event(), threading.Event()

        def hold(check: Check) -> None:
            is_held.set()
            assert may_go_on.wait(WAIT_S)

        self.worker.submit(self.worker.reserve(1), hold)
        assert is_held.wait(WAIT_S)
        try:
            yield
        finally:
            may_go_on.set()

    def wait_for(self, work: int) -> None:
        """Until so many rows x samples hold a place beside what stands still."""
        deadline_s = time.monotonic() + WAIT_S
        while self.worker.queued_work != work + 1:
            assert time.monotonic() < deadline_s, self.worker.queued_work


@pytest.fixture
def server(serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles) -> Server:
    started = serve(settings)
    with httpx.Client(base_url=started.url, timeout=WAIT_S) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        labels = np.random.default_rng(5).integers(0, len(CLASSES), 120).tolist()
        body = {"inputs": normals(120, seed=3).tolist(), "labels": labels, "sets": "aps"}
        client.post(f"{ANIMALS}/calibrate", json=body).raise_for_status()
    return started


def test_what_waits_is_computed_once_and_answered_apart(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(server, monkeypatch)
    questions: list[tuple[int, dict[str, Any]]] = [
        *((1 + place % 3, {}) for place in range(8)),
        *((2, {"num_samples": 32}) for _ in range(2)),
        (1, {"masks": "independent"}),
        (1, {"masks": "independent"}),
        (1, {"calibration": "none"}),
    ]
    with httpx.Client(base_url=server.url, timeout=WAIT_S) as client:

        def ask(place: int) -> dict[str, Any]:
            rows, fields = questions[place]
            return predicted(client, normals(rows, seed=place), **fields)

        alone = [ask(place) for place in range(len(questions))]
        assert sorted(held.computed) == sorted(rows for rows, _ in questions)
        held.computed.clear()
        with ThreadPoolExecutor(len(questions)) as pool:
            with held.still():
                asked = [pool.submit(ask, place) for place in range(len(questions))]
                held.wait_for(16 * 15 + 32 * 4 + 16 * 3)
            answers = [future.result(WAIT_S) for future in asked]
        assert sorted(held.computed) == [1, 1, 1, 4, 15]
        again = [ask(place) for place in range(len(questions))]
    agree(alone, answers, abs=1e-6, rel=1e-6)
    assert again == alone


def test_a_row_that_cannot_be_computed_fails_its_own_request_alone(
    serve: Callable[[Settings], Server],
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = nn.Sequential(Next(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(8, 3))
    path = tmp_path / "words.dubito"
    example = torch.randint(7, (3, 2))
    export(network, example, path, task="classification", output="logits", classes=CLASSES)
    started = serve(settings)
    with httpx.Client(base_url=started.url, timeout=WAIT_S) as client:
        upload(client, "words", path).raise_for_status()

        def ask(word: int) -> httpx.Response:
            return client.post("/v1/models/words/predict", json={"inputs": [[word, 1]]})

        alone = [ask(word).json() for word in range(6)]
        held = Held(started, monkeypatch)
        with ThreadPoolExecutor(8) as pool:
            with held.still():
                asked = [pool.submit(ask, word) for word in [*range(6), 9]]
                gone = pool.submit(
                    client.post,
                    "/v1/models/words/predict",
                    json={"inputs": [[7, 7]]},
                    headers={"X-Request-Timeout-Ms": "1"},
                )
                assert gone.result(WAIT_S).status_code in TOO_LATE
                held.wait_for(16 * 7)
            replies = [future.result(WAIT_S) for future in asked]
    assert held.computed[0] == 7
    assert [reply.status_code for reply in replies] == [200] * 6 + [422]
    assert "does not have" in replies[-1].json()["detail"]
    agree(alone, [reply.json() for reply in replies[:6]], abs=1e-6, rel=1e-6)


def test_clients_of_all_kinds_get_what_is_their_own(server: Server) -> None:
    """Small and large predictions, calibrations and mistakes beside each other."""
    large = normals(1500, seed=99)
    with httpx.Client(base_url=server.url, timeout=WAIT_S) as client:
        kinds = [{}, {"seed": 7}, {"num_samples": 50}, {"method": "moments"}]
        rows = [normals(1 + place % 3, seed=place) for place in range(12)]
        asked = [(x.tolist(), kind) for x in rows for kind in kinds]
        asked.append((large.tolist(), {"num_samples": 200}))

        def ask(place: int) -> dict[str, Any]:
            inputs, kind = asked[place]
            body = {"inputs": inputs, "calibration": "none", **kind}
            reply = client.post(f"{ANIMALS}/predict", json=body)
            assert reply.status_code == 200, reply.text
            answer: dict[str, Any] = reply.json()
            return answer

        wanted = [ask(place) for place in range(len(asked))]
        labels = np.random.default_rng(5).integers(0, len(CLASSES), 120).tolist()

        def calibrate() -> int:
            body = {"inputs": normals(120, seed=3).tolist(), "labels": labels}
            return client.post(f"{ANIMALS}/calibrate", json=body).status_code

        def mistake() -> int:
            return client.post(f"{ANIMALS}/predict", json={"inputs": [[1, 2]]}).status_code

        def late() -> int:
            body, head = {"inputs": large.tolist()}, {"X-Request-Timeout-Ms": "1"}
            return client.post(f"{ANIMALS}/predict", json=body, headers=head).status_code

        places = [place for place in range(len(asked)) for _ in range(4 if place < 48 else 2)]
        random.Random(0).shuffle(places)
        with ThreadPoolExecutor(16) as pool:
            others = [
                (codes, pool.submit(act))
                for codes, act in [((200,), calibrate), ((422,), mistake), (TOO_LATE, late)] * 3
            ]
            answers = list(pool.map(ask, places))
            assert all(future.result(WAIT_S) in codes for codes, future in others)
        health = client.get("/health/ready")
    for place, answer in zip(places, answers, strict=True):
        agree(wanted[place], answer, abs=1e-6, rel=1e-6)
    assert health.status_code == 200
    assert server.app.state.access.application.worker.queued_work == 0
