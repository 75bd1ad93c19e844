"""The four networks that draws are compared on, trained here, as engines with rows to ask about.

    digits     scikit-learn's digits; 64-128-128-10, dropout .2 before the second map and the head
    fashion    Fashion-MNIST; two convolutions, dropout of channels .2 and .3, of 128 units .5
    encoder    Fashion-MNIST as 14 steps of 56 pixels; two layers, d 32, dropout .1 throughout
    concrete   the digits again; 64-128-128-10, rates learned with concrete dropout

and, to show where stratifying helps less, `demo`: the digits network of the demonstration.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from data import mnist
from record import training_bar
from torch import Tensor, nn

from dubito.engine import Engine
from dubito.recipes.demo.digits import DIGITS, digit_splits
from dubito_nn import Bundle, export
from dubito_nn.dropout import ConcreteFamily, StandardFamily
from dubito_nn.networks import MLP
from dubito_nn.training import cross_entropy, seeded, train

NAMES = ("digits", "fashion", "encoder", "concrete")
SIDE = 28


@dataclass(frozen=True, eq=False)
class Doubter:
    """A trained network and rows that it has not seen."""

    name: str
    engine: Engine
    rows: Tensor
    accuracy: float


@dataclass(frozen=True)
class Effort:
    """How much is trained: epochs for the digits, rows and epochs of Fashion-MNIST."""

    digit_epochs: int = 30
    fashion_rows: int = 12_000
    fashion_epochs: int = 4


def doubter(name: str, folder: Path, effort: Effort, seed: int) -> Doubter:
    """Train one of the networks, export it, and load it into an engine."""
    if name == "demo":
        with tempfile.TemporaryDirectory() as home, training_bar(name) as show:
            bundle = DIGITS.export_to(Path(home) / "demo.dubito", show)
        return _judged(name, bundle, *_digits()[2:])
    rows, labels, test_rows, test_labels = _digits() if name in _OF_DIGITS else _fashion(folder)
    epochs, batch_size = effort.digit_epochs, 50
    if name not in _OF_DIGITS:
        rows, labels = rows[: effort.fashion_rows], labels[: effort.fashion_rows]
        epochs, batch_size = effort.fashion_epochs, 64
    with seeded(seed):
        network = _BUILD[name](len(rows))
    with training_bar(name) as show:
        train(
            network,
            rows,
            labels,
            loss=cross_entropy,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=2e-3,
            seed=seed,
            progress=show,
        )
    with tempfile.TemporaryDirectory() as home:
        bundle = export(
            network,
            rows[:4],
            Path(home) / "network.dubito",
            task="classification",
            output="logits",
        )
    return _judged(name, bundle, test_rows, test_labels)


def _judged(name: str, bundle: Bundle, rows: Tensor, labels: Tensor) -> Doubter:
    engine = Engine.load(bundle, num_samples=16, draw="stratified")
    found = engine.predict(rows[:2000]).label_index
    return Doubter(name, engine, rows, float((found == labels[:2000].numpy()).mean()))


def _digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    splits = digit_splits()
    return (
        torch.from_numpy(splits.train.inputs),
        torch.from_numpy(splits.train.targets),
        torch.from_numpy(splits.test.inputs),
        torch.from_numpy(splits.test.targets),
    )


def _fashion(folder: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    found = mnist(folder, "fashion_mnist")
    return found.images, found.labels, found.test_images, found.test_labels


def convolutional() -> nn.Module:
    """Return the network of `fashion`, for images of 28 x 28."""
    return nn.Sequential(
        nn.Unflatten(1, (1, SIDE, SIDE)),
        nn.Conv2d(1, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout2d(0.2),
        nn.Conv2d(16, 32, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout2d(0.3),
        nn.Flatten(),
        nn.Linear(512, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


class Encoder(nn.Module):
    """(B, 784) -> (B, 10): two rows of pixels are a step."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.drop = nn.Linear(2 * SIDE, 32), nn.Dropout(0.1)
        self.places = nn.Parameter(0.02 * torch.randn(SIDE // 2, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        steps = self.embed(x.view(-1, SIDE // 2, 2 * SIDE)) + self.places
        logits: Tensor = self.head(self.drop(self.layers(self.drop(steps)).mean(1)))
        return logits


def _perceptron(_: int) -> nn.Module:
    return MLP(64, (128, 128), 10, dropout=StandardFamily(drop_prob=0.2))


def _concrete(num_rows: int) -> nn.Module:
    return MLP(64, (128, 128), 10, dropout=ConcreteFamily(num_rows=num_rows, length_scale=0.1))


_BUILD: dict[str, Callable[[int], nn.Module]] = {
    "digits": _perceptron,
    "fashion": lambda _: convolutional(),
    "encoder": lambda _: Encoder(),
    "concrete": _concrete,
}
_OF_DIGITS = ("digits", "concrete")
