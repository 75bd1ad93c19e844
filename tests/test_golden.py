"""The same bytes and the same answers as before, for every kind of head (`golden`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from dubito.settings import Settings
from dubito_nn import load_bundle

from .conftest import Server
from .golden import ANSWERS, CASES, FOLDER, answered, exported
from .http import agree

TOLERANCE = {"rel": 1e-4, "abs": 1e-6}  # of another processor and other forms
"""What is fitted hangs on where an optimiser stops."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    server = Server(Settings(data_dir=tmp_path_factory.mktemp("data"), num_samples=32))
    server.start()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client
    server.stop()


@pytest.mark.parametrize("name", CASES)
def test_export_still_makes_the_same_bytes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = FOLDER / f"{name}.dubito"
    written_by = load_bundle(known).manifest.torch_version  # which later ones repeat but for this
    monkeypatch.setattr(torch, "__version__", written_by)
    assert exported(name, tmp_path / "again.dubito").read_bytes() == known.read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_every_question_is_still_answered_alike(name: str, client: httpx.Client) -> None:
    known = json.loads(ANSWERS.read_text())
    found = answered(client, name)
    assert found.keys() == {asked for asked in known if asked.startswith(f"{name} ")}
    for asked, answer in found.items():
        agree(known[asked], answer, asked, **TOLERANCE)
