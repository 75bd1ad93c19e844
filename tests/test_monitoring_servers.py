"""Predictions on one server and feedback on another; what a kill loses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from .conftest import CLASSES, NUM_FEATURES, Bundles
from .http import upload
from .processes import serving

pytestmark = pytest.mark.slow

MODEL = "/v1/models/animals"
SEEN_WITHIN_S = 20.0


def _prepare(client: httpx.Client, bundle: Path) -> None:
    upload(client, "animals", bundle).raise_for_status()
    rows = np.random.default_rng(0).normal(size=(120, NUM_FEATURES)).tolist()
    labels = np.random.default_rng(1).integers(0, len(CLASSES), 120).tolist()
    client.post(f"{MODEL}/calibrate", json={"inputs": rows, "labels": labels}).raise_for_status()


def _predict(client: httpx.Client, seed: int) -> str:
    rows = np.random.default_rng(seed).normal(size=(2, NUM_FEATURES)).tolist()
    named: str = client.post(f"{MODEL}/predict", json={"inputs": rows}).json()["request_id"]
    return named


def _send(client: httpx.Client, named: str, row: int) -> httpx.Response:
    body = {"request_id": named, "rows": [{"row": row, "label": "ant"}]}
    return client.post(f"{MODEL}/feedback", json=body)


def _outcomes(client: httpx.Client) -> Any:
    return client.get(f"{MODEL}/monitoring").raise_for_status().json()["outcomes"]


@pytest.fixture
def pair(postgres_url: str, tmp_path: Path) -> Iterator[list[httpx.Client]]:
    settings = {
        "DUBITO_DATABASE_URL": postgres_url,
        "DUBITO_OBJECT_STORE_URL": (tmp_path / "objects").as_uri(),
    }
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(tmp_path / name, settings)) for name in "ab"]
        yield [
            stack.enter_context(httpx.Client(base_url=server.url, timeout=120))
            for server in servers
        ]


@pytest.mark.postgres
def test_feedback_may_reach_another_server_than_the_prediction(
    pair: list[httpx.Client], bundles: Bundles
) -> None:
    first, second = pair
    _prepare(first, bundles("first"))
    named = _predict(first, 0)
    ends_s = time.monotonic() + SEEN_WITHIN_S
    while (reply := _send(second, named, 0)).status_code == 404:  # every look is a request
        assert time.monotonic() < ends_s
    assert reply.json()["stored"] == [{"version": 1, "calibration": 1, "new": 1, "known": 0}]
    assert _send(first, named, 0).json()["stored"][0]["known"] == 1
    _send(first, named, 1).raise_for_status()
    assert _outcomes(first) == _outcomes(second)
    assert _outcomes(first)["rows"] == 2


def test_feedback_that_was_acknowledged_survives_a_kill(bundles: Bundles, tmp_path: Path) -> None:
    acknowledged = 0
    for life in range(2):
        with (
            serving(tmp_path / "data", {}) as server,
            httpx.Client(base_url=server.url, timeout=120) as client,
        ):
            if life == 0:
                _prepare(client, bundles("first"))
            else:
                assert _outcomes(client)["rows"] == acknowledged
            for seed in range(3):
                named = _predict(client, 10 * life + seed)
                acknowledged += _send(client, named, 0).status_code == 200
            server.kill()
    with (
        serving(tmp_path / "data", {}) as server,
        httpx.Client(base_url=server.url, timeout=120) as client,
    ):
        assert _outcomes(client)["rows"] == acknowledged == 6
