"""Networks that are trained for a moment on scikit-learn's digits, to measure moments on.

Dimensions: B rows of 64 pixels, 10 classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from networks import Encoder
from sklearn.datasets import load_digits
from torch import Tensor, nn

Build = Callable[[], nn.Module]


@dataclass(frozen=True)
class Trained:
    """A network and how it is trained.

    Args:
        name: as the table prints it.
        build: makes it.
        steps: of Adam.
        rate: of Adam.
        batch: rows of a step.
        rows: held-out rows that its errors are measured on.
        warm_up: steps in which the rate grows to its size.
    """

    name: str
    build: Build
    steps: int = 400
    rate: float = 2e-3
    batch: int = 64
    rows: int = 100
    warm_up: int = 0

    def network(self) -> nn.Module:
        """The network, trained from a fixed seed."""
        x, y = digits()
        torch.manual_seed(0)
        network = self.build().train()
        optimiser = torch.optim.Adam(network.parameters(), self.rate)
        scheduler = torch.optim.lr_scheduler
        first = 0.1 if self.warm_up else 1.0
        growing = scheduler.LinearLR(optimiser, first, total_iters=max(1, self.warm_up))
        for _ in range(self.steps):
            rows = torch.randint(1200, (self.batch,))
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimiser.step()
            growing.step()
        return network

    def held_out(self) -> Tensor:
        """Rows that it was not trained on."""
        return digits()[0][1200 : 1200 + self.rows]


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Pixels, (1797, 64), and labels, in a fixed order of their own."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    return x[order], y[order]


class Tokens(nn.Module):
    """Pixels as a sequence of embedded patches, each with its place, before a network.

    Args:
        length: of the sequence.
        width: of an embedding.
        network: (B, length, width) to outputs.
    """

    def __init__(self, length: int, width: int, network: nn.Module) -> None:
        super().__init__()
        self.length, self.network = length, network
        self.embed = nn.Linear(64 // length, width)
        self.place = nn.Parameter(torch.randn(length, width) / 2)

    def forward(self, x: Tensor) -> Tensor:
        patches = x.reshape(-1, self.length, 64 // self.length)
        return self.network(self.embed(patches) + self.place)


class Transformer(nn.Module):
    """Four layers of width 64 and four heads.

    Args:
        drop_prob: of all dropout.
        norm_first: norms in front of the branches, with GELU; else behind them, with ReLU.
        reads_first: the head reads the first position, not the mean of all.
    """

    def __init__(self, drop_prob: float, *, norm_first: bool, reads_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            64,
            4,
            256,
            drop_prob,
            "gelu" if norm_first else "relu",
            batch_first=True,
            norm_first=norm_first,
        )
        norm = nn.LayerNorm(64) if norm_first else None
        self.encoder = nn.TransformerEncoder(layer, 4, norm, enable_nested_tensor=False)
        self.head, self.reads_first = nn.Linear(64, 10), reads_first

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.encoder(x)
        return self.head(hidden[:, 0] if self.reads_first else hidden.mean(1))


class Recurrent(nn.Module):
    """Two recurrent layers of 128 over the lines of an image, dropout between and behind them."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], drop_prob: float) -> None:
        super().__init__()
        self.layers = kind(8, 128, 2, dropout=drop_prob, batch_first=True)
        self.head = nn.Sequential(nn.Dropout(drop_prob), nn.Linear(128, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x.reshape(-1, 8, 8))[0][:, -1])


class Block(nn.Module):
    """Two convolutions with batch norm and dropout between, and what skips them."""

    def __init__(self, channels: int, drop: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            drop,
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


def residual(drop_prob: float, drop: type[nn.Module] = nn.Dropout) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        Block(32, drop(drop_prob)),
        Block(32, drop(drop_prob)),
        nn.MaxPool2d(2),
        Block(32, drop(drop_prob)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(drop_prob),
        nn.Linear(32, 10),
    )


def dense(depth: int, drop_prob: float) -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(64, 256), nn.ReLU(), nn.Dropout(drop_prob)]
    for _ in range(depth - 1):
        layers += [nn.Linear(256, 256), nn.ReLU(), nn.Dropout(drop_prob)]
    return nn.Sequential(*layers, nn.Linear(256, 10))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64 * 16, 128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


def encoder() -> nn.Module:
    """The encoder of `networks.py`, 64 positions of width 256."""
    return Tokens(64, 256, Encoder())


def transformer(drop_prob: float, *, norm_first: bool, reads_first: bool = False) -> nn.Module:
    return Tokens(16, 64, Transformer(drop_prob, norm_first=norm_first, reads_first=reads_first))


_SMALL = partial(Trained, steps=300, rate=1e-3, rows=32)
WALKED = (
    Trained("MLP, 1 hidden layer of 256, p .5", partial(dense, 1, 0.5)),
    Trained("MLP, 2 hidden layers of 256, p .5", partial(dense, 2, 0.5)),
    Trained("MLP, 3 hidden layers of 256, p .5", partial(dense, 3, 0.5)),
    Trained("MLP, 3 hidden layers of 256, p .1", partial(dense, 3, 0.1)),
    Trained("CNN, dropout .2, .3, .5 everywhere", convolutional),
)
LINEARISED = (
    Trained("encoder of 4 layers, d 256, length 64, p .1", encoder, 140, 3e-4, 32, 4, 40),
    _SMALL("encoder of 4, norms behind, d 64, p .1", partial(transformer, 0.1, norm_first=False)),
    _SMALL("encoder of 4, norms behind, d 64, p .3", partial(transformer, 0.3, norm_first=False)),
    _SMALL("encoder of 4, norms in front, GELU, p .1", partial(transformer, 0.1, norm_first=True)),
    _SMALL(
        "vision transformer, first position, p .1",
        partial(transformer, 0.1, norm_first=True, reads_first=True),
    ),
    _SMALL("LSTM, 2 layers of 128, p .3", partial(Recurrent, nn.LSTM, 0.3)),
    _SMALL("GRU, 2 layers of 128, p .3", partial(Recurrent, nn.GRU, 0.3)),
    _SMALL("residual, 3 blocks with batch norm, p .1", partial(residual, 0.1)),
    _SMALL("residual, 3 blocks with batch norm, p .3", partial(residual, 0.3)),
    _SMALL("residual, channels dropped, p .1", partial(residual, 0.1, nn.Dropout2d)),
)
