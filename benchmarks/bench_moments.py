"""Moment propagation: its cost in plain forward passes, and its errors against many samples.

    python benchmarks/bench_moments.py          about an hour on one core
    python benchmarks/bench_moments.py --samples 1000    a quarter of it
    python benchmarks/bench_moments.py --only "d 256"    the encoder alone: five minutes

What is measured is kept after every network in `results/bench_moments.part.json`: a run that was
cut short goes on where it stood. With `--only` the networks whose names have the words are
measured, and take their places in the record.

Cost: processor time of one thread, so that what else runs on the machine counts less; the plain
forward pass and `Engine.predict(method="moments")` get fresh inputs at every timed call, are timed
in turn, and count with the minimum of their repetitions.

Errors: of networks trained for a moment on the digits of scikit-learn, on rows that they were not
trained on, against T = 10,000 masked passes (whose own error is 0.7 % of a standard deviation).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from networks import convolutional, perceptron
from torch import Tensor, nn
from trained import LINEARISED, WALKED, Trained, encoder

import dubito
from dubito.engine import Classification, Engine, Sampling
from dubito.engine.answering.call import EngineCall
from dubito.engine.answering.passing import propagated
from dubito.engine.kernels.precision import running
from dubito.engine.moments import OutputMoments
from dubito_nn import export

HERE = Path(__file__).parent
MOMENTS, POINT = Sampling(1, method="moments"), Sampling(1, method="point")
Build = Callable[[], nn.Module]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--only", default="", help="words in the names of networks")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    machine = f"{platform.machine()}, torch {torch.__version__}, dubito {dubito.__version__}"
    asked = {"machine": machine, **vars(arguments)}
    made = Record(HERE / "results" / "bench_moments.json", asked)
    for name, build, shape in TIMED:
        for batch in (1, 16, 128):
            timed = partial(_cost, name, build, shape, batch, arguments.repeats)
            made.measured("cost", {"network": name, "batch": batch}, timed)
    for trained in (*WALKED, *LINEARISED):
        judged = partial(_errors, trained, arguments.samples)
        made.measured("errors", {"network": trained.name}, judged)
    made.finish(machine)
    print(f"{_table(made.found)}\nwritten to {made.path.name}")


Measured = dict[str, object]


class Record:
    """What was measured, kept after each part.

    Args:
        path: of the whole.
        asked: what a run is asked for; what another one left half-done is not gone on with.
    """

    def __init__(self, path: Path, asked: Measured) -> None:
        self.path = path
        self._asked = asked
        self._part = path.with_suffix(".part.json")
        self.found: dict[str, list[Measured]] = {"cost": [], "errors": []}
        if self._part.exists():
            stored = json.loads(self._part.read_text())
            self.found = stored["found"] if stored["asked"] == asked else self.found

    def measured(self, kind: str, key: Measured, measure: Callable[[], Measured]) -> None:
        """Measure one part, unless it is there or was not asked for."""
        if str(self._asked["only"]) not in str(key["network"]) or _at(self.found[kind], key):
            return
        self.found[kind].append(measure())
        self._part.write_text(json.dumps({"asked": self._asked, "found": self.found}))

    def finish(self, machine: str) -> None:
        """Write the whole: with `only` what was measured takes its place among the rest."""
        whole: dict[str, list[Measured]] = {"cost": [], "errors": []}
        if self._asked["only"] and self.path.exists():
            whole |= json.loads(self.path.read_text())
        for kind, parts in self.found.items():
            for part in parts:
                key = {name: part[name] for name in ("network", "batch") if name in part}
                old = _at(whole[kind], key)
                whole[kind] = [one for one in whole[kind] if one not in old] + [part]
        text = json.dumps(whole | {"machine": machine}, indent=1)
        self.path.write_text(text + "\n")
        self._part.unlink()


def _at(parts: list[Measured], key: Measured) -> list[Measured]:
    return [one for one in parts if all(one[name] == value for name, value in key.items())]


def dropped_everywhere() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(64 * 49, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 10),
    )


TIMED: tuple[tuple[str, Build, tuple[int, ...]], ...] = (
    ("MLP 784-1024-1024-10, p .5", perceptron, (784,)),
    (
        "CNN, dropout .5 before its last layer",
        partial(convolutional, spatial=False),
        (1, 28, 28),
    ),
    ("CNN, dropout .2, .2, .5 everywhere", dropped_everywhere, (1, 28, 28)),
    ("encoder of 4 layers, d 256, length 64, p .1", encoder, (64,)),
)


def _engine(network: nn.Module, shape: tuple[int, ...]) -> Engine:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "network.dubito"
        export(network, torch.randn(4, *shape), path, task="classification", output="logits")
        return Engine.load(path)


def _cost(
    name: str, build: Build, shape: tuple[int, ...], batch: int, repeats: int
) -> dict[str, object]:
    torch.manual_seed(0)
    network = build().eval()
    engine = _engine(network, shape)

    def plain(rows: Tensor) -> None:
        with torch.no_grad():
            network(rows).softmax(-1)

    sides: dict[str, Callable[[Tensor], object]] = {
        "plain": plain,
        "point": lambda rows: engine.predict(rows, sampling=POINT),
        "outputs": lambda rows: _outputs(engine, rows),
        "moments": lambda rows: engine.predict(rows, sampling=MOMENTS),
    }
    calls = max(1, 64 // batch)
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(repeats):
        for side, run in sides.items():
            inputs = [torch.randn(batch, *shape) for _ in range(calls)]
            run(inputs[0])
            began_s = time.thread_time()
            for rows in inputs:
                run(rows)
            best[side] = min(best[side], (time.thread_time() - began_s) / calls)
    return {"network": name, "batch": batch} | {side: 1e3 * s for side, s in best.items()}


def _errors(trained: Trained, num_samples: int) -> dict[str, object]:
    network, rows = trained.network(), trained.held_out()
    engine = _engine(network, (64,))
    many = engine.sample(rows, sampling=Sampling(num_samples)).double()
    found, deviation = _outputs(engine, rows), many.std(0)
    ratio = (found.variance.sqrt() / deviation).flatten()
    told = engine.predict(rows, sampling=MOMENTS)
    assert isinstance(told, Classification)
    probs = many.softmax(-1)
    mean, p = torch.from_numpy(told.mean), probs.mean(0)
    information = (torch.special.entr(p) - torch.special.entr(probs).mean(0)).sum(-1)
    return {
        "network": trained.name,
        "rows": len(rows),
        "mean_error_rms": float(((found.mean - many.mean(0)) / deviation).square().mean().sqrt()),
        "deviation_ratio": [float(ratio.quantile(q)) for q in (0.05, 0.5, 0.95)],
        "samples": num_samples,
        "probability_error_mean": float((mean - p).abs().mean()),
        "probability_error_max": float((mean - p).abs().max()),
        "mutual_information": [
            float(told.mutual_information.mean()),
            float(information.mean()),
        ],
    }


def _table(result: dict[str, list[Measured]]) -> str:
    lines = [
        "| network | B | plain, ms | through the engine, ms | moments, ms | moments / plain |"
        " moments / through the engine |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["cost"]:
        plain, point, moments = (float(row[key]) for key in ("plain", "point", "moments"))  # type: ignore[arg-type]
        lines.append(
            f"| {row['network']} | {row['batch']} | {plain:.2f} | {point:.2f} | {moments:.2f} |"
            f" {moments / plain:.1f} | {moments / point:.1f} |"
        )
    lines += [
        "",
        "| network | error of the mean / s.d. | s.d. / true s.d., 5 %, median, 95 % |"
        " error of p, mean, max | mutual information, true |",
        "|---|---|---|---|---|",
    ]
    for row in result["errors"]:
        low, middle, high = row["deviation_ratio"]  # type: ignore[misc]
        told, drawn = row["mutual_information"]  # type: ignore[misc]
        cells = [
            row["network"],
            f"{row['mean_error_rms']:.3f}",
            f"{low:.2f}, {middle:.2f}, {high:.2f}",
            f"{row['probability_error_mean']:.4f}, {row['probability_error_max']:.3f}",
            f"{told:.4f}, {drawn:.4f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _outputs(engine: Engine, rows: Tensor) -> OutputMoments:
    """Mean and variance of the declared outputs."""
    with running(engine.device):
        call = EngineCall(engine.read_inputs(rows), engine.defaults)
        return OutputMoments.joined(list(propagated(engine, call)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
