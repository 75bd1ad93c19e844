"""The metadata of every kind of network say what an inference answers, calibrated and not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from torch import nn

from dubito.settings import Settings
from dubito_nn import export

from .conftest import Server
from .declared import as_declared
from .golden import CASES, FOLDER, dense, rows
from .http import upload

NUM_HELD_OUT = 120
SHAPES = {name: CASES[name].shape for name in ("labels", "places", "number", "one-sigmoid")} | {
    "quantiles": (4,),
    "depth": (1, None, None),
}


def _export(folder: Path) -> None:
    """Quantiles, and numbers at positions of maps of any size."""
    levels = (0.05, 0.5, 0.95)
    of_levels = {"task": "regression", "output": "quantiles", "quantile_levels": levels}
    export(dense(3), torch.randn(3, 4), folder / "quantiles.dubito", **of_levels)  # type: ignore[arg-type]
    depth = nn.Sequential(nn.Dropout2d(0.3), nn.Conv2d(1, 2, 3, padding=1))
    export(
        depth,
        torch.randn(3, 1, 5, 6),
        folder / "depth.dubito",
        task="regression",
        output="mean",
        output_axis=1,
        free_dims={"input": {2: "height", 3: "width"}},
    )


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("bundles_of_heads")
    _export(folder)
    server = Server(Settings(data_dir=folder / "data", num_samples=16))
    server.start()
    hooks = {"response": [as_declared]}
    with httpx.Client(base_url=server.url, timeout=60, event_hooks=hooks) as client:
        for name in SHAPES:
            source = folder if name in ("quantiles", "depth") else FOLDER
            upload(client, name, source / f"{name}.dubito").raise_for_status()
        yield client
    server.stop()


def _check(client: httpx.Client, name: str) -> set[str]:
    """Names of what was answered, once the metadata say the same."""
    page = client.get(f"/v2/models/{name}").raise_for_status().json()
    (one,) = page["inputs"]
    shape = [2, *(6 if size == -1 else size for size in one["shape"][1:])]
    data = np.random.default_rng(0).normal(size=shape).reshape(-1).tolist()
    sent = {**one, "shape": shape, "data": data}
    reply = client.post(f"/v2/models/{name}/infer", json={"inputs": [sent]})
    outputs = reply.raise_for_status().json()["outputs"]
    assert [(o["name"], o["datatype"]) for o in page["outputs"]] == (
        [(o["name"], o["datatype"]) for o in outputs]
    )
    for said, found in zip(page["outputs"], outputs, strict=True):
        assert len(said["shape"]) == len(found["shape"]), said["name"]
        for size, other in zip(said["shape"], found["shape"], strict=True):
            assert size in (-1, other), said["name"]
    return {output["name"] for output in outputs}


@pytest.mark.parametrize("name", SHAPES)
def test_raw_outputs_are_those_of_the_metadata(client: httpx.Client, name: str) -> None:
    found = _check(client, name)
    assert "mean" in found
    assert not found & {"prediction_set", "interval.lower", "ood.flag"}
    assert ("quantiles.0.05" in found) == (name == "quantiles")
    page: dict[str, Any] = client.get(f"/v2/models/{name}").json()
    free = [-1 if size is None else size for size in SHAPES[name]]
    assert page["inputs"][0]["shape"] == [-1, *free]


@pytest.mark.parametrize("name", ["labels", "places", "number"])
def test_calibrated_outputs_are_those_of_the_metadata(client: httpx.Client, name: str) -> None:
    case = CASES[name]
    given = rows(case, NUM_HELD_OUT, seed=1)
    path = f"/v1/models/{name}"
    reply = client.post(f"{path}/predict", json={"inputs": given.tolist(), "outputs": ["mean"]})
    mean = np.array(reply.raise_for_status().json()["outputs"]["mean"])
    truths = case.truth(mean, np.random.default_rng(2).random(mean.shape))
    kind = "targets" if name == "number" else "labels"
    body = {"inputs": given.tolist(), kind: truths}
    client.post(f"{path}/calibrate", json=body).raise_for_status()
    client.put(f"{path}/calibration", json={"active": 1}).raise_for_status()
    found = _check(client, name)
    assert "ood.p_value" in found
    promised = {"interval.upper", "quantiles.0.5"} if name == "number" else {"prediction_set"}
    assert promised <= found
