"""What the last site says of what all say, on Fashion-MNIST with dropout throughout.

    python benchmarks/evidence/sites.py --data ../shared/data

    image -> conv relu pool, drop channels (.2) -> conv relu pool, drop channels (.2)
          -> drop units (.3), linear relu -> drop units (.5), linear -> logits

T = 64 shared masks. Test rows of Fashion-MNIST against as many of MNIST, which are out of
distribution. The figures are those of `dubito bench`:

    rank         rank correlation of mutual information, and of predictive entropy, with all sites
    mean error   of the probabilities, absolute
    AUROC        of predictive entropy, wrong rows against right ones; of mutual information,
                 MNIST's rows against Fashion-MNIST's
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from data import Digits, mnist
from garments import CLASSES, SIDE
from record import parser, print_table, training_bar, write
from torch import nn

from dubito.bench.agreement import Agreement, agreements
from dubito.engine import Engine, Sampling
from dubito.engine.calling.sampling import Sites
from dubito.serving.labelled import LabelledRows
from dubito_nn import export
from dubito_nn.training import cross_entropy, seeded, train

CHOICES: tuple[Sites, ...] = ("last", (2, 3), (2,), (1,), (0,))


@dataclass(frozen=True)
class Settings:
    """The network, how it is trained, and what it is asked."""

    channels: tuple[int, int] = (32, 64)
    num_features: int = 128
    drop_probs: tuple[float, float, float, float] = (0.2, 0.2, 0.3, 0.5)
    epochs: int = 5
    batch_size: int = 128
    learning_rate: float = 1e-3
    test_rows: int = 4000
    num_samples: int = 64
    seed: int = 0


def main(arguments: list[str] | None = None) -> dict[str, Agreement]:
    """Train, compare, write the record; return the figures by choice of sites."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = Settings(seed=options.seed)
    if options.quick:
        settings = replace(settings, channels=(2, 4), num_features=8, epochs=1, test_rows=20)
    start = time.perf_counter()
    garments, digits = mnist(options.data, "fashion_mnist"), mnist(options.data)
    engine = _engine(garments, settings)
    count = settings.test_rows
    rows = LabelledRows(
        engine.read_inputs(garments.test_images[:count].numpy()),
        garments.test_labels[:count].numpy(),
        engine.read_inputs(digits.test_images[:count].numpy()),
        2 * count,
    )
    sampling = Sampling(settings.num_samples, settings.seed)
    found = agreements(engine, rows.inputs, sampling, CHOICES, rows)
    figures = {one.choice: one for one in found}
    _show(figures)
    write(
        options.results,
        "sites",
        settings=asdict(settings),
        figures={name: asdict(one) for name, one in figures.items()},
        seconds=time.perf_counter() - start,
        is_quick=options.quick,
    )
    return figures


def _engine(garments: Digits, settings: Settings) -> Engine:
    with seeded(settings.seed):
        network = _network(settings)
    with training_bar("training") as show:
        train(
            network,
            garments.images,
            garments.labels,
            loss=cross_entropy,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            seed=settings.seed,
            progress=show,
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "garments.dubito"
        example, classes = garments.images[:4], CLASSES["garments"]
        bundle = export(
            network, example, path, task="classification", output="logits", classes=classes
        )
    return Engine.load(bundle, num_samples=settings.num_samples, seed=settings.seed)


def _network(settings: Settings) -> nn.Module:
    first, second = settings.channels
    after_first, after_second, before_hidden, before_last = settings.drop_probs
    return nn.Sequential(
        nn.Unflatten(1, (1, SIDE, SIDE)),
        *(nn.Conv2d(1, first, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Dropout2d(after_first),
        *(nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Dropout2d(after_second), nn.Flatten(), nn.Dropout(before_hidden)),
        *(nn.Linear(second * (SIDE // 4) ** 2, settings.num_features), nn.ReLU()),
        *(nn.Dropout(before_last), nn.Linear(settings.num_features, 10)),
    )


def _show(figures: dict[str, Agreement]) -> None:
    head = ("sites", "rank, MI", "rank, H", "mean error", "NLL", "AUROC, errors", "AUROC, digits")
    rows = [
        (
            *(one.choice, one.rank_epistemic, one.rank_total, one.mean_error),
            *(one.nll, one.auroc_errors, one.auroc_strange),
        )
        for one in figures.values()
    ]
    print_table("Some of the sites, against all", head, rows)


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--seed", type=int, default=0, help="of training and of the draws")
    return made


if __name__ == "__main__":
    main()
