"""The short way of a prediction: the same replies as by the long one, without a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from anyio import to_thread
from fastapi import FastAPI

from dubito.api import create_app
from dubito.api.shortcut import ShortcutMiddleware
from dubito.application import Application
from dubito.asked import PredictOrder
from dubito.columns import ClassNames, ClassSets, Flags, num_entries
from dubito.engine import Inputs
from dubito.errors import InputError
from dubito.settings import Settings

from .conftest import Bundles, Server
from .http import NUM_FEATURES, normals, npy, upload

ROWS = normals(2)
NPY = {"Content-Type": "application/x-npy"}
PREDICT = "/v1/models/animals/predict"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, bundles: Bundles) -> Iterator[Server]:
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("served") / "data",
        num_samples=16,
        max_rows=100,
        poll_ms=60_000,  # so that no fact is forgotten between two requests
    )
    server = Server(settings)
    server.start()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        upload(client, "animals", bundles("second")).raise_for_status()
        client.post(PREDICT, json={"inputs": ROWS.tolist()}).raise_for_status()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def long_way(served: Server) -> FastAPI:
    """An application of the same parts without the short way."""
    app = create_app(served.settings)
    app.state.access = served.app.state.access
    app.user_middleware = [
        layer for layer in app.user_middleware if layer.cls is not ShortcutMiddleware
    ]
    return app


def _asked(app: FastAPI, path: str, method: str = "POST", **request: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **request)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("path", "request_", "status"),
    [
        (PREDICT, {"json": {"inputs": ROWS.tolist()}}, 200),
        (PREDICT, {"json": {"inputs": ROWS.tolist(), "num_samples": 8, "seed": 3}}, 200),
        (PREDICT, {"json": {"inputs": ROWS.tolist()}, "headers": {"X-Request-Id": "mine"}}, 200),
        (PREDICT, {"json": {"inputs": ROWS.tolist(), "outputs": ["mean", "samples"]}}, 200),
        (PREDICT, {"json": {"inputs": normals(90).tolist(), "calibration": "none"}}, 200),
        (PREDICT + "?num_samples=8", {"content": npy(ROWS), "headers": NPY}, 200),
        (PREDICT, {"content": npy(ROWS), "headers": {**NPY, "Accept": "application/x-npz"}}, 200),
        ("/v1/models/animals/versions/2/predict", {"json": {"inputs": ROWS.tolist()}}, 200),
        ("/v1/models/anim%61ls/predict", {"json": {"inputs": ROWS.tolist()}}, 200),
        (PREDICT, {"json": {"inputs": ROWS.tolist(), "members": [1, 2]}}, 422),
        (
            PREDICT,
            {"json": {"inputs": ROWS.tolist(), "members": [1, 2], "method": "ensemble"}},
            200,
        ),
        (PREDICT, {"json": {"inputs": [[1.0]]}}, 422),
        (PREDICT, {"json": {"inputs": [[None] * NUM_FEATURES]}}, 422),
        (PREDICT, {"json": {"inputs": [[0.0] * NUM_FEATURES] * 101}}, 422),
        (PREDICT, {"json": {"inputs": ROWS.tolist(), "outputs": ["nothing"]}}, 422),
        (PREDICT, {"json": {"inputs": ROWS.tolist(), "seed": -1}}, 422),
        (PREDICT, {"json": {"inputs": ROWS.tolist(), "model": "other"}}, 422),
        (PREDICT, {"json": {"inputs": ROWS.tolist(), "sites": [7]}}, 422),
        (PREDICT, {"json": {"inputs": ROWS.tolist(), "pool": "both"}}, 422),
        (PREDICT, {"json": {"pool": "missing"}}, 404),
        (PREDICT, {"json": {}}, 422),
        (
            PREDICT,
            {"content": b'{"inputs": [[', "headers": {"Content-Type": "application/json"}},
            422,
        ),
        (PREDICT + "?seed=1", {"json": {"inputs": ROWS.tolist()}}, 422),
        (PREDICT, {"content": b"rows", "headers": {"Content-Type": "text/plain"}}, 415),
        (PREDICT, {"content": b"", "headers": {"X-Request-Timeout-Ms": "no"}}, 415),
        (PREDICT, {"json": {}, "headers": {"X-Request-Timeout-Ms": "no"}}, 422),
        (
            PREDICT,
            {"json": {"inputs": ROWS.tolist()}, "headers": {"Accept": NPY["Content-Type"]}},
            422,
        ),
        ("/v1/models/nobody/predict", {"json": {"inputs": ROWS.tolist()}}, 404),
        ("/v1/models/no%20name/predict", {"json": {"inputs": ROWS.tolist()}}, 404),
        ("/v1/models/animals/versions/9/predict", {"json": {"inputs": ROWS.tolist()}}, 404),
        ("/v1/models/animals/predict/", {"json": {"inputs": ROWS.tolist()}}, 404),
        ("/v1/models/animals/predict%0A", {"json": {"inputs": ROWS.tolist()}}, None),
        ("/v1/models//predict", {"json": {"inputs": ROWS.tolist()}}, 404),
        ("/v1/models/animals%2Fpredict", {"json": {"inputs": ROWS.tolist()}}, None),
        (PREDICT, {"method": "GET"}, 405),
        (PREDICT, {"method": "OPTIONS"}, 405),
    ],
)
def test_both_ways_give_the_same_bytes(
    served: Server, long_way: FastAPI, path: str, request_: dict[str, Any], status: int | None
) -> None:
    short, long = (_asked(app, path, **request_) for app in (served.app, long_way))
    assert short.status_code == long.status_code == (status or long.status_code), short.text
    assert short.headers.raw == long.headers.raw
    assert short.content == long.content


def test_a_small_prediction_takes_no_thread(served: Server) -> None:
    async def ask() -> httpx.Response:
        limiter = to_thread.current_default_thread_limiter()
        for place in range(int(limiter.total_tokens)):
            limiter.acquire_on_behalf_of_nowait(f"held {place}")
        transport = httpx.ASGITransport(served.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(PREDICT, json={"inputs": ROWS.tolist()})

    assert asyncio.run(asyncio.wait_for(ask(), 60)).status_code == 200


@pytest.fixture
def application(settings: Settings, bundles: Bundles, tmp_path: Path) -> Iterator[Application]:
    settings.data_dir.mkdir()
    with Application(settings.model_copy(update={"poll_ms": 60_000})).running() as made:
        made.library.facts.start()
        for name in ("first", "second"):
            with made.library.incoming() as path:
                path.write_bytes(bundles(name).read_bytes())
                made.library.register("animals", path)
        yield made


def test_nothing_is_read_or_loaded_at_once(application: Application) -> None:
    ask, order = application.ask, PredictOrder(model="animals", inputs=ROWS.tolist())

    def at_once(order: PredictOrder = order) -> bool:
        place = application.worker.reserve(1)
        job = ask.at_once(order, reservation=place)
        if job is None:
            place.check()  # is held for whoever asks again
            place.release()
            return False
        assert job.future.result(60).outputs["mean"].shape == (2, 3)  # type: ignore[union-attr]
        return True

    assert not at_once()
    known = ask(order).future.result(60)
    assert at_once()
    found = ask.at_once(order)
    assert found is not None
    assert np.array_equal(found.future.result(60).outputs["mean"], known.outputs["mean"])  # type: ignore[arg-type]
    assert not at_once(PredictOrder(model="animals", inputs=ROWS.tolist(), members=[1, 1]))
    application.library.facts.forget()
    assert not at_once()
    application.library.version("animals")
    assert at_once()
    application.library.unload("animals", "1")
    assert not at_once()
    ask(order).future.result(60)
    assert at_once()
    application.library.set_alias("animals", "default", 2)
    application.registry.retire("animals", "1", "old")
    application.library.version("animals", "1")
    assert not at_once(PredictOrder(model="animals", version="1", inputs=ROWS.tolist()))
    assert application.worker.queued_work == 0


def test_a_prediction_like_one_before_is_queued_as_that_was(application: Application) -> None:
    ask, rows = application.ask, normals(3, seed=5).tolist()
    order = PredictOrder(model="animals", inputs=ROWS.tolist(), seed=3)
    known = ask(PredictOrder(model="animals", inputs=rows, seed=3)).future.result(60)

    def again(key: str = "seed 3", inputs: Inputs = rows) -> Any:
        place = application.worker.reserve(1)
        job = ask.again("animals", "default", key, inputs, None, reservation=place)
        if job is None:
            place.check()  # is held for whoever asks otherwise
            place.release()
        return None if job is None else job.future.result(60)

    def first() -> None:
        job = ask.at_once(order, "seed 3")
        assert job is not None
        job.future.result(60)  # else what comes next is joined with it

    assert again() is None
    first()
    reply = again()
    assert np.array_equal(reply.outputs["mean"], known.outputs["mean"])
    assert (reply.sampling, reply.warnings) == (known.sampling, known.warnings)
    assert again("seed 4") is None
    with pytest.raises(InputError, match="expects rows of shape"):
        again(inputs=[[1.0]])
    application.library.facts.forget()
    assert again() is None
    application.library.version("animals")
    assert again() is None  # read anew, it may be another version
    first()
    assert again() is not None
    application.library.unload("animals", "1")
    assert again() is None
    assert application.worker.queued_work == 0


def test_what_a_body_says_beside_its_rows_is_told_apart(served: Server) -> None:
    def asked(**fields: Any) -> httpx.Response:
        with httpx.Client(base_url=served.url, timeout=60) as client:
            return client.post(PREDICT, json={"inputs": ROWS.tolist(), **fields})

    assert asked(method="point", num_samples=1).status_code == 200
    assert asked(method="point", num_samples=1).status_code == 200
    assert asked(method="point", num_samples=True).status_code == 422
    assert asked(seed=1).content == asked(seed=1).content != asked(seed=2).content
    assert asked(calibration="none").json()["warnings"] != asked().json()["warnings"]


def test_what_is_refused_at_once_gives_its_place_back(application: Application) -> None:
    application.ask(PredictOrder(model="animals", inputs=ROWS.tolist())).future.result(60)
    rows: Inputs = [[1.0]]
    with pytest.raises(InputError, match="expects rows of shape"):
        application.ask.at_once(PredictOrder(model="animals", inputs=rows))
    assert application.worker.queued_work == 0


def test_a_calibration_that_is_not_read_is_not_read_at_once(application: Application) -> None:
    order = PredictOrder(model="animals", inputs=ROWS.tolist())
    calibrate = _calibration()
    application.ask(calibrate).future.result(60)
    application.ask(order).future.result(60)
    assert application.ask.at_once(order) is not None
    application.ask.calibrations._records.clear()
    assert application.ask.at_once(order) is None


def _calibration() -> Any:
    from dubito.asked import CalibrateOrder

    labels = np.random.default_rng(0).integers(0, 3, 200).tolist()
    return CalibrateOrder(model="animals", inputs=normals(200).tolist(), labels=labels)


def test_entries_of_columns_are_counted_through_all_their_kinds() -> None:
    columns = {
        "mean": np.zeros((2, 3)),
        "label": ["a", None],
        "prediction_set": ClassSets(np.ones((2, 3), bool), np.ones(2, bool), ("a", "b", "c")),
        "labels": ClassNames(np.zeros((2, 5), int), ("a",)),
        "ood": {"score": np.zeros(2), "flag": Flags(np.zeros(2, bool), np.ones(2, bool))},
        "decision": None,
    }
    assert num_entries(columns) == 6 + 2 + 6 + 10 + 4
