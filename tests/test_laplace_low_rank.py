"""Laplace of many classes: held against the exact form, its stated error, and its own draws."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear

from dubito.engine import Sampling
from dubito.engine.laplace import (
    ClassFactor,
    CurvatureSums,
    FitResult,
    LowRankPosterior,
    fit_classes,
    fit_low_rank,
)
from dubito.engine.laplace.drawn_low_rank import DrawnLowRank
from dubito.engine.laplace.fitting_low_rank import most_rank
from dubito.settings import Settings
from dubito_nn import export

from . import fitting
from .http import upload

MANY = "/v1/models/many"


class Rows:
    """Rows at a last map, whose features differ in scale and whose classes in frequency."""

    def __init__(self, num_classes: int, seed: int, count: int = 300, width: int = 12) -> None:
        generator = torch.Generator().manual_seed(seed)
        scale = torch.logspace(0.5, -1, width)
        self.features = (torch.randn(count, width, generator=generator) * scale).relu()
        self.weight = torch.randn(num_classes, width, generator=generator)
        self.bias = torch.randn(num_classes, generator=generator)
        self.options: dict[str, Any] = {
            "num_training_rows": 10 * count,
            "has_bias": True,
            "squared_norm": float(self.weight.square().sum() + self.bias.square().sum()),
            "held_out": None,
        }

    def scores(self, features: Tensor) -> Tensor:
        return linear(features.double(), self.weight.double(), self.bias.double())

    def exact(self) -> FitResult:
        scores = self.scores(self.features)
        seen = CurvatureSums.of_rows(self.features, scores, is_classes=True)
        return fit_classes(seen, prior_precision=None, **self.options)

    def of_rank(self, rank: int, prior: float | None = None) -> FitResult:
        scores = self.scores(self.features)
        sums = {"is_classes": True, "keeps_pairs": False}
        seen = CurvatureSums.of_rows(self.features, scores, **sums)
        factor = ClassFactor.of(self.features, self.scores, len(self.weight), lambda: None)
        return fit_low_rank(seen, factor, rank=rank, prior_precision=prior, **self.options)


@settings(max_examples=8, deadline=None)
@given(num_classes=st.integers(2, 40), seed=st.integers(0, 2**16))
def test_with_all_eigenpairs_it_is_the_exact_form(num_classes: int, seed: int) -> None:
    rows = Rows(num_classes, seed, count=120, width=6)
    assume(len(rows.scores(rows.features).argmax(-1).unique()) > 1)  # else a fit is refused
    exact, made = rows.exact(), rows.of_rank(num_classes)
    for name in ("prior_precision", "log_marginal_likelihood", "effective_parameters"):
        assert made.report[name] == pytest.approx(exact.report[name], rel=1e-6)
    expected = exact.posterior.variances(rows.features)
    torch.testing.assert_close(made.posterior.variances(rows.features), expected, rtol=1e-6, atol=0)
    scale = float(expected.max())
    found = made.posterior.covariances(rows.features[:9]) / scale
    known = exact.posterior.covariances(rows.features[:9]) / scale
    torch.testing.assert_close(found, known, rtol=0, atol=1e-6)
    assert float(str(made.report["error_of_variance"])) < 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_the_error_falls_with_the_rank_and_is_the_stated_one(seed: int) -> None:
    rows = Rows(50, seed)
    exact = rows.exact()
    prior = float(str(exact.report["prior_precision"]))
    known = exact.posterior.variances(rows.features)
    stated, found = [], []
    for rank in (2, 10, 25, 45, 50):
        made = rows.of_rank(rank, prior)
        stated.append(float(str(made.report["error_of_variance"])))
        found.append(float((made.posterior.variances(rows.features) / known - 1).abs().mean()))
    assert sorted(found, reverse=True) == found
    assert 1e-3 < found[0] < 0.3
    for one, other in zip(stated[:-1], found[:-1], strict=True):
        assert one / 2 < other < one * 2  # of 32 classes, half of them the likeliest
    assert max(stated[-1], found[-1]) < 1e-6


def test_variances_are_the_diagonal_of_the_covariances() -> None:
    rows = Rows(30, 7)
    posterior = rows.of_rank(8).posterior
    diagonal = posterior.covariances(rows.features).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(posterior.variances(rows.features), diagonal)
    assert (torch.linalg.eigvalsh(posterior.covariances(rows.features[:20])) > -1e-9).all()


def _drawn(width: int, count: int, budget: int = 2**28) -> tuple[LowRankPosterior, Tensor, Tensor]:
    rows = Rows(30, 8, width=width)
    posterior = rows.of_rank(8).posterior
    assert isinstance(posterior, LowRankPosterior)
    asked = rows.features[:6]
    maps = DrawnLowRank(posterior, torch.device("cpu"), budget)
    key = Sampling(count, draw="iid", method="laplace", fit=1).key
    return posterior, asked, torch.cat(list(maps.noise(asked, count, key)))


@pytest.mark.parametrize("width", [12, 60])
def test_draws_have_the_covariance_of_each_row(width: int) -> None:
    """8,192 draws: a correlation is known to .016 at most, five of which are allowed."""
    posterior, asked, noise_TBC = _drawn(width, 8192)
    expected = posterior.covariances(asked)
    found = torch.einsum("tbc,tbd->bcd", noise_TBC, noise_TBC).double() / len(noise_TBC)
    scale = expected.diagonal(dim1=1, dim2=2).sqrt()
    share = (found - expected) / (scale[:, :, None] * scale[:, None, :])
    assert share.abs().max() < 5 * math.sqrt(2 / 8192)


def test_draws_are_the_same_for_every_row_count_and_chunk() -> None:
    _, asked, whole = _drawn(60, 48)
    torch.testing.assert_close(_drawn(60, 48, budget=0)[2], whole, rtol=1e-4, atol=1e-5)
    posterior = Rows(30, 8, width=60).of_rank(8).posterior
    assert isinstance(posterior, LowRankPosterior)
    maps = DrawnLowRank(posterior, torch.device("cpu"), 2**28)
    key = Sampling(16, draw="iid", method="laplace", fit=1).key
    few = torch.cat(list(maps.noise(asked[:2], 16, key)))
    torch.testing.assert_close(few, whole[:16, :2], rtol=1e-4, atol=1e-5)


def test_what_is_stored_is_read_again() -> None:
    rows = Rows(30, 9)
    posterior = rows.of_rank(6).posterior
    stored = posterior.arrays()
    assert LowRankPosterior.is_stored(stored)
    assert not LowRankPosterior.is_stored(rows.exact().posterior.arrays())
    again = LowRankPosterior.from_arrays(stored)
    torch.testing.assert_close(again.variances(rows.features), posterior.variances(rows.features))


def test_the_rank_is_bound_by_memory() -> None:
    assert most_rank(100) == 100
    for num_classes in (50_000, 2**17):
        assert num_classes * (most_rank(num_classes) + 16) <= 2**24


def _rows(count: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def shared_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    data_dir = tmp_path_factory.mktemp("many-server") / "data"
    return Settings(data_dir=data_dir, num_samples=16, max_queue_ms=600_000, poll_ms=20)


@pytest.fixture(scope="module")
def many(shared: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> httpx.Client:
    """A server with a network of 2,500 classes."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 2500))
    with torch.no_grad():
        network[2].weight.mul_(8)
    example, path = torch.from_numpy(_rows(4, 0)), tmp_path_factory.mktemp("many") / "many.dubito"
    export(network, example, path, task="classification", output="logits", deterministic=True)
    upload(shared, "many", path).raise_for_status()
    return shared


def test_a_network_of_many_classes_is_fitted_and_asked(many: httpx.Client) -> None:
    body = {"inputs": _rows(120, 1).tolist(), "num_training_rows": 5000}
    result = fitting.fitted(many, MANY, "laplace", rank=40, **body)
    report = result["report"]
    assert (report["rank"], report["rows_of_rank"]) == (40, 120)
    assert 0 < report["error_of_variance"] <= report["error_of_variance_95"]
    usual = fitting.fitted(many, MANY, "laplace", **body)["report"]
    assert usual["rank"] == 256
    assert usual["error_of_variance"] < report["error_of_variance"]
    asked = {"inputs": _rows(3, 2).tolist(), "num_samples": 16}
    reply = many.post(f"{MANY}/predict", json=asked).json()
    assert (reply["method"], reply["fit"]) == ("laplace", 2)
    assert min(reply["outputs"]["mutual_information"]) > 0


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"rank": 1}, "from 2 to 2500, got 1"),
        ({"rank": 2501}, "from 2 to 2500, got 2501"),
        ({"rank": 40, "method": "distilled"}, "`rank` is no option of a fit of `distilled`"),
        ({"rank": "many"}, "rank"),
    ],
)
def test_a_rank_without_a_meaning_is_refused(
    many: httpx.Client, fields: dict[str, object], reason: str
) -> None:
    order = {"method": "laplace", "inputs": _rows(40, 1).tolist(), **fields}
    refused = many.post(f"{MANY}/fit", json=order)
    assert refused.status_code == 422
    assert reason in json.dumps(refused.json())
