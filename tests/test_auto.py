"""Method `auto`: the way that was measured to do, and `mc` where none is known to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from torch import nn

from dubito.engine import Sampling
from dubito.serving.ways import TIMED_ROWS, MeasuredWays, Way, choose
from dubito.settings import Settings
from dubito_client import Client
from dubito_nn import export

from . import fitting
from .conftest import Server
from .http import upload

WIDTH = 6
MODEL = "/v1/models/wide"
PREDICT, FIT = f"{MODEL}/predict", f"{MODEL}/fit"


def rows_of(count: int, seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server with a network of two sites."""
    folder = tmp_path_factory.mktemp("auto")
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Linear(WIDTH, 32), nn.ReLU(), nn.Dropout(0.4)),
        *(nn.Linear(32, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 3)),
    )
    path = folder / "wide.dubito"
    export(network, torch.from_numpy(rows_of(4, 0)), path, task="classification", output="logits")
    server = Server(Settings(data_dir=folder / "data", warm_up_rows=(), timing_limit_ms=0))
    server.start()
    with httpx.Client(base_url=server.url, timeout=120) as client:
        upload(client, "wide", path).raise_for_status()
        yield client
    server.stop()


@pytest.fixture(scope="module")
def fitted(client: httpx.Client) -> dict[str, Any]:
    """The result of a fit of `agreement`."""
    return fitting.fitted(client, MODEL, "agreement", inputs=rows_of(400, 1).tolist())


def ask(client: httpx.Client, count: int = 3, **fields: Any) -> dict[str, Any]:
    body = {"inputs": rows_of(count, 2).tolist(), "method": "auto", **fields}
    answer = client.post(PREDICT, json=body)
    assert answer.status_code == 200, answer.text
    reply: dict[str, Any] = answer.json()
    return reply


def test_without_an_agreement_the_passes_answer_and_say_so(client: httpx.Client) -> None:
    reply = ask(client, tolerance=0.1)
    assert reply["method"] == "mc"
    assert "agreement" not in reply
    assert any("no agreement is on record" in warning for warning in reply["warnings"])
    plain = {"inputs": rows_of(3, 2).tolist(), "method": "mc"}
    assert reply["outputs"]["mean"] == client.post(PREDICT, json=plain).json()["outputs"]["mean"]


def test_every_way_is_measured_against_many_passes(fitted: dict[str, Any]) -> None:
    report = fitted["report"]
    assert (report["num_samples"], report["num_compared"]) == (256, 400)
    ways = {(way["method"], way["num_samples"], way["sites"]): way for way in report["ways"]}
    assert {("mc", 64, "all"), ("mc", 16, "all"), ("mc", 64, "last"), ("moments", 1, "all")} <= {
        *ways
    }
    errors = [ways["mc", samples, "all"]["error_of_mean"] for samples in (64, 16)]
    assert 0 < errors[0] < errors[1] < 0.5
    assert ways["mc", 64, "all"]["spearman"] > ways["mc", 16, "all"]["spearman"] > 0.5
    assert all(way["milliseconds"]["1"] > 0 for way in report["ways"])


def test_a_tolerance_is_kept_by_the_way_that_is_told(
    client: httpx.Client, fitted: dict[str, Any]
) -> None:
    """On rows that it has not seen, the stated error holds for the stated share, but for chance."""
    rows = rows_of(200, 5)
    known = ask(client, inputs=rows.tolist(), method="mc", num_samples=2000)["outputs"]["mean"]
    seen = set()
    errors_of_ways = sorted(way["error_of_mean"] for way in fitted["report"]["ways"])
    for tolerance in (1.001 * errors_of_ways[0], 1.001 * errors_of_ways[-1]):
        reply = ask(client, inputs=rows.tolist(), tolerance=tolerance)
        way = reply["agreement"]
        seen.add((reply["method"], reply["num_samples"], reply.get("sites", "all")))
        assert way["error_of_mean"] <= tolerance
        errors = np.abs(np.array(reply["outputs"]["mean"]) - np.array(known)).max(1)
        assert (errors <= way["error_of_mean"]).mean() >= 0.9, (tolerance, reply["method"])
        assert reply["outputs"]["method_used"] == [reply["method"]] * len(rows)
        assert way["fit"] == fitted["fit"]
    assert len(seen) == 2


def test_what_no_way_does_the_passes_answer(client: httpx.Client, fitted: dict[str, Any]) -> None:
    for bound, words in (
        ({"tolerance": 1e-9}, "an error of the mean of at most 1e-09"),
        ({"budget_ms": 1e-6}, "at most 1e-06 ms for 3 rows"),
        ({"tolerance": 0.2, "budget_ms": 1e-6}, "at most 0.2 and at most 1e-06 ms"),
    ):
        reply = ask(client, **bound)
        assert (reply["method"], "agreement" in reply) == ("mc", False)
        assert any(words in warning for warning in reply["warnings"]), reply["warnings"]


def test_within_a_budget_the_most_exact_way_answers(
    client: httpx.Client, fitted: dict[str, Any]
) -> None:
    reply = ask(client, budget_ms=1e6, outputs=["mean"])
    best = min(fitted["report"]["ways"], key=lambda way: way["error_of_mean"])
    assert reply["agreement"]["error_of_mean"] == best["error_of_mean"]
    assert reply["method"] == best["method"]
    with_samples = ask(client, budget_ms=1e6, outputs=["samples"])
    assert with_samples["method"] == "mc"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"method": "auto"}, "expects `tolerance`"),
        ({"method": "mc", "budget_ms": 3}, "`budget_ms` expects method `auto`, got `mc`"),
        ({"method": "auto", "budget_ms": 0}, "`budget_ms` expects a number above 0"),
        ({"method": "auto", "tolerance": -1}, "`tolerance` expects a number above 0"),
        ({"method": "auto", "budget_ms": 1, "members": [1, 1]}, "expect each other"),
    ],
)
def test_what_binds_nothing_is_refused(
    client: httpx.Client, fields: dict[str, Any], reason: str
) -> None:
    answer = client.post(PREDICT, json={"inputs": rows_of(1, 2).tolist(), **fields})
    assert answer.status_code == 422
    assert reason in answer.json()["error"]


def test_fits_and_calibrations_say_what_they_do_not_take(client: httpx.Client) -> None:
    rows = rows_of(120, 3).tolist()
    for path, fields, reason in (
        (FIT, {"method": "agreement", "inputs": rows[:20]}, "at least 100 rows, got 20"),
        (FIT, {"method": "agreement", "inputs": rows, "num_samples": 9}, "no option of a fit of"),
        (f"{MODEL}/calibrate", {"inputs": rows, "labels": [0] * 120, "method": "auto"}, "method"),
    ):
        answer = client.post(path, json=fields)
        assert answer.status_code == 422, answer.text
        assert reason in answer.json()["error"]


def test_the_client_asks_for_it(client: httpx.Client, fitted: dict[str, Any]) -> None:
    with Client(str(client.base_url)) as asked:
        said = asked.predict("wide", rows_of(3, 2), method="auto", tolerance=0.3)
        assert said.agreement is not None
        assert said.agreement["fit"] == fitted["fit"]
        assert said.method_used == [said.method] * 3


def test_a_way_of_a_fit_that_is_no_longer_active_is_passed_over() -> None:
    times = dict.fromkeys(map(str, TIMED_ROWS), 1.0)
    fast = Way("laplace", 64, "all", 3, 0.01, 0.9, times)
    slow = Way("mc", 64, "all", None, 0.02, 0.9, {"1": 5.0, "64": 68.0})
    assert slow.time_ms(10) == pytest.approx(14)
    for active, method in (({"laplace": 3}, "laplace"), ({"laplace": 4}, "mc"), ({}, "mc")):
        choice = choose(
            MeasuredWays(1, (fast, slow)),
            Sampling(),
            active,
            num_rows=1,
            tolerance=0.1,
            budget_ms=None,
            with_samples=False,
        )
        assert choice.sampling.method == method
        assert choice.told is not None


def test_the_path_of_a_pool_names_its_method(client: httpx.Client, tmp_path: Path) -> None:
    file = tmp_path / "rows.npy"
    np.save(file, rows_of(10, 1))
    headers = {"Content-Type": "application/x-npy"}
    client.post("/v1/pools?name=some", content=file.read_bytes(), headers=headers)
    asked = {"pool": "some", "method": "auto", "budget_ms": 5}
    answer = client.post(PREDICT, json=asked)
    assert answer.status_code == 422
    assert "expects rows in the request, got a pool" in answer.json()["error"]
