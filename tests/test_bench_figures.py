"""The benchmark of figures runs, and its loop says what the engine says. No time is asserted."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from dubito.engine import Classification, Engine, Sampling
from dubito_nn import export

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("bench_figures")
    for name in ("bench_figures", "tables"):
        del sys.modules[name]


def test_it_times_every_side_of_every_case(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "results.json"
    cases = ["c2-b1", "numbers-b1", "tags"]
    options = ["--samples", "4", "--repeats", "1", "--results", str(out)]
    monkeypatch.setattr(sys, "argv", ["bench_figures.py", "--cases", *cases, *options])
    threads = torch.get_num_threads()
    bench.main()
    torch.set_num_threads(threads)
    rows = json.loads(out.read_text())["rows"]
    assert [row["batch"] for row in rows] == [1, 1, 8]
    for row in rows:
        assert set(row["seconds"]) == {"sample", "predict", "asked", "loop"}
        assert min(row["seconds"].values()) > 0


def test_its_loop_computes_the_same_figures(bench: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, rows = bench.Hidden(5), torch.randn(3, 64)
    engine = Engine.load(
        export(network, rows, tmp_path / "n.dubito", task="classification", output="logits")
    )
    said = engine.predict(rows, sampling=Sampling(20))
    assert isinstance(said, Classification)
    by_hand = bench.figures(engine.sample(rows, sampling=Sampling(20)).double(), -1)
    names = ("mean", "variance", "predictive_entropy", "expected_entropy", "mutual_information")
    for name, column in zip(names, by_hand, strict=True):
        np.testing.assert_allclose(getattr(said, name), column.numpy(), atol=1e-6, err_msg=name)
