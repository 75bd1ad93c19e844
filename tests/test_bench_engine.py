"""The benchmark runs, counts the dropouts of its peers, and keeps the page. No time is asserted."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from dubito_nn import export

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
MODULES = ("networks", "peers", "rate", "tables")
KEYS = ("mlp", "cnn-spatial", "cnn-head", "encoder", "lstm", "resnet")
CPU = torch.device("cpu")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        del sys.modules[name]


def _small() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_the_loop_samples_every_site_that_the_export_finds(
    modules: dict[str, ModuleType], tmp_path: Path, key: str
) -> None:
    (case,) = [case for case in modules["networks"].CASES if case.key == key]
    network = case.build()
    bundle = export(
        network,
        torch.randn(3, *case.shape),
        tmp_path / "network.dubito",
        task="classification",
        output="logits",
    )
    peers = modules["peers"]
    loop = peers.make_peer(peers.LOOP, network, 3, CPU)
    rows = torch.randn(2, *case.shape)
    with torch.no_grad():
        assert loop.sample(rows).shape == (3, 2, 10)
        found = peers.standing(loop, rows)
    assert (found.sites, found.varies, found.failed) == (len(bundle.sites), True, None)
    assert found.is_full(len(bundle.sites))


def test_the_loop_drops_and_keeps_the_statistics_of_norms(modules: dict[str, ModuleType]) -> None:
    network = _small()
    peers = modules["peers"]
    loop = peers.make_peer(peers.LOOP, network, 4, CPU)
    assert [module.training for module in loop.network] == [True, False, True, True]
    before = loop.network[1].running_mean.clone()
    loop.sample(torch.randn(5, 3))
    assert torch.equal(loop.network[1].running_mean, before)
    assert loop.network[0].weight is not network[0].weight  # type: ignore[index, union-attr]


def test_a_network_whose_passes_do_not_differ_does_not_compare(
    modules: dict[str, ModuleType],
) -> None:
    peers = modules["peers"]
    plain = _small().eval()
    silent = peers.Peer(
        "silent", plain, lambda x: torch.stack([plain(x).softmax(-1) for _ in range(4)])
    )
    found = peers.standing(silent, torch.randn(2, 3))
    assert (found.sites, found.varies) == (0, False)
    assert not found.is_full(0)


def test_a_peer_that_fails_is_told_and_left_out(modules: dict[str, ModuleType]) -> None:
    def sample(rows: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory\nand more")

    peers = modules["peers"]
    found = peers.standing(peers.Peer("heavy", _small(), sample), torch.randn(2, 3))
    assert found.failed == "out of memory"


@pytest.mark.skipif(
    importlib.util.find_spec("torch_uncertainty") is None
    or importlib.util.find_spec("einops") is None,
    reason="torch-uncertainty is not installed",
)
@pytest.mark.parametrize("name", ["t-u, on batch", "t-u, loop"])
def test_torch_uncertainty_gives_its_passes_samples_first(
    modules: dict[str, ModuleType], name: str
) -> None:
    peers = modules["peers"]
    peer = peers.make_peer(name, _small(), 200, CPU)
    rows = torch.randn(2, 3)
    with torch.no_grad():
        passes = peer.sample(rows)
        assert passes.shape == (200, 2, 2)
        assert peers.standing(peer, rows).is_full(1)
        loop = peers.make_peer(peers.LOOP, peer.network, 200, CPU).sample(rows)
    # the means of 200 passes whose standard deviation is at most .5: 5 standard errors of the gap
    torch.testing.assert_close(passes.mean(0), loop.mean(0), atol=0.25, rtol=0)


def test_kept_units_of_the_perceptron_are_counted_on_average(
    modules: dict[str, ModuleType],
) -> None:
    flops = modules["networks"].perceptron_flops
    per_sample = 2 * (512 * 512 + 512 * 10)
    assert flops(50, 128) == 128 * (2 * 784 * 1024 + 50 * per_sample)


def test_a_rate_is_a_positive_number(modules: dict[str, ModuleType]) -> None:
    assert modules["rate"]._rate((2, 8, 8, 8), CPU, 2) > 0


def _row(**changes: object) -> dict[str, Any]:
    peers = {
        name: {"sites": 16, "varies": True, "failed": None}
        for name in ("loop", "Baal, replicate", "Baal, loop", "t-u, on batch", "t-u, loop")
    }
    times = {name: 0.1 for name in (*peers, "plain", "engine", "new seed")}
    return {
        **{"network": "encoder", "samples": 50, "batch": 4, "sites": 16, "peers": peers},
        **{"minimum_s": times, "best_full": "loop", "ratio_full": 1.62, "best_any": "loop"},
        **{"ratio_any": 1.62, "aim": 1.8, "forwards": 30.0, "matrix_share": None, **changes},
    }


def test_the_table_says_what_a_peer_misses(modules: dict[str, ModuleType]) -> None:
    row = _row(best_any="Baal, loop", ratio_any=0.5)
    row["peers"]["Baal, loop"]["sites"] = 12
    row["peers"]["Baal, replicate"]["varies"] = False
    row["peers"]["t-u, loop"]["failed"] = "no dropout found"
    head, _, cells = modules["tables"].table([row]).splitlines()
    by_name = dict(zip(head.split(" | "), cells.split(" | "), strict=True))
    assert by_name["loop"] == "100"
    assert by_name["Baal loop"] == "100 (12/16)"
    assert by_name["Baal replicate"] == "100 (0/16)"
    assert by_name["t-u loop"] == "—"
    assert (by_name["peer / engine"], by_name["aim"]) == ("1.6 (0.5)", "1.8")


def test_only_what_stands_between_the_markers_is_replaced(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    page = tmp_path / "README.md"
    page.write_text("above\n<!-- a: begin -->\nold\n<!-- a: end -->\nbelow\n")
    modules["tables"].put_between_markers(page, "a", "new")
    assert page.read_text() == "above\n<!-- a: begin -->\nnew\n<!-- a: end -->\nbelow\n"
    with pytest.raises(ValueError, match="expects one '<!-- b: begin -->'"):
        modules["tables"].put_between_markers(page, "b", "new")


@pytest.mark.parametrize("name", ["bench_engine", "bench_engine_cuda"])
def test_the_page_has_the_markers_that_the_benchmark_writes_between(name: str) -> None:
    page = (BENCHMARKS / "README.md").read_text()
    assert page.count(f"<!-- {name}: begin -->") == page.count(f"<!-- {name}: end -->") == 1


@pytest.mark.slow
def test_a_small_run_writes_its_figures_and_leaves_the_page(tmp_path: Path) -> None:
    page = (BENCHMARKS / "README.md").read_text()
    figures = tmp_path / "figures.json"
    quick = ["--samples", "3", "--batches", "1", "--repeats", "1", "--results", str(figures)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "bench_engine.py"), "--networks", "mlp", *quick],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "service"), str(ROOT / "models")]),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(figures.read_text())
    (row,) = result["rows"]
    assert (row["key"], row["samples"], row["batch"], row["sites"]) == ("mlp", 3, 1, 2)
    assert row["peers"]["loop"] == {"sites": 2, "varies": True, "failed": None}
    assert {"plain", "engine", "new seed", "loop"} <= set(row["minimum_s"])
    assert row["ratio_full"] > 0
    assert row["matrix_share"] > 0
    for name in ("baal", "torch-uncertainty"):
        if name in result["peers"]:
            compared = [row["peers"][peer] for peer in row["peers"] if peer[0].lower() == name[0]]
            assert compared == [{"sites": 2, "varies": True, "failed": None}] * 2
    assert (BENCHMARKS / "README.md").read_text() == page
