"""Answers on a GPU: as on the CPU, recorded, and the same bytes before and after it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dubito.engine import Classification, Engine, Prediction, Sampling
from dubito.engine.answering.recording import filled_rows
from dubito.engine.heads.scaling import Isotonic, Scaling, Vector
from dubito.engine.summing.sheet import Sheet
from dubito_nn import Bundle, export
from dubito_nn.dropout import StochasticDepth

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Residual(nn.Module):
    """Blocks that a sample may leave out, DropBlock's neighbours in a ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.drops = nn.ModuleList(StochasticDepth(0.4) for _ in range(3))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for block, drop in zip(self.blocks, self.drops, strict=True):
            h = h + drop(block(h.relu()))
        logits: Tensor = self.head(h.mean((2, 3)))
        return logits


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(20, 256), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(256, 256), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(256, 4),
    )  # fmt: skip


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.Dropout2d(0.3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(16 * 64, 4),
    )  # fmt: skip


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.2, batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(16 * 6, 4))


NETWORKS = {
    "mlp": (mlp, (20,)),
    "cnn": (cnn, (1, 12, 12)),
    "residual": (Residual, (1, 12, 12)),
    "encoder": (encoder, (6, 16)),
}


def exported(name: str, folder: Path) -> tuple[Bundle, tuple[int, ...]]:
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    path = folder / "network.dubito"
    bundle = export(build(), torch.randn(4, *shape), path, task="classification", output="logits")
    return bundle, shape


def same_bytes(one: Prediction, other: Prediction) -> bool:
    names = [field.name for field in fields(one) if field.name not in ("sampling", "classes")]
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in names
        if getattr(one, name) is not None
    )


@pytest.mark.gpu
@on_gpu
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_gpu_answers_as_the_cpu_does_and_records_it(name: str, tmp_path: Path) -> None:
    bundle, shape = exported(name, tmp_path)
    cpu, gpu = (Engine.load(bundle, device=device, num_samples=48) for device in ("cpu", "cuda"))
    assert gpu._recordings is not None
    recorded = len(gpu._recordings)
    assert recorded > 0
    for count in (1, 3, 20, 200):
        rows = torch.randn(count, *shape)
        expected, got = cpu.predict(rows), [gpu.predict(rows) for _ in range(3)]
        for field in ("mean", "variance", "standard_error", "mutual_information_corrected"):
            wanted, found = getattr(expected, field), getattr(got[0], field)
            np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-3, err_msg=field)
        assert same_bytes(got[0], got[1])
        assert same_bytes(got[0], got[2])
    assert len(gpu._recordings) > recorded  # 3 rows are those of 4, 20 and 200 are new


@pytest.mark.gpu
@on_gpu
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "temperature",
    [0.5, Vector((1.0, 2.0, 0.5, 1.0), (0.0, 0.1, 0.2, 0.3)), Isotonic((0.1, 0.9), (0.2, 0.7), 9)],
)
def test_calibrated_answers_are_recorded_too(temperature: Scaling, tmp_path: Path) -> None:
    bundle, shape = exported("mlp", tmp_path)
    cpu, gpu = (Engine.load(bundle, device=device) for device in ("cpu", "cuda"))
    assert gpu._recordings is not None
    recorded = len(gpu._recordings)
    rows = torch.randn(5, *shape)
    first, second = (gpu.predict(rows, temperature=temperature) for _ in range(2))
    assert len(gpu._recordings) == recorded + 1
    assert same_bytes(first, second)
    expected = cpu.predict(rows, temperature=temperature)
    np.testing.assert_allclose(second.mean, expected.mean, atol=1e-4)


@pytest.mark.gpu
@on_gpu
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_recorded_is_answered_all_the_same(tmp_path: Path) -> None:
    bundle, shape = exported("mlp", tmp_path)
    cpu, gpu = (Engine.load(bundle, device=device) for device in ("cpu", "cuda"))
    rows = torch.randn(5, *shape)
    for sampling in (
        Sampling(32, seed=7),
        Sampling(32, masks="independent"),
        Sampling(256, tolerance=0.02),
        Sampling(1, method="point"),
        Sampling(1, method="moments"),
    ):
        expected, got = (engine.predict(rows, sampling=sampling) for engine in (cpu, gpu))
        np.testing.assert_allclose(got.mean, expected.mean, atol=1e-4)
    kept = gpu.predict(rows, keep_samples=True)
    assert isinstance(kept, Classification)
    assert kept.samples is not None
    np.testing.assert_allclose(kept.samples.mean(0), kept.mean, atol=1e-9)


@pytest.mark.gpu
@on_gpu
def test_a_gpu_in_little_memory_answers_the_same(tmp_path: Path) -> None:
    bundle, shape = exported("mlp", tmp_path)
    rows = torch.randn(40, *shape)
    usual, narrow = (
        Engine.load(bundle, device="cuda", memory_budget_bytes=budget).predict(rows)
        for budget in (None, 2**20)
    )
    np.testing.assert_allclose(narrow.mean, usual.mean, atol=1e-5)


def test_calls_are_filled_up_to_few_numbers_of_rows() -> None:
    series = {filled_rows(count) for count in range(1, 2000)}
    assert sorted(series)[:10] == [1, 2, 4, 8, 16, 24, 32, 48, 64, 96]
    assert len(series) < 20
    for count in range(1, 2000):
        filled = filled_rows(count)
        assert count <= filled < 2 * count or filled == count
        assert filled == max(number for number in series if number <= filled)


def test_columns_come_back_from_a_sheet_as_they_went_in() -> None:
    columns = {
        "a": torch.rand(5, 3, dtype=torch.float64),
        "b": torch.rand(5, dtype=torch.float64),
        "c": torch.rand(5, 1, dtype=torch.float64),
    }
    found = Sheet.of(columns).on_host(4)
    assert list(found) == list(columns)
    for name, column in columns.items():
        np.testing.assert_array_equal(found[name], column[:4].numpy())
