"""The networks that the benchmarks time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """A network and what it is asked.

    Args:
        name: as the table prints it.
        build: makes the network.
        shape: of one row.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, 1024),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(1024, 1024),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(1024, 10),
    )


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 49, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 10),
    )


class Transformer(nn.Module):
    """Four encoder layers of width 256 over 64 positions, dropout .1 everywhere."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


CASES = (
    Case("MLP 784-1024-1024-10, p .5", perceptron, (784,)),
    Case("CNN, dropout .5 before its last layer", convolutional, (1, 28, 28)),
    Case("transformer encoder, 4 layers, d 256, length 64, p .1", Transformer, (64, 256)),
)
