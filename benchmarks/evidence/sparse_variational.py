"""Sparse variational dropout on MNIST, LeNet-300-100: how many weights can go, at what error.

    python benchmarks/evidence/sparse_variational.py --data ../shared/data
    python benchmarks/evidence/sparse_variational.py --data ../shared/data --held-out 10000

784-300-100-10 of `SparseLinear`, in two parts:

    variational    divergence · peak/N after a linear warm-up; peak 1 is the bound, more drowns
                   weights faster; then all weights above the threshold are pruned for good
    tuning         the weights that are left, their noise still learned, without the divergence

The pruned network is exported, and the engine measures the error of the bundle: `point`, and
T = 50 samples. With `--held-out` the last rows of the training part are measured instead of the
test part and are not trained on.

Source: Molchanov, Ashukha, Vetrov 2017, arXiv:1701.05369, table 1.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from data import Digits, mnist
from record import parser, print_table, training_bar, write
from torch import nn

from dubito.engine import Classification, Engine, Sampling
from dubito_nn import export
from dubito_nn.dropout import SparseLinear, compression, pruned
from dubito_nn.training import Progress, cross_entropy, seeded, train

REFERENCE = {"compression": 68.0, "error_percent": 1.92}
GOAL = {"compression": 50.0, "error_percent": 2.0}


@dataclass(frozen=True)
class Settings:
    """What the published figure leaves open, and how it was chosen here."""

    hidden: tuple[int, ...] = (300, 100)
    epochs: int = 70
    tuning_epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 2e-3
    noise_rate_factor: float = 10.0
    tuning_rate: float = 1e-3
    divergence_peak: float = 2.0
    warm_up_share: float = 0.4
    threshold: float = 3.0
    num_samples: int = 50
    seed: int = 0


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, prune, export, measure; write the record and return its figures."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = Settings(
        seed=options.seed,
        epochs=options.epochs,
        tuning_epochs=options.tuning_epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        noise_rate_factor=options.noise_rate_factor,
        divergence_peak=options.divergence_peak,
        warm_up_share=options.warm_up_share,
    )
    if options.quick:
        settings = replace(settings, epochs=2, tuning_epochs=1, num_samples=4)
    digits = _parts(mnist(options.data), options.held_out, is_quick=options.quick)
    start = time.perf_counter()
    network = fitted(digits, settings)
    num_weights = sum(layer.is_kept.numel() for layer in _sparse(network))
    before = measured(smaller := pruned(network), num_weights, digits, settings)
    tune(smaller, digits, settings)
    figures = measured(pruned(smaller), num_weights, digits, settings)
    print_table(
        "Sparse variational dropout, LeNet-300-100",
        ("", "fewer weights, x", "error, %"),
        [
            ("published", *REFERENCE.values()),
            ("goal", *GOAL.values()),
            ("here, one pass, before tuning", before["compression"], before["error_percent"]),
            ("here, one pass", figures["compression"], figures["error_percent"]),
            ("here, T samples", figures["compression"], figures["sampled_error_percent"]),
        ],
    )
    write(
        options.results,
        "sparse_variational" if options.held_out == 0 else "sparse_variational_held_out",
        settings={**asdict(settings), "held_out_rows": options.held_out},
        figures={**figures, "before_tuning": before},
        seconds=time.perf_counter() - start,
        is_quick=options.quick,
    )
    return figures


def fitted(digits: Digits, settings: Settings) -> nn.Sequential:
    """Train LeNet-300-100 with noise on every weight."""
    with seeded(settings.seed):
        network = _network(digits.images.shape[1], settings)
    with training_bar("variational", lambda: f"{compression(network):.1f}x") as show:
        train(
            network,
            digits.images,
            digits.labels,
            loss=cross_entropy,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            rate_factors={"log_variance": settings.noise_rate_factor},
            seed=settings.seed,
            progress=_warming(network, len(digits.images), settings, show),
        )
    return network


def tune(network: nn.Sequential, digits: Digits, settings: Settings) -> None:
    """Train the weights that are left, without the divergence."""
    for layer in _sparse(network):
        layer.divergence_weight = 0.0
    with training_bar("tuning") as show:
        train(
            network,
            digits.images,
            digits.labels,
            loss=cross_entropy,
            epochs=settings.tuning_epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.tuning_rate,
            seed=settings.seed,
            progress=show,
        )


def measured(
    smaller: nn.Sequential, num_weights: int, digits: Digits, settings: Settings
) -> dict[str, float]:
    """Export what was pruned, and measure the bundle with the engine."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(
            smaller,
            digits.images[:4],
            Path(folder) / "lenet.dubito",
            task="classification",
            output="logits",
        )
    engine = Engine.load(bundle, num_samples=settings.num_samples, seed=settings.seed)
    one_pass = Sampling(num_samples=1, method="point")
    kept = [int(layer.is_kept.sum()) for layer in _sparse(smaller)]
    return {
        "compression": num_weights / sum(kept),
        "weights": num_weights,
        **{f"weights_kept_{place}": count for place, count in enumerate(kept)},
        **{
            f"units_{place}": layer.layer.in_features
            for place, layer in enumerate(_sparse(smaller))
        },
        "error_percent": _error(engine, digits, one_pass),
        "sampled_error_percent": _error(engine, digits, engine.defaults),
    }


def _network(num_features: int, settings: Settings) -> nn.Sequential:
    sizes = (num_features, *settings.hidden)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [SparseLinear(inputs, outputs, threshold=settings.threshold), nn.ReLU()]
    return nn.Sequential(*layers, SparseLinear(sizes[-1], 10, threshold=settings.threshold))


def _warming(
    network: nn.Sequential, num_rows: int, settings: Settings, show: Callable[[Progress], None]
) -> Callable[[Progress], None]:
    """Raise the weight of the divergence by epochs, from 0 to its peak."""
    length = settings.warm_up_share * settings.epochs
    peak = settings.divergence_peak

    def after(state: Progress) -> None:
        for layer in _sparse(network):
            layer.divergence_weight = peak * min(1.0, state.epoch / length) / num_rows
        show(state)

    return after


def _sparse(network: nn.Sequential) -> list[SparseLinear]:
    return [layer for layer in network if isinstance(layer, SparseLinear)]


def _error(engine: Engine, digits: Digits, sampling: Sampling) -> float:
    """Return the share of wrong rows, in percent."""
    answers = engine.predict(digits.test_images, sampling=sampling)
    assert isinstance(answers, Classification)
    return 100.0 * float((answers.label_index != digits.test_labels.numpy()).mean())


def _parts(digits: Digits, held_out: int, *, is_quick: bool) -> Digits:
    if held_out > 0:
        x, y = digits.images, digits.labels
        digits = Digits(x[:-held_out], y[:-held_out], x[-held_out:], y[-held_out:])
    return digits.first(2000) if is_quick else digits


def _parser() -> argparse.ArgumentParser:
    made, default = parser(__doc__), Settings()
    made.add_argument("--held-out", type=int, default=0, help="training rows to measure on")
    made.add_argument("--epochs", type=int, default=default.epochs)
    made.add_argument("--batch-size", type=int, default=default.batch_size)
    made.add_argument("--learning-rate", type=float, default=default.learning_rate)
    made.add_argument("--noise-rate-factor", type=float, default=default.noise_rate_factor)
    made.add_argument("--divergence-peak", type=float, default=default.divergence_peak)
    made.add_argument("--tuning-epochs", type=int, default=default.tuning_epochs)
    made.add_argument("--warm-up-share", type=float, default=default.warm_up_share)
    made.add_argument("--seed", type=int, default=default.seed)
    return made


if __name__ == "__main__":
    main()
