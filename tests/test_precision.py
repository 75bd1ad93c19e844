"""Passes in bfloat16: what is rounded, what is not, what is refused, and who is told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dubito.application import Application
from dubito.engine import Engine, Ensemble, Sampling
from dubito.engine.calling.arguments import as_sampling
from dubito.engine.deviation import Deviation
from dubito.errors import InputError
from dubito.settings import Settings
from dubito_nn import export

from . import quantiles, sequences
from .conftest import CLASSES, Bundles, Server
from .declared import as_declared
from .golden import FOLDER
from .http import ANIMALS, agree, normals, upload
from .shell import run_command
from .test_calibration_record import CLASSES as RECORD

GOLDEN = ("classes", "labels", "log-probs", "number", "numbers", "one-sigmoid", "places")
HALF = torch.bfloat16


class Everything(nn.Module):
    """Convolution, norm, LSTM and attention with dropout between them, and a number a place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(3, 8, 3, padding=1), nn.BatchNorm1d(8), nn.GELU())
        self.recurrent = nn.LSTM(8, 8, 2, dropout=0.2, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.2, batch_first=True)
        self.last = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x.transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.last(self.layer(self.recurrent(hidden)[0]))
        return out


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("everything") / "all.dubito"
    declared: dict[str, Any] = {"task": "regression", "output": "mean", "output_axis": -1}
    export(Everything().eval(), torch.randn(2, 4, 3), path, **declared)
    return path


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory, everything: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("heads")
    torch.manual_seed(4)
    example = torch.from_numpy(quantiles.rows(4, 9)[0])
    declared: dict[str, Any] = quantiles.DECLARED
    export(quantiles.build(), example, folder / "quantiles.dubito", **declared)
    sequences.exported(sequences.Scorer(), folder / "sequence.dubito")
    return {
        "quantiles": folder / "quantiles.dubito",
        "sequence": folder / "sequence.dubito",
        "dense_regression": everything,
    }


@pytest.mark.parametrize("name", [*GOLDEN, "quantiles", "sequence", "dense_regression"])
def test_every_head_is_near_float32_under_the_same_masks(
    name: str, others: dict[str, Path]
) -> None:
    path = others.get(name, FOLDER / f"{name}.dubito")
    full, half = (
        Engine.load(path, num_samples=16, precision=precision, timing_limit_s=0)
        for precision in ("float32", "bfloat16")
    )
    assert full.deviation is None
    assert half.deviation is not None
    assert 0 < half.deviation.worst[1] < 0.05
    rows = half.made_up_rows(3)
    made, true = half.predict(rows), full.predict(rows)
    assert (made.sampling.precision, true.sampling.precision) == ("bfloat16", "float32")
    scale = max(1.0, float(np.nanmax(np.abs(true.mean))))
    assert made.mean == pytest.approx(true.mean, abs=0.05 * scale, nan_ok=True)
    assert (np.nan_to_num(made.mean) != np.nan_to_num(true.mean)).any()
    again = half.predict(rows)
    assert np.array_equal(again.mean, made.mean, equal_nan=True)
    masks = [
        engine.pieces("shared", rows).execution.of_samples(range(16), engine.defaults.key)
        for engine in (full, half)
    ]
    assert masks[0].keys() == masks[1].keys()
    assert all(torch.equal(masks[0][key], masks[1][key]) for key in masks[0])  # type: ignore[arg-type]


def test_products_read_rounded_numbers_and_a_mask_rounds_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, last = nn.Linear(6, 8), nn.Linear(8, 3)
    net = nn.Sequential(first, nn.ReLU(), nn.Dropout(0.1), last)
    path, x = tmp_path / "two.dubito", torch.randn(5, 6)
    export(net, x, path, task="classification", output="logits")
    engine = Engine.load(path, num_samples=4, precision="bfloat16", timing_limit_s=0)
    found = engine.sample(x)
    execution = engine.pieces("shared", {"x": x}).execution
    (mask,) = (
        value
        for value in execution.of_samples(range(4), engine.defaults.key).values()
        if isinstance(value, Tensor)
    )
    assert mask.dtype == torch.float32
    assert set(mask.unique().tolist()) <= {0.0, torch.tensor(1 / 0.9).item(), 1 / 0.9}

    def product(rows: Tensor, layer: nn.Linear) -> Tensor:
        weight, bias = (part.detach().to(HALF).double() for part in (layer.weight, layer.bias))
        return (rows.to(HALF).double() @ weight.T + bias).to(HALF)

    hidden = product(x, first).relu()
    expected = product(hidden.float() * mask.unsqueeze(1), last)
    assert found.dtype == torch.float32
    assert torch.equal(found.to(HALF).float(), found)  # one result of bfloat16, and nothing since
    assert found.double() == pytest.approx(expected.double(), rel=2**-6, abs=1e-3)  # 2 last places


def test_a_network_that_deviates_too_far_is_refused_and_so_is_tf32_without_a_gpu() -> None:
    path = FOLDER / "classes.dubito"
    with pytest.raises(InputError) as told:
        Engine.load(path, precision="bfloat16", max_deviation=1e-9)
    assert "expects figures within 1e-09 of those in float32, got `" in str(told.value)
    assert "load the network in float32, or raise `max_deviation`" in str(told.value)
    with pytest.raises(InputError, match="tf32 expects a device of CUDA, got cpu"):
        Engine.load(path, precision="tf32")
    with pytest.raises(InputError, match="`precision` expects `float32` or `bfloat16` or `tf32`"):
        Engine.load(path, precision="float16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="precision: expected float32 or bfloat16 on cpu"):
        Settings(precision="tf32")
    assert Deviation.from_json({"mean": 0.1, "other": 0.2}) is None


def test_an_engine_has_one_precision_and_an_ensemble_too(bundles: Bundles) -> None:
    half = Engine.load(bundles("first"), precision="bfloat16", timing_limit_s=0)
    assert as_sampling(Sampling(8), half.defaults).precision == "bfloat16"
    full = Engine.load(bundles("second"), timing_limit_s=0)
    with pytest.raises(InputError, match="`precision` expects float32, in which the network was"):
        full.predict(normals(2), sampling=Sampling(8, precision="bfloat16"))
    with pytest.raises(InputError, match="same precision, got bfloat16 and float32"):
        Ensemble((half, full))


def test_a_calibration_covers_the_precision_that_it_was_fitted_in() -> None:
    asked = replace(RECORD.sampling, precision="bfloat16")
    reason = RECORD.covers(asked)
    assert reason is not None
    assert "holds for precision float32 (asked: bfloat16)" in reason
    half = replace(RECORD, sampling=asked)
    assert half.covers(asked) is None
    assert type(half).from_json(half.to_json()) == half
    assert "precision" not in RECORD.to_json()["sampling"]  # type: ignore[operator]


@pytest.fixture(scope="module")
def half_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("precision") / "data"
    return Settings(data_dir=folder, num_samples=16, precision="bfloat16")


@pytest.fixture(scope="module")
def served(half_settings: Settings, bundles: Bundles) -> Iterator[httpx.Client]:
    """A server with one bundle twice: version 1 in float32, version 2 in bfloat16."""
    before = half_settings.model_copy(update={"precision": "float32"})
    with Application(before).running() as application:
        application.library.register("animals", bundles("deep"))
    server = Server(half_settings)
    server.start()
    hooks = {"response": [as_declared]}
    with httpx.Client(base_url=server.url, timeout=60, event_hooks=hooks) as client:
        upload(client, "animals", bundles("deep")).raise_for_status()
        yield client
    server.stop()


def test_versions_of_one_bundle_are_held_apart_by_their_precision(served: httpx.Client) -> None:
    asked = {"inputs": normals(6).tolist()}
    full, half = (
        served.post(f"{ANIMALS}/versions/{number}/predict", json=asked).json() for number in (1, 2)
    )
    assert ("precision" in full, half["precision"]) == (False, "bfloat16")
    agree(full["outputs"]["mean"], half["outputs"]["mean"], abs=0.02)
    assert full["outputs"]["mean"] != half["outputs"]["mean"]
    first, second = (served.get(f"{ANIMALS}/versions/{number}").json() for number in (1, 2))
    assert (first["precision"], first["deviation"]) == ("float32", None)
    assert "precision" not in first["defaults"]
    assert (second["precision"], second["defaults"]["precision"]) == ("bfloat16", "bfloat16")
    assert second["deviation"].keys() == {"mean", "predictive_entropy", "mutual_information"}
    lines = served.get("/health/ready").json()["models"]
    assert {line["version"]: line["precision"] for line in lines} == {1: "float32", 2: "bfloat16"}
    member = served.post(
        f"{ANIMALS}/predict", json={**asked, "method": "ensemble", "members": [1, 2]}
    )
    assert member.status_code == 422


def test_a_calibration_is_fitted_and_applied_in_the_versions_precision(
    served: httpx.Client,
) -> None:
    labels = np.random.default_rng(5).integers(0, len(CLASSES), 120).tolist()
    held_out = {"inputs": normals(120, seed=3).tolist(), "labels": labels}
    at = f"{ANIMALS}/versions/2"
    served.post(f"{at}/calibrate", json=held_out).raise_for_status()
    record = served.get(f"{at}/calibration").json()
    assert record["sampling"]["precision"] == "bfloat16"
    reply = served.post(f"{at}/predict", json={"inputs": normals(6).tolist()}).json()
    assert (reply["calibration"], reply["precision"]) == (record["calibration"], "bfloat16")
    assert reply["outputs"]["prediction_set"] is not None
    asked = {"parameters": {}, "inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 4]}]}
    name = served.get("/v2/models/animals/versions/2").json()["inputs"][0]["name"]
    asked["inputs"] = [{"name": name, "datatype": "FP32", "shape": [1, 4], "data": [0.0] * 4}]
    inferred = served.post("/v2/models/animals/versions/2/infer", json=asked).json()
    assert inferred["parameters"]["precision"] == "bfloat16"


def test_commands_say_the_precision_and_the_deviation(
    served: httpx.Client,
    half_settings: Settings,
    bundles: Bundles,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(half_settings.data_dir))
    monkeypatch.setenv("COLUMNS", "200")
    served.post(f"{ANIMALS}/versions/2/load").raise_for_status()
    code, out, _ = run_command(capsys, monkeypatch, "show", "animals", "2")
    assert code == 0
    assert "bfloat16; from float32 on made-up rows: mean " in out
    _, out, _ = run_command(capsys, monkeypatch, "show", "animals", "1")
    assert re.search(r"precision\s+float32\s*\n", out)
    file = tmp_path / "bench.json"
    quick = ("--repeats", 1, "--rows", 4, "--reference", 0, "--samples", 4, "--batch", 1)
    words = ("bench", bundles("first"), *quick, "--precision", "bfloat16", "--json", file)
    code, out, err = run_command(capsys, monkeypatch, *words)
    assert (code, err) == (0, "")
    assert "bfloat16: from float32 on dummy rows at most mean " in out
    assert json.loads(file.read_text())["precision"] == "bfloat16"
    code, _, err = run_command(capsys, monkeypatch, "serve", "--precision", "tf32", "--port", 0)
    assert code != 0
    assert "expected float32 or bfloat16 on cpu, got tf32" in err
