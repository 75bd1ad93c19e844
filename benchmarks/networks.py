"""The networks that the benchmarks time, what they are asked, and what is aimed at.

Dimensions: T samples, B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from dubito_nn.networks import ResNet

P = 0.5  # of the perceptron


@dataclass(frozen=True)
class Case:
    """A network and what it is asked.

    Args:
        key: its name on the command line.
        name: as the table prints it.
        build: makes the network.
        shape: of one row.
        aims: by B, the ratio to the best full peer that was set as the aim, for T = 50.
        kept_flops: of T samples of B rows, counting kept units alone; None where not counted.
    """

    key: str
    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    aims: Mapping[int, float] = field(default_factory=dict)
    kept_flops: Callable[[int, int], float] | None = None


def perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, 1024),
        nn.ReLU(),
        nn.Dropout(P),
        nn.Linear(1024, 1024),
        nn.ReLU(),
        nn.Dropout(P),
        nn.Linear(1024, 10),
    )


def perceptron_flops(samples: int, batch: int) -> float:
    """The first layer once, the others T times on the units kept on average."""
    kept = (1 - P) * 1024
    return 2.0 * batch * (784 * 1024 + samples * (kept * kept + kept * 10))


def convolutional(*, spatial: bool) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *([nn.Dropout2d(0.2)] if spatial else []),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 49, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 10),
    )


def _dropped(drop_prob: float, last: nn.Module) -> nn.Module:
    """A last map, with dropout in front of it where there is a p."""
    return nn.Sequential(nn.Dropout(drop_prob), last) if drop_prob else last


class Encoder(nn.Module):
    """Four layers of width 256 over 64 positions, dropout .1 everywhere.

    Args:
        head_drop_prob: p in front of the last map.
    """

    def __init__(self, head_drop_prob: float = 0.0) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = _dropped(head_drop_prob, nn.Linear(256, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


class Recurrent(nn.Module):
    """Two layers of an LSTM with dropout between them, and a head on the last step.

    Args:
        head_drop_prob: p in front of the last map.
    """

    def __init__(self, head_drop_prob: float = 0.0) -> None:
        super().__init__()
        self.lstm = nn.LSTM(64, 256, 2, dropout=0.3, batch_first=True)
        self.head = _dropped(head_drop_prob, nn.Linear(256, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def residual(head_drop_prob: float = 0.0) -> nn.Module:
    return ResNet(
        (3, 32, 32),
        channels=(32, 64, 128),
        drop_prob=head_drop_prob,
        stochastic_depth=0.2,
        dropblock=0.1,
        dropblock_stages=2,
        block_size=3,
    )


CASES = (
    Case(
        "mlp",
        "MLP 784-1024-1024-10, p .5",
        perceptron,
        (784,),
        {1: 3, 16: 7, 128: 11},
        perceptron_flops,
    ),
    Case(
        "cnn-spatial",
        "CNN, Dropout2d .2 between its convolutions, .5 before its last layer",
        lambda: convolutional(spatial=True),
        (1, 28, 28),
        {1: 3.5, 16: 3.5, 128: 4.5},
    ),
    Case(
        "cnn-head",
        "CNN, dropout .5 before its last layer",
        lambda: convolutional(spatial=False),
        (1, 28, 28),
        {1: 6, 16: 35, 128: 45},
    ),
    Case(
        "encoder",
        "transformer encoder, 4 layers, d 256, length 64, p .1",
        Encoder,
        (64, 256),
        {1: 1.8, 4: 1.8, 16: 2},
    ),
    Case(
        "lstm",
        "LSTM, 2 layers of 256, length 32, p .3 between",
        Recurrent,
        (32, 64),
        {1: 7, 16: 2.5, 128: 2},
    ),
    Case(
        "resnet",
        "ResNet, 3 stages of 2 blocks, DropBlock, stochastic depth",
        residual,
        (3 * 32 * 32,),
        {1: 2, 4: 1.6, 16: 1.6},
    ),
)
