"""What figures cost beside the passes that they are made of, and beside the loop that they replace.

    python benchmarks/bench_figures.py          some ten minutes; writes its table in README.md
    python benchmarks/bench_figures.py --cases c10-b1 map --repeats 5 --results FILE

Networks with one layer of dropout in front of their last map, so that passes are cheap. One
process, one thread; the sides take turns, each call with fresh rows, and count with the lower
quartile of their processor times.

    sample     `Engine.sample`: the passes alone
    predict    `Engine.predict`: the passes and all columns
    asked      the same of which `mean` and `mutual_information` are wanted
    loop       T forward passes with dropout on, stacked, and the same figures by torch: mean and
               variance, both entropies, mutual information; of numbers mean and variance
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import commit, footer, put_between_markers
from torch import Tensor, nn
from torch.nn import functional

from dubito.bench import Limits, describe_machine, interleaved
from dubito.engine import Engine
from dubito_nn import export

HERE = Path(__file__).parent


class Hidden(nn.Module):
    """A hidden layer, dropout, and a last map, on the last axis."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(64, 256), nn.Dropout(), nn.Linear(256, outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.drop(functional.relu(self.first(x))))
        return logits


class Painted(nn.Module):
    """A class at every pixel."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first, self.drop = nn.Conv2d(3, 16, 3, padding=1), nn.Dropout()
        self.last = nn.Conv2d(16, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.drop(functional.relu(self.first(x))))
        return logits


@dataclass(frozen=True)
class Case:
    """A network, its rows, and how it is declared."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch: int
    declared: dict[str, Any] = field(default_factory=lambda: {"output": "logits"})
    class_axis: int = -1


def _cases() -> dict[str, Case]:
    cases = {
        f"c{classes}-b{batch}": Case(f"{classes:,} classes", partial(Hidden, classes), (64,), batch)
        for classes in (2, 10, 30, 100, 300, 1000, 3000)
        for batch in ((1, 16, 32, 128) if classes == 1000 else (1, 16, 128))
    }
    on_pixels = {"output": "logits", "class_axis": 1}
    cases["map"] = Case(
        "map 64 x 64 x 5 classes", partial(Painted, 5), (3, 64, 64), 2, on_pixels, class_axis=1
    )
    cases["tags"] = Case(
        "tags, length 128, 20 classes",
        partial(Hidden, 20),
        (128, 64),
        8,
        {"output": "logits", "class_axis": 2},
    )
    for batch in (1, 1024):
        cases[f"numbers-b{batch}"] = Case(
            "numbers, D = 1", partial(Hidden, 1), (64,), batch, {"output": "mean"}
        )
    return cases


CASES = _cases()


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(1)
    rows = []
    for key in options.cases:
        rows.append(_measured(CASES[key], options))
        print(json.dumps(rows[-1]), flush=True)
    machine = {**asdict(describe_machine(torch.device("cpu"))), "commit": commit()}
    result = {"machine": machine, "num_samples": options.samples, "rows": rows}
    text = _section(result)
    print(text)
    path = options.results or HERE / "results" / "bench_figures.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    if options.results is None:
        put_between_markers(HERE / "README.md", "bench_figures", text)


def _measured(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(0)
    network = case.build()
    task = "regression" if case.declared["output"] == "mean" else "classification"
    with tempfile.TemporaryDirectory() as folder:
        path, example = Path(folder) / "network.dubito", torch.randn(4, *case.shape)
        bundle = export(network, example, path, task=task, **case.declared)
    engine = Engine.load(bundle, num_samples=options.samples)

    def loop(x: Tensor) -> object:
        network.train()
        with torch.no_grad():
            passes = torch.stack([network(x) for _ in range(options.samples)])
        return numbers(passes) if task == "regression" else figures(passes, case.class_axis)

    sides: dict[str, Callable[[Tensor], object]] = {
        "before": engine.predict,  # so that the next finds the caches as those after it do
        "sample": engine.sample,
        "predict": engine.predict,
        "asked": partial(engine.predict, outputs=("mean", "mutual_information")),
        "loop": loop,
    }
    limits = Limits(options.repeats, least=5, limit_s=options.seconds)
    fresh = partial(torch.randn, case.batch, *case.shape)
    timed = interleaved(sides, fresh, limits, clock=time.process_time)
    return {
        "outputs": case.name,
        "batch": case.batch,
        "seconds": {
            name: float(np.quantile(timing.seconds, 0.25))
            for name, timing in timed.items()
            if name != "before"
        },
    }


def figures(passes: Tensor, class_axis: int) -> tuple[Tensor, ...]:
    """Mean, variance, both entropies and mutual information, as one writes them."""
    axis = class_axis if class_axis < 0 else class_axis + 1
    probs = passes.softmax(axis)
    mean, variance = probs.mean(0), probs.var(0, correction=0)
    mean_axis = axis if axis < 0 else axis - 1
    total = torch.special.entr(mean).sum(mean_axis)
    expected = torch.special.entr(probs).sum(axis).mean(0)
    return mean, variance, total, expected, total - expected


def numbers(passes: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance."""
    return passes.mean(0), passes.var(0, correction=0)


def _section(result: dict[str, Any]) -> str:
    head = (
        "outputs",
        "B",
        "sample",
        "predict",
        "asked",
        "loop",
        "predict / sample",
        "more",
        "loop / predict",
    )
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in result["rows"]:
        seconds = row["seconds"]
        times = [1e3 * seconds[side] for side in ("sample", "predict", "asked", "loop")]
        sample, predict, _, loop = times
        cells = [row["outputs"], str(row["batch"]), *(f"{t:.3g}" for t in times)]
        cells += [f"{predict / sample:.2f}", f"{predict - sample:.2f}", f"{loop / predict:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"{footer(result)} Shared machine, processor time."]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--samples", type=int, default=64, help="T")
    parser.add_argument("--repeats", type=int, default=40, help="timed calls of each side")
    parser.add_argument("--seconds", type=float, default=20, help="after which 5 calls are enough")
    parser.add_argument("--results", type=Path, help="JSON goes there, and README.md stays")
    return parser


if __name__ == "__main__":
    main()
