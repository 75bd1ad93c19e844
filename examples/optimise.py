"""Bayesian optimisation of a known function with a network that has dropout.

    python examples/optimise.py

f(x) = x sin(x) on [0, 10] has a low hill at 2.0 and its top, 7.92, at 7.98. Five values are known
at first. Again and again a network learns the values, and `dubito.acquisition.select` names the two
points to try next out of 501. The picture shows the last network and where was looked.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dubito.acquisition import Acquisition, ArrayPool, select
from dubito.engine import Engine, Sampling
from dubito_nn import export
from dubito_nn.training import seeded, squared_error, train

SAMPLING = Sampling(64)


def function(x: torch.Tensor) -> torch.Tensor:
    """What is looked through, f(x) = x sin(x)."""
    return x * x.sin()


def main(arguments: list[str] | None = None) -> float:
    """Look for the top, draw where was looked; return the best value."""
    options = _options(arguments)
    torch.set_num_threads(1)
    points = torch.linspace(0, 10, 501)[:, None]
    known = [20, 110, 215, 330, 490]
    for number in range(options.rounds + 1):
        engine = _learned(points[known], number, options.epochs)
        best = float(function(points[known]).max())
        print(f"round {number}: {len(known)} values, best {best:.3f}", flush=True)
        if number == options.rounds:
            break
        asked = Acquisition(
            options.strategy, options.k, seed=number, exclude=tuple(known), incumbent=best
        )
        pool = ArrayPool(engine.read_inputs(points))
        known += select(engine, pool, asked, sampling=SAMPLING).indices.tolist()
    _draw(engine, points, known, options.out)
    print(f"written to {options.out}")
    return best


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strategy", default="expected_improvement")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("-k", type=int, default=2, help="points of a round")
    parser.add_argument("--out", type=Path, default=Path("optimise.svg"))
    parser.add_argument("--epochs", type=int, default=500, help="of training in a round")
    return parser.parse_args(arguments)


def _learned(x: torch.Tensor, seed: int, epochs: int) -> Engine:
    """A network trained on the values at x, in standardised units."""
    y = function(x)
    shift, scale = y.mean(0), y.std(0)
    with seeded(seed):
        network = nn.Sequential(
            nn.Linear(1, 256),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(256, 256),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(256, 1),
        )
        with torch.no_grad():  # bends spread over the interval
            network[0].bias.copy_(-network[0].weight[:, 0] * torch.linspace(0, 10, 256))
    train(network, x, (y - shift) / scale, loss=squared_error, epochs=epochs, seed=seed)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "function.dubito"
        scales = (shift.tolist(), scale.tolist())
        export(network, x, path, task="regression", output="mean", target_scale=scales)
        return Engine.load(path)


def _draw(engine: Engine, points: torch.Tensor, known: list[int], out: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "dubito"
    from matplotlib import pyplot

    shown = points[::4]
    found = engine.predict(shown, sampling=SAMPLING)
    mean, std = found.mean[:, 0], np.sqrt(found.variance[:, 0])
    x, tried = shown[:, 0].numpy(), points[known]
    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    axes.plot(x, function(shown)[:, 0].numpy(), color="black", linewidth=0.8, label="x sin x")
    axes.plot(x, mean, color="tab:blue", label="mean of 64 passes")
    axes.fill_between(x, mean - 2 * std, mean + 2 * std, color="tab:blue", alpha=0.2, linewidth=0)
    axes.plot(
        tried[:, 0].numpy(), function(tried)[:, 0].numpy(), "o", color="tab:orange", label="tried"
    )
    axes.set(xlabel="x")
    axes.legend(loc="upper left", frameon=False)
    figure.savefig(out, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
