"""Moment propagation: its cost in plain forward passes, and its errors against many samples.

    python benchmarks/bench_moments.py          about an hour on one core
    python benchmarks/bench_moments.py --samples 1000    a quarter of it

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
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "machine": f"{platform.machine()}, torch {torch.__version__}, dubito {dubito.__version__}",
        "cost": [
            _cost(name, build, shape, batch, arguments.repeats)
            for name, build, shape in TIMED
            for batch in (1, 16, 128)
        ],
        "errors": [_errors(trained, arguments.samples) for trained in (*WALKED, *LINEARISED)],
    }
    path = HERE / "results" / "bench_moments.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{_table(result)}\nwritten to {path.name}")


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
    drawn = engine.predict(rows, sampling=Sampling(num_samples))
    assert isinstance(told, Classification)
    assert isinstance(drawn, Classification)
    return {
        "network": trained.name,
        "rows": len(rows),
        "mean_error_rms": float(((found.mean - many.mean(0)) / deviation).square().mean().sqrt()),
        "deviation_ratio": [float(ratio.quantile(q)) for q in (0.05, 0.5, 0.95)],
        "probability_error_mean": float(abs(told.mean - drawn.mean).mean()),
        "probability_error_max": float(abs(told.mean - drawn.mean).max()),
        "mutual_information": [
            float(told.mutual_information.mean()),
            float(drawn.mutual_information.mean()),
        ],
    }


def _table(result: dict[str, list[dict[str, object]]]) -> str:
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
