"""Networks as people have them, trained as people train them, for the evidence on flags.

Perceptrons, convolutional networks and encoders with dropout of .05 to .5, the cross-entropy or the
squared error (of heads with a noise of their own the likelihood), Adam, no augmentation, no
constraint on the head.

Dimensions: B rows, C classes, L places of a sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dubito_nn import export
from dubito_nn.training import seeded

Kind = Literal["classification", "mean", "mean_and_log_variance"]
SIDE = 28


def perceptron(
    inputs: int, outputs: int, width: int, drop_prob: float, layers: int = 2, first: float = 0.0
) -> nn.Sequential:
    """Linear, relu, dropout, some times; `first` drops inputs."""
    parts: list[nn.Module] = [nn.Dropout(first)] if first else []
    for size in [inputs, *[width] * (layers - 1)]:
        parts += [nn.Linear(size, width), nn.ReLU(), nn.Dropout(drop_prob)]
    return nn.Sequential(*parts, nn.Linear(width, outputs))


def convolutions(
    classes: int, *, channels: float = 0.0, pool: float = 0.25, head: float = 0.5
) -> nn.Sequential:
    """Two convolutions and two linear layers; drops channels, the last map, and hidden units."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *([nn.Dropout2d(channels)] if channels else []),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *([nn.Dropout(pool)] if pool else []),
        *(nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Dropout(head)),
        nn.Linear(64, classes),
    )


def normalised_convolutions(classes: int) -> nn.Sequential:
    """Three convolutions with batch-norm and a mean over the map; dropout before the head alone."""
    parts: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 64)):
        parts += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)]
        parts += [nn.ReLU(), nn.MaxPool2d(2)]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, classes))
    return nn.Sequential(*parts, *head)


class Encoder(nn.Module):
    """A transformer encoder on the lines of a picture, or on words; dropout .1 everywhere.

    Args:
        length: L.
        classes: C.
        words: of the vocabulary; None: lines of 28 pixels.
    """

    def __init__(self, length: int, classes: int, words: int | None = None) -> None:
        super().__init__()
        width, self.words = 32, words
        self.embed = nn.Linear(SIDE, width) if words is None else nn.Embedding(words, width)
        self.place = nn.Parameter(torch.randn(length, width) * 0.1)
        self.drop = nn.Dropout(0.1)
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        steps = x.flatten(1).view(x.shape[0], SIDE, SIDE) if self.words is None else x
        hidden = self.encoder(self.drop(self.embed(steps) + self.place))
        logits: Tensor = self.last(hidden.mean(1))
        return logits


class Noisy(nn.Module):
    """A mean, and a noise of its own."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(perceptron(inputs, 64, 64, 0.1, 1), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(64, 1), nn.Linear(64, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the log-variance."""
        hidden = self.body(x)
        return self.mean(hidden), self.log_variance(hidden)


def bundle_of(
    build: Callable[[], nn.Module],
    kind: Kind,
    rows: Tensor,
    truths: Tensor,
    epochs: int,
    kept: Path,
) -> Path:
    """The path of the network as a bundle; trained where there is none yet.

    Args:
        build: makes the network.
        kind: classes, or what a regression states.
        rows: to train on.
        truths: classes, or targets.
        epochs: over all rows.
        kept: path of the bundle of an earlier run, or of this.
    """
    if kept.exists():
        return kept
    with seeded(0):
        network = build()
        _train(network.train(), kind, rows, truths, epochs)
    is_classes = kind == "classification"
    export(
        network.eval(),
        rows[:4],
        kept,
        task="classification" if is_classes else "regression",
        output="logits" if is_classes else kind,
    )
    return kept


def _train(network: nn.Module, kind: Kind, rows: Tensor, truths: Tensor, epochs: int) -> None:
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(rows)).split(32 if len(rows) < 2000 else 64):
            if len(batch) > 1:
                optimiser.zero_grad()
                _loss(network(rows[batch]), truths[batch], kind).backward()
                optimiser.step()


def _loss(output: Tensor | tuple[Tensor, Tensor], truth: Tensor, kind: Kind) -> Tensor:
    if isinstance(output, tuple):
        return functional.gaussian_nll_loss(output[0], truth, output[1].exp())
    if kind == "classification":
        return functional.cross_entropy(output, truth)
    return functional.mse_loss(output, truth)
