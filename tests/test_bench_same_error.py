"""The benchmark of equal errors counts passes rightly and prints its table. No time is asserted."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from dubito.engine import Engine
from dubito_nn import export

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
MODULES = ("bench_same_error", "networks", "peers", "tables", "trained")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("bench_same_error")
    for name in MODULES:
        del sys.modules[name]


def test_it_counts_the_passes_that_make_the_same_error(bench: ModuleType, tmp_path: Path) -> None:
    """A sigmoid of a sum of dropped units that is next to linear: strata take most of its error."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 3))
    network[1].weight.data *= 0.1
    rows = torch.randn(4, 64)
    engine = Engine.load(
        export(network, rows, tmp_path / "n.dubito", task="classification", output="logits")
    )
    one_pass, error = bench.errors(engine, rows, seeds=40)
    many = engine.sample(rows, sampling=bench.Sampling(4000, draw="iid")).softmax(-1)
    assert one_pass == pytest.approx(float(many.var(0).sum()), rel=0.2)
    assert one_pass / error > 3 * bench.SAMPLES


def test_digits_are_enlarged_to_the_rows_of_every_network(bench: ModuleType) -> None:
    images = bench.digits()[0][:3]
    for case in bench.CASES:
        assert bench.enlarged(images, case).shape == (3, *case.shape)


def test_its_table_has_a_line_for_each_network(bench: ModuleType) -> None:
    row = {
        "network": "a network",
        "weights": "random",
        "passes": 100,
        "best": "loop",
        "seconds": {"engine": 0.002, "new seed": 0.004},
        "peer_s": 0.08,
        "ratio": 40.0,
        "ratio_new_seed": 20.0,
    }
    machine = dict.fromkeys(("processor", "torch", "dubito", "commit"), "x")
    text = bench.section({"machine": machine, "num_samples": 16, "peers": {}, "rows": [row]})
    assert "| a network | random | 100 | loop | 80 | 2 | 4 | 40.0 | 20.0 |" in text
