"""`dubito_client` against a real server: all that raw HTTP does, at once and awaited.

Every test runs with `Client` and with `AsyncClient`, whose coroutines are run to their end.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

import dubito_client
from dubito.settings import Settings
from dubito_client import AsyncClient, Client
from dubito_client.errors import (
    BundleRefusedError,
    ConflictError,
    InputError,
    NotFoundError,
    PreconditionFailedError,
    UnauthorizedError,
)

from . import golden
from .conftest import CLASSES, Bundles, Server
from .golden import CASES
from .holding import holding_jobs
from .http import ANIMALS, normals, upload

Kind = type[Client] | type[AsyncClient]


class Asked:
    """A client whose coroutines are awaited at once, so that both kinds are asked alike."""

    def __init__(self, client: Client | AsyncClient) -> None:
        self.client = client
        self.runner = asyncio.Runner()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def ask(*args: Any, **kwargs: Any) -> Any:
            answer = getattr(self.client, name)(*args, **kwargs)
            if inspect.isasyncgen(answer):
                return self.runner.run(_all_of(answer))
            return self.runner.run(answer) if inspect.iscoroutine(answer) else answer

        return ask

    def end(self) -> None:
        self.aclose() if isinstance(self.client, AsyncClient) else self.close()
        self.runner.close()


async def _all_of(answers: AsyncIterator[Any]) -> list[Any]:
    return [answer async for answer in answers]


@pytest.fixture(scope="module", params=[Client, AsyncClient])
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that all tests of this file ask."""
    server = Server(Settings(data_dir=tmp_path_factory.mktemp("data"), num_samples=16, poll_ms=50))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def raw(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def asked(server: Server, kind: Kind) -> Iterator[Asked]:
    asked = Asked(kind(server.url))
    yield asked
    asked.end()


@pytest.fixture
def animals(asked: Asked, raw: httpx.Client, bundles: Bundles) -> Asked:
    if raw.get(ANIMALS).status_code == 404:
        upload(raw, "animals", bundles("first")).raise_for_status()
    return asked


def test_all_the_way_from_an_upload_to_a_selection(
    asked: Asked, kind: Kind, bundles: Bundles, raw: httpx.Client
) -> None:
    model = f"way-{kind.__name__.lower()}"
    assert asked.upload(model, bundles("first")) == dubito_client.Uploaded(model=model, version=1)
    rows = normals(200)
    labels = [CLASSES[index] for index in normals(200, 1, 3).argmax(axis=1)]

    fitted = asked.calibrate(model, rows, labels, ood_inputs=normals(50) + 9, coverage=0.8)
    assert (fitted.model, fitted.calibration, fitted.num_rows) == (model, 1, 200)
    assert fitted.report.before["accuracy"] is not None
    active = asked.activate(model, 1)
    assert active.coverage == 0.8
    assert asked.calibration(model).created_at == active.created_at

    reply = asked.predict(model, rows[:5], request_id=f"of-{model}", outputs=["mean", "label"])
    assert (reply.request_id, reply.calibration, reply.version) == (f"of-{model}", 1, 1)
    assert reply.mean.shape == (5, 3)
    assert reply.variance is None
    assert set(reply.label) <= set(CLASSES)

    judged = asked.evaluate(model, rows, np.array(labels), calibration="none")
    assert judged.calibration is None
    assert (
        judged.report
        == raw.post(
            f"/v1/models/{model}/evaluate",
            json={"inputs": rows.tolist(), "labels": labels, "calibration": "none"},
        ).json()["report"]
    )

    stored = asked.feedback(model, f"of-{model}", labels[:5])
    assert [(one.calibration, one.new, one.known) for one in stored] == [(1, 5, 0)]
    (again,) = asked.feedback(model, f"of-{model}", [labels[3]], rows=np.array([3]))
    assert (again.new, again.known) == (0, 1)
    assert asked.monitoring(model).outcomes.rows == 5

    pool = asked.add_pool(rows, f"pool-{model}")
    assert (pool.num_rows, pool.columns[0].shape) == (200, [4])
    job = asked.predict_pool(model, pool.pool, outputs=["mean"])
    states = list(asked.progress(job))
    assert states[-1].state == "succeeded"
    assert [state.done for state in states] == sorted(state.done for state in states)
    result = asked.job_prediction(job)
    np.testing.assert_array_equal(result.mean, asked.predict(model, rows, outputs=["mean"]).mean)
    assert asked.jobs()[0] == asked.job(job)

    seen: list[int] = []
    job = asked.select_pool(model, pool.pool, strategy="bald", k=4, exclude=[0])
    assert asked.wait(job, lambda state: seen.append(state.done)).state == "succeeded"
    assert seen[-1] == 200
    chosen = asked.job_selection(job)
    at_once = asked.select(model, rows, strategy="bald", k=4, exclude=np.array([0]))
    np.testing.assert_array_equal(chosen.indices, at_once.indices)
    np.testing.assert_array_equal(chosen.scores, at_once.scores)
    asked.delete_pool(pool.pool)
    assert pool.pool not in [one.pool for one in asked.pools()]


def test_the_life_of_a_version(asked: Asked, kind: Kind, bundles: Bundles) -> None:
    model = f"life-{kind.__name__.lower()}"
    for name in ("first", "second"):
        asked.upload(model, str(bundles(name)))
    alias = asked.set_alias(model, "next", 2, is_new=True)
    assert alias == asked.alias(model, "next")
    with pytest.raises(PreconditionFailedError):
        asked.set_alias(model, "next", 1, is_new=True)
    with pytest.raises(PreconditionFailedError):
        asked.set_alias(model, "next", 1, revision=alias.revision + 1)
    moved = asked.set_alias(model, "next", 1, revision=alias.revision)
    assert (moved.version, moved.revision) == (1, alias.revision + 1)
    asked.delete_alias(model, "next", revision=moved.revision)

    retired = asked.retire(model, 2, "wrong labels")
    assert (retired.state, retired.reason) == ("retired", "wrong labels")
    with pytest.raises(ConflictError, match="wrong labels"):
        asked.predict(model, normals(1), version=2)
    assert asked.restore(model, 2).state != "retired"
    assert asked.load(model, 2).state == "loaded"
    assert asked.unload(model, 2).state == "available"
    asked.delete_version(model, 2)
    page = asked.model(model)
    assert [version.version for version in page.versions] == [1]
    assert page.aliases["default"].version == 1
    assert model in [one.model for one in asked.models()]
    assert asked.version(model).notes == "made for a test"
    assert [change.action for change in asked.audit(model)][-1]


def test_health_tells_what_is_loaded(animals: Asked) -> None:
    animals.load("animals")
    assert animals.is_live()
    health = animals.health()
    assert health.ready
    assert "loaded" in [version.state for version in health.models]


@pytest.mark.parametrize("name", CASES)
def test_columns_of_every_head_say_what_json_says(
    asked: Asked, raw: httpx.Client, name: str
) -> None:
    case, path = CASES[name], f"/v1/models/{name}"
    held_out = golden.rows(case, 200, 2)
    if raw.get(path).status_code == 404:
        asked.upload(name, golden.FOLDER / f"{name}.dubito")
        mean = asked.predict(name, held_out, outputs=["mean"]).mean
        truth = case.truth(mean, np.random.default_rng(3).random(mean.shape))
        key = "targets" if case.declared["task"] == "regression" else "labels"
        asked.calibrate(name, held_out, **{key: truth})
    rows = golden.rows(case, 3, 1)
    rows[2] = 3e38  # on which some networks overflow
    whole = asked.predict(name, rows)
    body = {"inputs": rows.tolist()}
    told = raw.post(f"{path}/predict", json=body).json()
    assert told["calibration"] is not None
    for column, values in told["outputs"].items():
        _says(getattr(whole, column), values)
    for field in ("version", "num_samples", "seed", "masks", "draw", "method", "warnings"):
        assert getattr(whole, field) == told[field]
    told = raw.post(f"{path}/predict", json={**body, "outputs": ["samples"]}).json()["outputs"]
    _says(asked.predict(name, rows, outputs=["samples"]).samples, told["samples"])


def _says(column: Any, values: Any) -> None:
    """A column is what JSON tells; null stands for what is no finite number there."""
    if isinstance(values, dict):
        for name, part in values.items():
            _says(column[name] if isinstance(column, dict) else getattr(column, name), part)
    elif isinstance(column, np.ndarray):
        known = np.array(values, dtype=float)
        assert column.shape == known.shape
        is_told = ~np.isnan(known)
        np.testing.assert_array_equal(column[is_told], known[is_told])
        assert column.dtype == bool or not np.isfinite(column[~is_told]).any()
    else:
        assert column == values


def test_errors_are_the_servers_in_class_and_words(animals: Asked, raw: httpx.Client) -> None:
    refused = raw.post(f"{ANIMALS}/predict", json={"inputs": [[1.0, 2.0]]}).json()
    with pytest.raises(InputError) as caught:
        animals.predict("animals", [[1.0, 2.0]])
    assert caught.value.detail == refused["detail"]
    assert caught.value.code == 422
    assert caught.value.request_id is not None
    assert str(caught.value).startswith(refused["detail"])
    with pytest.raises(InputError, match="finite"):
        animals.predict("animals", np.full((1, 4), np.nan))
    with pytest.raises(InputError) as fields:
        animals.predict("animals", normals(1), num_samples="many")
    assert fields.value.fields.keys() == {"query.num_samples"}
    with pytest.raises(NotFoundError, match="no model 'nobody'"):
        animals.predict("nobody", normals(1))
    with pytest.raises(NotFoundError):
        animals.job("../models")
    with pytest.raises(InputError, match=r"ragged|shape"):
        animals.predict("animals", [[1.0, 2.0, 3.0, 4.0], [1.0]])


def test_a_bundle_that_is_none_is_refused(asked: Asked, tmp_path: Path) -> None:
    path = tmp_path / "strange.dubito"
    path.write_bytes(b"PK nothing")
    with pytest.raises(BundleRefusedError):
        asked.upload("strange", path)
    with pytest.raises(NotFoundError):
        asked.model("strange")


def test_without_the_key_nothing_is_told_and_with_it_everything(
    serve: Callable[[Settings], Server], settings: Settings, kind: Kind
) -> None:
    server = serve(settings.model_copy(update={"api_key": SecretStr("sesame")}))
    for key in (None, "wrong"):
        shut = Asked(kind(server.url, key=key))
        with pytest.raises(UnauthorizedError, match="Authorization"):
            shut.models()
        assert shut.is_live()
        shut.end()
    opened = Asked(kind(server.url + "/", key="sesame"))
    assert opened.models() == []
    opened.end()


def test_connections_are_used_again_and_shared_with_other_timeouts(
    server: Server, kind: Kind
) -> None:
    asked = Asked(kind(server.url))
    hurried = Asked(asked.within(5.0))
    hurried.runner = asked.runner
    for one in (asked, hurried, asked):
        one.models()
    http = asked.client._http
    assert len(http._transport._pool.connections) == 1  # type: ignore[attr-defined]
    getattr(hurried, "close" if kind is Client else "aclose")()
    assert not http.is_closed
    asked.end()
    assert http.is_closed


def test_both_are_context_managers(server: Server) -> None:
    with Client(server.url) as client:
        client.is_live()
    assert client._http.is_closed

    async def use() -> AsyncClient:
        async with AsyncClient(server.url) as client:
            await asyncio.gather(*(client.is_live() for _ in range(8)))
        return client

    assert asyncio.run(use())._http.is_closed


def test_pools_come_from_files_of_any_kind_and_are_what_was_sent(
    asked: Asked, kind: Kind, tmp_path: Path
) -> None:
    rows = normals(40)
    np.save(tmp_path / "rows.npy", rows)
    np.savez(tmp_path / "rows.npz", inputs=rows)
    for ending in ("npy", "npz"):
        path = tmp_path / f"rows.{ending}"
        pool = asked.add_pool(path, f"{ending}-{kind.__name__.lower()}")
        assert (pool.num_rows, pool.format) == (40, ending)
        assert pool.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert asked.pool(pool.pool) == pool
    with pytest.raises(ConflictError, match="exists already"):
        asked.add_pool(rows, pool.pool)
    with pytest.raises(InputError, match=r"DUBITO_POOL_ADDRESSES|address"):
        asked.add_pool_from("file:///etc/rows.npy")
    with pytest.raises(InputError, match=r"rows\.txt"):
        asked.add_pool(tmp_path / "rows.txt")


def test_a_job_is_cancelled(animals: Asked, kind: Kind) -> None:
    pool = animals.add_pool(normals(50), f"cancelled-{kind.__name__.lower()}").pool
    with holding_jobs():
        job = animals.predict_pool("animals", pool)
        assert animals.cancel(job).job == job
    assert animals.wait(job).state == "cancelled"
    with pytest.raises((ConflictError, NotFoundError)):
        animals.job_prediction(job)
