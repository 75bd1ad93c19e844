"""Train, export, upload, ask what to label, label it, and again: a learning curve.

    python examples/active_learning.py                         scikit-learn's digits, minutes
    python examples/active_learning.py --data ../shared/data   MNIST, hours

A server of its own answers on a free port, in a folder that is gone afterwards. Every strategy
begins with the same few labels; after every round it gets `-k` more. The curves become an SVG.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx
import numpy as np
import torch
import uvicorn
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

from dubito.api import create_app
from dubito.settings import Settings
from dubito_nn import export
from dubito_nn.dropout import StandardFamily
from dubito_nn.networks import CNN, MLP
from dubito_nn.training import cross_entropy, seeded, train

FIRST = 20
GOAL = 0.9
BATCH = 128
PATIENT = {"X-Request-Timeout-Ms": "600000"}
Rows = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Problem:
    """Rows with their labels, and a new network for them."""

    pool: Rows
    test: Rows
    network: Callable[[], nn.Module]


def main(arguments: list[str] | None = None) -> dict[str, list[list[float]]]:
    """Draw the learning curves; return accuracies by strategy, seed and round."""
    options = _options(arguments)
    torch.set_num_threads(1)
    problem = _digits() if options.data is None else _mnist(options.data)
    with tempfile.TemporaryDirectory() as folder, _serving(Path(folder)) as client:
        curves = {
            strategy: [
                _curve(strategy, seed, problem, client, Path(folder), options)
                for seed in range(options.seeds)
            ]
            for strategy in options.strategies
        }
    for strategy, many in curves.items():
        reached = [_labels_to(GOAL, curve, options.k) for curve in many]
        print(f"{strategy}: labels to {GOAL:.0%} accuracy {reached}, median {median(reached):g}")
    _draw(curves, options)
    print(f"written to {options.out}")
    return curves


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder with mnist/")
    parser.add_argument("--strategies", nargs="+", default=["batchbald", "bald", "random"])
    parser.add_argument("-k", type=int, default=10, help="labels of a round")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="of training in a round")
    parser.add_argument("--num-samples", type=int, default=32, help="passes that a choice looks at")
    parser.add_argument("--candidates", type=int, default=300, help="that a batch is chosen from")
    parser.add_argument("--out", type=Path, default=Path("active_learning.svg"))
    return parser.parse_args(arguments)


def _digits() -> Problem:
    """Scikit-learn's 8 x 8 digits, and a perceptron."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    rows = torch.tensor(images[order] / 16, dtype=torch.float32)
    truths = torch.tensor(labels[order])
    return Problem(
        (rows[:1200], truths[:1200]),
        (rows[1200:], truths[1200:]),
        lambda: MLP(64, (128, 128), 10, dropout=StandardFamily(0.5)),
    )


def _mnist(folder: Path) -> Problem:
    """5,000 training rows and the first 2,000 test rows of MNIST, and a CNN."""
    import sys

    sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks" / "evidence"))
    from data import mnist

    digits = mnist(folder)
    return Problem(
        (digits.images[:5000], digits.labels[:5000]),
        (digits.test_images[:2000], digits.test_labels[:2000]),
        lambda: CNN((1, 28, 28), channels=(16, 32), dropout=StandardFamily()),
    )


def _labels_to(goal: float, curve: list[float], k: int) -> float:
    """Labels with which an accuracy was first reached; inf: never."""
    reached = (FIRST + k * number for number, found in enumerate(curve) if found >= goal)
    return next(reached, math.inf)


def _curve(
    strategy: str,
    seed: int,
    problem: Problem,
    client: httpx.Client,
    folder: Path,
    options: argparse.Namespace,
) -> list[float]:
    """Accuracy on the test rows after every round."""
    pool, path = problem.pool, folder / "network.dubito"
    model = f"{strategy}-{seed}".replace("_", "-")
    labelled = _first(pool[1].numpy(), seed)
    accuracies = []
    for number in range(options.rounds + 1):
        rows = pool[0][labelled], pool[1][labelled]
        _train_and_export(problem.network, rows, 100 * seed + number, options.steps, path)
        client.post(
            f"/v1/models/{model}/versions",
            content=path.read_bytes(),
            headers={"Content-Type": "application/octet-stream"},
        ).raise_for_status()
        version = f"/v1/models/{model}/versions/{number + 1}"
        accuracies.append(_accuracy(client, version, problem.test))
        print(f"{strategy}, seed {seed}, {len(labelled)} labels: {accuracies[-1]:.3f}", flush=True)
        if number == options.rounds:
            return accuracies
        question = {
            "strategy": strategy,
            "k": options.k,
            "inputs": pool[0].tolist(),
            "exclude": labelled,
            "seed": seed,
            "num_samples": options.num_samples,
            "candidates": options.candidates,
        }
        reply = client.post(f"{version}/select", json=question)
        reply.raise_for_status()
        labelled = labelled + reply.json()["indices"]  # here a person would look and label
    return accuracies


def _first(labels: NDArray[np.int64], seed: int) -> list[int]:
    """The same number of every class, drawn by the seed."""
    order = np.random.default_rng(seed).permutation(len(labels))
    return [
        int(index) for label in range(10) for index in order[labels[order] == label][: FIRST // 10]
    ]


def _train_and_export(
    network: Callable[[], nn.Module], rows: Rows, seed: int, steps: int, path: Path
) -> None:
    """A new network on all labels so far, as a bundle."""
    images, labels = rows
    with seeded(seed):
        made = network()
    epochs = max(1, steps // -(-len(images) // BATCH))
    train(
        made,
        images,
        labels,
        loss=cross_entropy,
        epochs=epochs,
        batch_size=BATCH,
        learning_rate=3e-3,
        seed=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(made, images[:8], path, task="classification", output="logits")


def _accuracy(client: httpx.Client, version: str, test: Rows) -> float:
    reply = client.post(
        f"{version}/predict",
        json={"inputs": test[0].tolist(), "outputs": ["label"], "num_samples": 16},
    )
    reply.raise_for_status()
    found = np.array(reply.json()["outputs"]["label"], dtype=np.int64)
    return float((found == test[1].numpy()).mean())


@contextmanager
def _serving(folder: Path) -> Iterator[httpx.Client]:
    """A server on a free port, and its client."""
    config = uvicorn.Config(
        create_app(Settings(data_dir=folder)), host="127.0.0.1", port=0, log_level="warning"
    )
    listening = config.bind_socket()
    listening.listen()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        with httpx.Client(base_url=address, timeout=600, headers=PATIENT) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def _draw(curves: dict[str, list[list[float]]], options: argparse.Namespace) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "dubito"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    labels = FIRST + options.k * np.arange(options.rounds + 1)
    for strategy, many in curves.items():
        (line,) = axes.plot(labels, np.mean(many, axis=0), label=strategy)
        axes.fill_between(
            labels, np.min(many, axis=0), np.max(many, axis=0), color=line.get_color(), alpha=0.15
        )
    axes.set(xlabel="labels", ylabel="accuracy on test rows")
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(options.out, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
