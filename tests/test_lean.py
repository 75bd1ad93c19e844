"""Predictions of some columns: what needs no spread takes less, and is the same."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dubito.engine import Classification, Engine, Ensemble, Sampling
from dubito.engine.calling.columns import is_left_out
from dubito.engine.calling.cutting import in_one, part_of
from dubito.engine.heads.answers import LEAN_COLUMNS, SPREAD_COLUMNS
from dubito.engine.heads.logits import to_sum
from dubito.engine.summing.compiled.classes import CompiledClassSums
from dubito.engine.summing.compiled.figures import classification
from dubito.engine.summing.compiled.lean import LeanClassSums, figures
from dubito.engine.summing.sheet import on_host
from dubito.errors import InputError
from dubito_nn import export

from .http import upload

MADE = {name: name for name in LEAN_COLUMNS - {"label"}} | {"label": "label_index"}
WORDS = 3000


class Speller(nn.Module):
    """Tokens (B, S) to logits of every token over a vocabulary, (B, S, WORDS)."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.body = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(16, WORDS)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(self.table(tokens)))
        return logits


@pytest.fixture(scope="module")
def speller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("lean") / "speller.dubito", seed=0)


def exported(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    tokens = torch.randint(0, 11, (4, 6))
    export(
        Speller(),
        tokens,
        path,
        task="classification",
        output="logits",
        class_axis=2,
        free_dims={"tokens": {1: "length"}},
    )
    return path


@settings(deadline=None)
@given(
    count=st.sampled_from([1, 2, 15, 33, 64]),
    rows=st.sampled_from([1, 2, 65]),
    classes=st.sampled_from([2, 3, 33, 256, 300]),
    chunk=st.sampled_from([1, 7, 64]),
    temperature=st.sampled_from([1.0, 0.3]),
    odd=st.sampled_from(["", "certain", "gone", "nan", "inf", "equal"]),
)
def test_lean_sums_say_what_all_sums_say(
    count: int, rows: int, classes: int, chunk: int, temperature: float, odd: str
) -> None:
    draw = torch.Generator().manual_seed(count)
    raw = 3 * torch.randn(count, rows, classes, generator=draw)
    if odd == "certain":
        raw[:, -1, 1] += 200
    elif odd == "gone":
        raw[:, -1, 0] = -torch.inf
    elif odd in ("nan", "inf"):
        raw[count // 2, -1, 1] = float(odd)
    elif odd == "equal":
        raw[:, -1] = raw[0, -1].clone()
    logits = partial(to_sum, output="logits", scaling=temperature)
    lean, full = LeanClassSums(logits), CompiledClassSums(logits, None)
    for part in raw.split(chunk):
        lean.add(part, is_last=False)
    full.add(raw, is_last=True)
    found = figures(on_host(lean.sums()), lean.draws())
    wanted = classification(on_host(full.sums()), full.draws())
    assert set(found) == set(wanted) - set(SPREAD_COLUMNS)
    for name, column in found.items():
        np.testing.assert_allclose(column, wanted[name], rtol=1e-6, atol=2e-7, err_msg=name)
    if odd == "equal":
        assert found["mutual_information"][-1] == 0


def test_what_is_asked_for_is_the_same_and_the_rest_is_not_made(speller: Path) -> None:
    engine, tokens = Engine.load(speller), torch.randint(0, 11, (5, 9))
    asked, every = (
        engine.predict(tokens, outputs=["mean", "mutual_information"]),
        engine.predict(tokens),
    )
    assert isinstance(asked, Classification)
    assert isinstance(every, Classification)
    for field in MADE.values():
        np.testing.assert_allclose(getattr(asked, field), getattr(every, field), atol=2e-7)
    assert asked.positions is not None
    assert every.positions is not None
    np.testing.assert_allclose(
        asked.positions.mutual_information, every.positions.mutual_information, atol=2e-7
    )
    for field, like in SPREAD_COLUMNS.items():
        assert np.isnan(getattr(asked, field)).all()
        assert getattr(asked, field).shape == getattr(every, like).shape
    whole = engine.predict(tokens, outputs=["mean", "variance"])
    assert not np.isnan(whole.variance).any()
    again = in_one([part_of(asked, range(2)), part_of(asked, range(2, 5))])
    assert isinstance(again, Classification)
    assert is_left_out(again.variance)
    assert again.variance.shape == asked.variance.shape
    np.testing.assert_array_equal(again.mean, asked.mean)


def test_a_vocabulary_whose_spreads_do_not_fit_is_answered_without_them(speller: Path) -> None:
    engine = Engine.load(speller, memory_budget_bytes=8 * 2**20)
    tokens = torch.randint(0, 11, (2, 40))
    with pytest.raises(InputError, match="ask for `outputs` without variances"):
        engine.predict(tokens)
    answer = engine.predict(tokens, outputs=["mean"])
    np.testing.assert_allclose(answer.mean.sum(-1), 1)
    wide = Engine.load(speller).predict(tokens)
    np.testing.assert_allclose(answer.mean, wide.mean, atol=2e-7)


def test_a_tolerance_passes_and_an_ensemble_need_every_sum(speller: Path, tmp_path: Path) -> None:
    engine, tokens = Engine.load(speller), torch.randint(0, 11, (1, 3))
    another = Engine.load(exported(tmp_path / "another.dubito", seed=1))
    early = engine.predict(tokens, sampling=Sampling(64, tolerance=0.5), outputs=["mean"])
    kept = engine.predict(tokens, keep_samples=True, outputs=["mean"])
    mixed = Ensemble((engine, another)).predict(tokens, outputs=["mean"])
    for answer in (early, kept, mixed):
        assert not np.isnan(answer.variance).any()


def test_a_server_makes_what_it_is_asked_for(client: httpx.Client, speller: Path) -> None:
    assert upload(client, "speller", speller).status_code == 201
    body = {"inputs": [[1, 2, 3], [4, 5, 6]]}
    every = client.post("/v1/models/speller/predict", json=body).json()["outputs"]
    names = ["label", "mean", "position_mutual_information"]
    asked = client.post("/v1/models/speller/predict", json={**body, "outputs": names})
    assert asked.status_code == 200, asked.text
    outputs = asked.json()["outputs"]
    assert list(outputs) == names
    assert outputs["label"] == every["label"]
    np.testing.assert_allclose(outputs["mean"], every["mean"], atol=2e-7)
    lines = client.get("/health/ready").json()["models"]
    assert all(line["samples_vary"] for line in lines)
