"""Pieces: what fits is run at once, and what does not fit is cut."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from dubito.engine import Engine, Sampling
from dubito_nn import export

SCRIPT = """
    import resource, sys
    import torch
    from dubito.engine import Engine, Sampling
    from dubito.engine.running import passes

    torch.set_num_threads(1)
    passes.CPU_CHUNK_BYTES = 2**33  # chunks as large as the budget allows
    engine = Engine.load(sys.argv[1], num_samples=64, memory_budget_bytes=2**33)
    rows = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
    engine.sample(rows[:1])
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 80 * 2**20,) * 2)
    torch.save(engine.sample(rows), sys.argv[2])
"""


def wide(folder: Path, width: int) -> Path:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(64, width), nn.Tanh(), nn.Dropout(0.5), nn.Linear(width, 3)
    )  # fmt: skip
    path = folder / "wide.dubito"
    export(network, torch.randn(4, 64), path, task="classification", output="logits")
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_a_chunk_that_finds_no_memory_is_halved_and_the_answer_is_the_same(tmp_path: Path) -> None:
    path = wide(tmp_path, 2048)  # 64 x 256 rows of 2048 numbers: 128 MiB at once
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(path), str(tmp_path / "got.pt")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    rows = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
    expected = Engine.load(path, num_samples=64).sample(rows)
    torch.testing.assert_close(torch.load(tmp_path / "got.pt"), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_memory_stays_within_the_budget_for_many_samples_of_wide_layers(tmp_path: Path) -> None:
    path = wide_twice(tmp_path)
    script = """
        import resource, sys
        import torch
        from dubito.engine import Engine, Sampling

        budget = 192 * 2**20
        engine = Engine.load(sys.argv[1], num_samples=2, memory_budget_bytes=budget)
        rows = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))  # 730 MiB at once
        engine.predict(rows[:1])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        engine.predict(rows, sampling=Sampling(300))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(after - before)
        assert after - before <= budget, (before, after)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path)],
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert result.returncode == 0, result.stderr[-2000:]


def wide_twice(folder: Path) -> Path:
    """Two layers of 2,500 units; the map between them is narrow, so that weights stay small."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(8, 2_500), nn.ReLU(), nn.Dropout(0.5), nn.Linear(2_500, 16), nn.Tanh(),
        nn.Linear(16, 2_500), nn.ReLU(), nn.Dropout(0.5), nn.Linear(2_500, 3),
    )  # fmt: skip
    path = folder / "wide.dubito"
    export(network, torch.randn(4, 8), path, task="classification", output="logits")
    return path


def test_rows_of_weight_scaling_are_cut_into_pieces_too(tmp_path: Path) -> None:
    path = wide(tmp_path, 64)
    rows = torch.randn(300, 64)
    point = Sampling(1, method="point")
    narrow = Engine.load(path, memory_budget_bytes=8192).sample(rows, sampling=point)
    torch.testing.assert_close(narrow, Engine.load(path).sample(rows, sampling=point))
