"""How far the scores of one row move with the rows beside it, and how that compares with a tie.

Eight rows are asked alone and among up to 1,000, of networks that differ in their layers and in how
large and how sure their logits are. The tolerance of a tie (`dubito/ties.py`) must be wider than
every score ever moves.

Dimensions: B rows, C classes, F features.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from record import parser, print_table, write
from torch import Tensor, nn

from dubito import ties
from dubito.calibration.flags import scores
from dubito.calibration.flags.distances import FeatureBank
from dubito.calibration.promises.sets import SetRule
from dubito.engine import Classification, Engine, Sampling
from dubito_nn import export
from dubito_nn.training import seeded

Floats = NDArray[np.float64]
NUM_ROWS, NUM_FEATURES = 8, 64


@dataclass(frozen=True)
class Settings:
    """Factors of the last weights and offsets of the first class make logits large and sure."""

    num_samples: int = 32
    sizes: tuple[int, ...] = (1, 2, 3, 5, 8, 33, 104, 1000)
    logits: tuple[tuple[float, float], ...] = ((1, 0), (5, 20), (10, 25), (50, 20), (1000, 0))
    seed: int = 0


class Encoder(nn.Module):
    """Two layers over eight positions."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.up = nn.Linear(8, 32)

    def forward(self, x: Tensor) -> Tensor:
        """The mean over the positions."""
        encoded: Tensor = self.encoder(self.up(x.view(-1, 8, 8)))
        return encoded.mean(1)


class Recurrent(nn.Module):
    """Two layers over eight steps."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 64, 2, dropout=0.3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """The last step."""
        steps: Tensor = self.lstm(x.view(-1, 8, 8))[0]
        return steps[:, -1]


def perceptron() -> nn.Module:
    """Two hidden layers."""
    first = nn.Sequential(nn.Linear(NUM_FEATURES, 1024), nn.ReLU(), nn.Dropout(0.2))
    return nn.Sequential(first, nn.Linear(1024, 256), nn.ReLU(), nn.Dropout(0.2))


def convolutional() -> nn.Module:
    """Two convolutions with dropout of channels between them."""
    maps = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU())
    more = nn.Sequential(nn.Dropout2d(0.2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU())
    return nn.Sequential(maps, nn.MaxPool2d(2), more, nn.Flatten(), nn.Dropout(0.3))


BODIES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "perceptron": (perceptron, 256),
    "convolutional": (convolutional, 512),
    "encoder": (Encoder, 32),
    "lstm": (Recurrent, 64),
}


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, object]]:
    """Measure, print, write the record, and return of each score the network where it is worst."""
    options = parser(__doc__, needs_data=False).parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = Settings(sizes=(1, 3), logits=((50, 20),)) if options.quick else Settings()
    begin = time.perf_counter()
    bodies = ["perceptron"] if options.quick else list(BODIES)
    found = {
        f"{body}, logits x {factor:g} + {offset:g}": measured(body, factor, offset, settings)
        for body in bodies
        for factor, offset in settings.logits
    }
    figures: dict[str, dict[str, object]] = {}
    for name in next(iter(found.values())):
        worst = max(found, key=lambda network: found[network][name]["of the tolerance"])
        figures[name] = {**found[worst][name], "where": worst}
    head = ("score", "absolute", "relative", "of the tolerance", "where that is largest")
    rows = [(name, *one.values()) for name, one in figures.items()]
    print_table("How far the scores of one row move", head, rows)
    write(
        options.results,
        "ties",
        settings=asdict(settings),
        figures=figures,
        seconds=time.perf_counter() - begin,
        is_quick=options.quick,
    )
    return figures


def measured(
    body: str, factor: float, offset: float, settings: Settings
) -> dict[str, dict[str, float]]:
    """By how much each score moves: at most, of its size, and of the tolerance of a tie."""
    make, width = BODIES[body]
    with seeded(settings.seed):
        last = nn.Linear(width, 10)
        network = nn.Sequential(make(), last)
        rows, usual = torch.randn(NUM_ROWS, NUM_FEATURES), torch.randn(300, NUM_FEATURES)
    with torch.no_grad():
        last.weight.mul_(factor)
        last.bias[0] += offset
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "network.dubito"
        export(network, rows, path, task="classification", output="logits", features="0")
        engine = Engine.load(path)
    label_B = np.arange(len(usual)) % 3
    bank = FeatureBank.fit(engine.features(usual).numpy(), label_B)
    seen: dict[str, list[list[Floats]]] = {}
    for size in settings.sizes:
        for first in range(NUM_ROWS if size < NUM_ROWS else 1):
            place_B = (np.arange(size) + first) % NUM_ROWS
            for name, score_B in scored(engine, bank, rows[place_B], settings).items():
                found = seen.setdefault(name, [[] for _ in range(NUM_ROWS)])
                for place, score in zip(place_B, score_B, strict=True):
                    found[place].append(np.atleast_1d(score))
    return {name: moved(name, found) for name, found in seen.items()}


def scored(
    engine: Engine, bank: FeatureBank, rows: Tensor, settings: Settings
) -> dict[str, Floats]:
    """Every score of the flag and of the sets."""
    served = engine.predict(rows, sampling=Sampling(num_samples=settings.num_samples))
    assert isinstance(served, Classification)
    feature_BF, half_B = engine.features(rows).numpy(), np.full(len(rows), 0.5)
    return {
        **{name: scores.from_columns(name, served) for name in scores.CLASSIFICATION},
        "knn": bank.knn(feature_BF),
        "mahalanobis": bank.mahalanobis(feature_BF),
        "relative_mahalanobis": bank.relative_mahalanobis(feature_BF),
        **{kind: SetRule(kind).scores(served.mean, half_B) for kind in ("lac", "aps")},
    }


def moved(name: str, found: Sequence[Sequence[Floats]]) -> dict[str, float]:
    """Largest differences over what one row got in different company."""
    low_N, high_N = (
        np.concatenate([extreme(one, axis=0) for one in found]) for extreme in (np.min, np.max)
    )
    absolute_N, size_N = high_N - low_N, np.maximum(np.abs(low_N), np.abs(high_N))
    tolerance_N = ties.RELATIVE * size_N + ties.least_of(name)
    relative_N = np.divide(absolute_N, size_N, out=np.zeros_like(size_N), where=size_N > 0)
    return {
        "absolute": float(absolute_N.max()),
        "relative": float(relative_N.max()),
        "of the tolerance": float((absolute_N / tolerance_N).max()),
    }


if __name__ == "__main__":
    main()
