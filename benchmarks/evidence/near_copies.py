"""Near copies in a batch: BatchBALD's against the best rows by BALD.

    python benchmarks/evidence/near_copies.py                          scikit-learn's digits
    python benchmarks/evidence/near_copies.py --data ../shared/data    MNIST instead

A pool in which every row is there three times, each with Gaussian noise of its own (standard
deviation 0.1, of pixels from 0 to 1). A perceptron is trained on a few rows outside the pool; of
the ten rows that a strategy chooses, those count as near copies whose original is in the batch
already. Ten seeds: of rows, noise, network and masks.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from data import mnist
from record import parser, print_table, write
from sklearn.datasets import load_digits
from torch import Tensor

from dubito.acquisition import Acquisition, ArrayPool, select
from dubito.engine import Engine, Sampling
from dubito_nn import export
from dubito_nn.dropout import StandardFamily
from dubito_nn.networks import MLP
from dubito_nn.training import cross_entropy, seeded, train

STRATEGIES = ("batchbald", "bald", "power_bald", "random")


@dataclass(frozen=True)
class Settings:
    """What is run."""

    rows: int = 400
    copies: int = 3
    noise: float = 0.1
    labelled: int = 50
    k: int = 10
    num_samples: int = 32
    steps: int = 300
    hidden: int = 128
    seeds: tuple[int, ...] = tuple(range(10))
    strategies: tuple[str, ...] = STRATEGIES


def main(arguments: list[str] | None = None) -> dict[str, dict[str, object]]:
    """Choose batches; write the record and return its figures."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = replace(Settings(), num_samples=options.num_samples)
    if options.quick:
        settings = replace(settings, rows=30, num_samples=4, steps=5, hidden=16, seeds=(0,))
    start = time.perf_counter()
    if options.data is None:
        name, rows = "near_copies", _digits()
    else:
        digits = mnist(options.data)
        name, rows = "near_copies_mnist", (digits.images, digits.labels)
    if options.num_samples != Settings().num_samples:
        name += f"_{options.num_samples}"
    figures = measured(*rows, settings)
    _show(figures)
    write(
        options.results,
        name,
        settings={"seed": settings.seeds[0], **asdict(settings)},
        figures=figures,
        seconds=time.perf_counter() - start,
        is_quick=options.quick,
    )
    return figures


def measured(images: Tensor, labels: Tensor, settings: Settings) -> dict[str, dict[str, object]]:
    """Near copies of every strategy, batch by batch, and their share."""
    counts: dict[str, list[int]] = {strategy: [] for strategy in settings.strategies}
    for seed in settings.seeds:
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(images)))
        known, pool = torch.split(order, [settings.labelled, len(order) - settings.labelled])
        engine = _trained(images[known], labels[known], seed, settings)
        noisy = _copies(images[pool[: settings.rows]], seed, settings)
        for strategy in settings.strategies:
            asked = Acquisition(strategy, settings.k, seed=seed)
            rows = ArrayPool(engine.read_inputs(noisy))
            sampling = Sampling(settings.num_samples, seed)
            chosen = select(engine, rows, asked, sampling=sampling).indices
            counts[strategy].append(settings.k - len(np.unique(chosen // settings.copies)))
    return {
        strategy: {"near_copies": found, "share": float(np.mean(found)) / settings.k}
        for strategy, found in counts.items()
    }


def _copies(rows: Tensor, seed: int, settings: Settings) -> Tensor:
    """Each row several times in succession, with noise."""
    many = rows.repeat_interleave(settings.copies, 0)
    generator = torch.Generator().manual_seed(seed)
    return many + settings.noise * torch.randn(many.shape, generator=generator)


def _trained(images: Tensor, labels: Tensor, seed: int, settings: Settings) -> Engine:
    with seeded(seed):
        hidden = (settings.hidden, settings.hidden)
        network = MLP(images.shape[1], hidden, 10, dropout=StandardFamily(0.5))
    train(
        network,
        images,
        labels,
        loss=cross_entropy,
        epochs=settings.steps,
        batch_size=64,
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "digits.dubito"
        export(network, images[:8], path, task="classification", output="logits")
        return Engine.load(path)


def _digits() -> tuple[Tensor, Tensor]:
    """Scikit-learn's 8 x 8 digits, pixels from 0 to 1."""
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)


def _show(figures: Mapping[str, Mapping[str, object]]) -> None:
    rows = [
        (strategy, f"{found['share']:.1%}", str(found["near_copies"]))
        for strategy, found in figures.items()
    ]
    print_table("Near copies in batches of ten", ("strategy", "share", "by seed"), rows)


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__, needs_data=False)
    made.add_argument("--num-samples", type=int, default=Settings().num_samples, help="T")
    return made


if __name__ == "__main__":
    main()
