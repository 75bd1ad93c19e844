"""Every hostile bundle is refused over HTTP with its reason, and leaves nothing behind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from dubito.settings import Settings

from .conftest import Server
from .corpus.cases import Case
from .corpus.good import GOOD
from .corpus.parts import good_parts
from .corpus.table import CASES

OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has one model, `good`, for all uploads of this module."""
    folder = tmp_path_factory.mktemp("hostile")
    server = Server(Settings(data_dir=folder / "data", num_samples=16))
    server.start()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        content = good_parts(folder / "canary").sealed()
        _upload(client, "good", content).raise_for_status()
    yield server
    server.stop()


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def _upload(client: httpx.Client, model: str, content: bytes) -> httpx.Response:
    return client.post(f"/v1/models/{model}/versions", content=content, headers=OCTETS)


def _state(client: httpx.Client, data_dir: Path) -> tuple[object, list[str]]:
    """What the database tells, and every file but those of the database."""
    files = sorted(
        str(path.relative_to(data_dir))
        for path in data_dir.rglob("*")
        if path.is_file() and not path.name.startswith("dubito.sqlite3")
    )
    return client.get("/v1/models").json(), files


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_a_hostile_bundle_is_refused_with_its_reason_and_nothing_is_stored(
    server: Server, client: httpx.Client, tmp_path: Path, case: Case
) -> None:
    canary = tmp_path / "canary"
    before = _state(client, server.settings.data_dir)
    reply = _upload(client, "good", case.build(canary))
    assert reply.status_code == 422, reply.text
    body = reply.json()
    assert body["title"] == "bundle refused"
    assert re.search(case.reason, body["detail"]), body["detail"]
    assert len(body["detail"]) < 1000
    assert _state(client, server.settings.data_dir) == before
    assert not canary.exists()


def test_the_server_answers_after_all_of_them(client: httpx.Client) -> None:
    reply = client.post("/v1/models/good/predict", json={"inputs": [[0.1, 0.2, 0.3, 0.4]]})
    assert reply.status_code == 200


@pytest.mark.parametrize("name", GOOD)
def test_an_unusual_but_sound_bundle_is_taken_and_answers(
    client: httpx.Client, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "network.dubito"
    rows = GOOD[name](path)
    model = re.sub(r"[^a-z]+", "-", name)
    reply = _upload(client, model, path.read_bytes())
    assert reply.status_code == 201, reply.text
    inputs = (
        rows.tolist()
        if isinstance(rows, torch.Tensor)
        else {k: v.tolist() for k, v in rows.items()}
    )
    body = {"inputs": inputs, "num_samples": 8, "preprocess": False}
    reply = client.post(f"/v1/models/{model}/predict", json=body)
    assert reply.status_code == 200, reply.text
    assert len(reply.json()["outputs"]["mean"]) == 4 + 2 * (name == "truth values for inputs")


def test_the_corpus_is_as_large_as_it_claims() -> None:
    assert len(CASES) >= 300
    assert len(GOOD) >= 20
