"""A perceptron on MNIST: one pass with weight scaling against the mean of T samples.

    python benchmarks/evidence/mnist_mlp.py --data ../shared/data

784-800-800-10, ReLU, dropout 0.2 of the inputs and 0.5 of the hidden units. Trained on all 60,000
rows, exported, and measured on the 10,000 test rows by the engine: method `point` for weight
scaling, `mc` for T samples. With `--max-norm` the weights into each unit are bounded as well.

Sources: Srivastava et al. 2014, JMLR 15, sections 5 and 7.5.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from data import Digits, mnist
from record import parser, print_table, training_bar, write
from torch import nn

from dubito.engine import Classification, Engine, Sampling
from dubito_nn import export
from dubito_nn.training import cross_entropy, seeded, train

SAMPLES = (5, 10, 20, 50)
REFERENCE = {"point": 1.55, "50": 1.58}


@dataclass(frozen=True)
class Settings:
    """What the published figure leaves open, and how it was chosen here."""

    hidden: tuple[int, ...] = (800, 800)
    input_drop_prob: float = 0.2
    hidden_drop_prob: float = 0.5
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 1e-3
    max_norm: float | None = None
    samples: tuple[int, ...] = SAMPLES
    seed: int = 0


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, export, measure; write the record and return the errors in percent."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = Settings(epochs=options.epochs, max_norm=options.max_norm, seed=options.seed)
    digits = mnist(options.data)
    if options.quick:
        settings = replace(settings, hidden=(32, 32), epochs=2, samples=(2, 4))
        digits = digits.first(2000)
    start = time.perf_counter()
    figures = errors(engine_of(digits, settings), digits, settings)
    print_table(
        "MNIST, perceptron with dropout: error, %",
        ("", "reference", "here"),
        [("weight scaling", "1.55", figures["point"])]
        + [
            (f"T = {count}", "1.58" if count == 50 else "", figures[str(count)])
            for count in settings.samples
        ],
    )
    write(
        options.results,
        "mnist_mlp" if settings.max_norm is None else "mnist_mlp_max_norm",
        settings=asdict(settings),
        figures={"error_percent": figures, "reference": REFERENCE},
        seconds=time.perf_counter() - start,
        is_quick=options.quick,
    )
    return figures


def engine_of(digits: Digits, settings: Settings) -> Engine:
    """Train the perceptron and load its bundle."""
    with seeded(settings.seed):
        network = _network(digits.images.shape[1], settings)
    with training_bar("training") as show:
        train(
            network,
            digits.images,
            digits.labels,
            loss=cross_entropy,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            max_norm=settings.max_norm,
            seed=settings.seed,
            progress=show,
        )
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(
            network,
            digits.images[:4],
            Path(folder) / "perceptron.dubito",
            task="classification",
            output="logits",
        )
    return Engine.load(bundle, seed=settings.seed)


def errors(engine: Engine, digits: Digits, settings: Settings) -> dict[str, float]:
    """Return the share of wrong test rows in percent, by method and T."""
    ways = {"point": Sampling(num_samples=1, method="point")}
    ways |= {str(count): Sampling(count, settings.seed) for count in settings.samples}
    found = {}
    for name, sampling in ways.items():
        answers = engine.predict(digits.test_images, sampling=sampling)
        assert isinstance(answers, Classification)
        wrong = answers.label_index != digits.test_labels.numpy()
        found[name] = 100.0 * float(wrong.mean())
    return found


def _network(num_features: int, settings: Settings) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Dropout(settings.input_drop_prob)]
    sizes = (num_features, *settings.hidden)
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(settings.hidden_drop_prob)]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 10))


def _parser() -> argparse.ArgumentParser:
    made, default = parser(__doc__), Settings()
    made.add_argument("--epochs", type=int, default=default.epochs)
    made.add_argument("--max-norm", type=float, default=None, help="bound; 3 to 4 is usual")
    made.add_argument("--seed", type=int, default=default.seed)
    return made


if __name__ == "__main__":
    main()
