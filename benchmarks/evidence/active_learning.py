"""Active learning on MNIST: how many labels BatchBALD, BALD and chance need for 90 % accuracy.

    python benchmarks/evidence/active_learning.py --data ../shared/data
    python benchmarks/evidence/active_learning.py --data ../shared/data --device cuda --workers 9

A pool of MNIST's training rows without labels, but for the 20 of the source. Again and again: a
new network is trained on the labelled rows, exported and loaded, its accuracy is taken on the test
rows, and ten more rows are chosen by `dubito.acquisition.select` and labelled. Every seed has a
pool, and networks, of its own; all strategies begin with the same ones.

A run, one strategy on one seed, ends at 95 %, or at its most labels. Every round is written to
`--work` at once, and a run that was cut off goes on from there. With `--workers` several runs go on
side by side, each in a process of its own, which changes nothing but the time. On a GPU a network
is not the same twice, bit for bit.

Source: Kirsch, van Amersfoort and Gal 2019, arXiv:1906.08158; network, rates, initial rows and
curves are those of its authors.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from data import Digits, mnist
from learning_curves import draw, published
from numpy.typing import NDArray
from record import HERE, parser, print_table, write
from torch import Tensor, nn

from dubito.acquisition import Acquisition, ArrayPool, select
from dubito.engine import Classification, Engine, Sampling
from dubito_nn import export
from dubito_nn.training import cross_entropy, seeded, train

STRATEGIES = ("batchbald", "bald", "random")
INITIAL = (
    *(38043, 40091, 17418, 2094, 39879, 3133, 5011, 40683, 54379, 24287),
    *(9849, 59305, 39508, 39356, 8758, 52579, 13655, 7636, 21562, 41329),
)
PUBLISHED = {"batchbald": 85, "bald": 120, "random": 257}  # labels beyond the initial, to 90 %


@dataclass(frozen=True)
class Settings:
    """What is run."""

    pool_rows: int = 5_000
    k: int = 10
    num_samples: int = 32
    steps: int = 500
    batch_size: int = 64
    learning_rate: float = 1e-3
    target: float = 0.95
    most_labels: Mapping[str, int] = field(
        default_factory=lambda: {"batchbald": 220, "bald": 250, "random": 250}
    )
    seeds: tuple[int, ...] = (0, 1, 2)
    strategies: tuple[str, ...] = STRATEGIES
    device: str = "cpu"


@dataclass(frozen=True)
class Errand:
    """A run that a process is asked for.

    Args:
        strategy: its name.
        seed: of pool, networks and choices.
        data: the folder that holds mnist/.
        settings: of all runs.
        path: where its rounds are kept.
        threads: of torch.
    """

    strategy: str
    seed: int
    data: Path
    settings: Settings
    path: Path
    threads: int

    def do(self) -> Run:
        """Run to the end, from where the file left it."""
        torch.set_num_threads(self.threads)
        return finished(self.strategy, self.seed, _digits(self.data), self.settings, self.path)


@dataclass
class Run:
    """A learning curve in the making.

    Args:
        strategy: its name.
        seed: of pool, networks and choices.
        labelled: places in the pool that have a label, the initial ones first.
        accuracies: on the test rows, one per round.
        seconds: of all rounds, on the clock.
    """

    strategy: str
    seed: int
    labelled: list[int]
    accuracies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def labels(self, k: int) -> list[int]:
        """Labels beyond the initial ones, one number per accuracy."""
        return [place * k for place in range(len(self.accuracies))]

    def reached(self, accuracy: float, k: int) -> float:
        """Labels beyond the initial ones at which the accuracy was first reached; inf: never."""
        found = [
            count
            for count, here in zip(self.labels(k), self.accuracies, strict=True)
            if here >= accuracy
        ]
        return found[0] if found else math.inf


def main(arguments: list[str] | None = None) -> dict[str, object]:
    """Run every strategy on every seed; write the record and the picture, return the figures."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = Settings(
        seeds=tuple(options.seeds), strategies=tuple(options.strategies), device=options.device
    )
    if options.quick:
        settings = replace(settings, pool_rows=100, steps=3, num_samples=4, seeds=(0,))
        settings = replace(settings, most_labels=dict.fromkeys(STRATEGIES, 10))
    start = time.perf_counter()
    runs = _all_done(_errands(options, settings), options.workers)
    figures = summary(runs, settings)
    _show(figures)
    write(
        options.results,
        "active_learning",
        settings={
            **{"seed": settings.seeds[0], **asdict(settings)},
            **{"device_name": _device_name(settings.device), "workers": options.workers},
        },
        figures=figures,
        seconds=time.perf_counter() - start,
        is_quick=options.quick,
    )
    curves = {
        strategy: [
            (run.labels(settings.k), run.accuracies) for run in runs if run.strategy == strategy
        ]
        for strategy in settings.strategies
    }
    draw(curves, published(options.data), options.results / f"active_learning{_kind(options)}.svg")
    return figures


def _errands(options: argparse.Namespace, settings: Settings) -> list[Errand]:
    work = options.results if options.work is None else options.work
    return [
        Errand(
            strategy,
            seed,
            options.data,
            settings,
            work / f"active_learning_{strategy}_{seed}{_kind(options)}.json",
            options.threads,
        )
        for seed in settings.seeds
        for strategy in settings.strategies
    ]


def _kind(options: argparse.Namespace) -> str:
    return "_quick" if options.quick else ""


def _all_done(errands: Sequence[Errand], workers: int) -> list[Run]:
    """Their runs in the same order. They begin without CUDA, which no fork could use."""
    if workers == 1:
        return [errand.do() for errand in errands]
    with ProcessPoolExecutor(min(workers, len(errands)), get_context("forkserver")) as processes:
        return list(processes.map(Errand.do, errands))


@cache
def _digits(data: Path) -> Digits:
    return mnist(data)


def finished(strategy: str, seed: int, digits: Digits, settings: Settings, path: Path) -> Run:
    """A run to its end, from where its file left it."""
    pool = _pool(seed, len(digits.images), settings.pool_rows)
    images, labels = digits.images[pool].view(-1, 1, 28, 28), digits.labels[pool]
    run = Run(strategy, seed, list(range(len(INITIAL))))
    if path.exists():
        run = _kept(path, settings)
    test = digits.test_images.view(-1, 1, 28, 28), digits.test_labels
    while not _is_done(run, settings):
        began = time.perf_counter()
        engine = _trained(images[run.labelled], labels[run.labelled], run, settings)
        run.accuracies.append(_accuracy(engine, *test))
        if not _is_done(run, settings):
            run.labelled += _choose(engine, images, run, settings).tolist()
        run.seconds += time.perf_counter() - began
        _keep(run, path)
        print(
            f"{strategy} {seed}: {run.labels(settings.k)[-1]} labels, {run.accuracies[-1]:.4f},"
            f" {run.seconds:.0f} s",
            flush=True,
        )
    return run


def _kept(path: Path, settings: Settings) -> Run:
    """A run that was cut off, or is at its end.

    Raises:
        ValueError: It ended sooner than these settings would have it end.
    """
    run = Run(**json.loads(path.read_text()))
    expected = len(INITIAL) + settings.k * len(run.accuracies)
    if not _is_done(run, settings) and len(run.labelled) != expected:
        raise ValueError(
            f"{path.name}: expected {expected} labelled rows after {len(run.accuracies)} round(s), "
            f"got {len(run.labelled)}: name another folder with --work"
        )
    return run


def _keep(run: Run, path: Path) -> None:
    """Write a run's rounds, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(asdict(run)) + "\n")
    os.replace(new, path)


def _is_done(run: Run, settings: Settings) -> bool:
    if not run.accuracies:
        return False
    most = run.labels(settings.k)[-1] >= settings.most_labels[run.strategy]
    return most or run.accuracies[-1] >= settings.target


def _pool(seed: int, num_rows: int, pool_rows: int) -> NDArray[np.int64]:
    """The initial rows, then others drawn by the seed."""
    initial = np.array([index for index in INITIAL if index < num_rows] or range(20))
    others = np.setdiff1d(np.arange(num_rows), initial)
    drawn = np.random.default_rng(seed).permutation(others)[: pool_rows - len(initial)]
    return np.concatenate([initial, drawn])


def network() -> nn.Module:
    """The source's network for MNIST."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5),
        nn.Dropout2d(0.5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 5),
        nn.Dropout2d(0.5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 128),
        nn.Dropout(0.5),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def _trained(images: Tensor, labels: Tensor, run: Run, settings: Settings) -> Engine:
    """A new network, trained on what has a label, as an engine."""
    seed = 1000 * run.seed + len(run.accuracies)
    with seeded(seed):
        made = network()
    per_epoch = math.ceil(len(images) / settings.batch_size)
    train(
        made,
        images,
        labels,
        loss=cross_entropy,
        epochs=math.ceil(settings.steps / per_epoch),
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        schedule="constant",
        seed=seed,
        device=settings.device,
    )
    made.cpu()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "digits.dubito"
        export(made, images[:8], path, task="classification", output="logits")
        return Engine.load(path, settings.device, num_samples=settings.num_samples, seed=seed)


def _accuracy(engine: Engine, images: Tensor, labels: Tensor) -> float:
    """On the test rows, one pass with weight scaling."""
    found = engine.predict(images, sampling=Sampling(1, method="point"))
    assert isinstance(found, Classification)
    return float((found.label_index == labels.numpy()).mean())


def _choose(engine: Engine, images: Tensor, run: Run, settings: Settings) -> NDArray[np.int64]:
    seed = 1000 * run.seed + len(run.accuracies)
    asked = Acquisition(run.strategy, settings.k, seed=seed, exclude=tuple(run.labelled))
    if run.strategy == "random":  # scores that no network is needed for
        sampling = Sampling(1, method="point")
    else:
        sampling = Sampling(settings.num_samples, seed)
    pool = ArrayPool(engine.read_inputs(images))
    return select(engine, pool, asked, sampling=sampling).indices


def summary(runs: Sequence[Run], settings: Settings) -> dict[str, object]:
    """Labels to 80, 90 and 95 %, run by run and in the median, and the curves."""
    figures: dict[str, object] = {}
    for strategy in settings.strategies:
        mine = [run for run in runs if run.strategy == strategy]
        reached = {
            f"{accuracy:.0%}": [run.reached(accuracy, settings.k) for run in mine]
            for accuracy in (0.8, 0.9, 0.95)
        }
        figures[strategy] = {
            "labels_to": {
                name: [None if math.isinf(count) else count for count in found]
                for name, found in reached.items()
            },
            "median_labels_to": {
                name: None if math.isinf(np.median(found)) else float(np.median(found))
                for name, found in reached.items()
            },
            "published_labels_to_90": PUBLISHED[strategy],
            "accuracies": [run.accuracies for run in mine],
            "seconds": [round(run.seconds) for run in mine],
        }
    return figures


def _show(figures: Mapping[str, object]) -> None:
    rows = []
    for strategy, found in figures.items():
        assert isinstance(found, dict)
        medians = found["median_labels_to"].values()
        cells = ["not reached" if value is None else f"{value:.0f}" for value in medians]
        rows.append((strategy, *cells, str(found["published_labels_to_90"])))
    head = ("strategy", "to 80 %", "to 90 %", "to 95 %", "published, to 90 %")
    print_table("Median labels beyond the first 20", head, rows)


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _workers(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    made.add_argument("--device", default="cpu", help="for training and engine, such as cuda")
    made.add_argument("--workers", type=_workers, default=1, help="runs at once")
    made.add_argument("--work", type=Path, help=f"where rounds are kept; else {HERE.name}/results")
    return made


if __name__ == "__main__":
    main()
