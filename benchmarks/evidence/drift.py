"""Rotated MNIST through the drift test: false alarms, and rows until the alarm.

    python benchmarks/evidence/drift.py --data ../shared/data

A convolutional network with dropout is trained on the first rows of the training part, exported,
and its score of the flag, `predictive_entropy`, taken with T = 16 on test rows and on the same rows
turned. Held-out scores and streams are then drawn from these scores, anew for every stream.

    alarms       streams of undisturbed rows that ring, of `num_streams`, at a promised 1 %
    fixed        the same, where p-values are taken against the held-out rows alone: what the
                 online test is there for
    within 200   streams of turned rows that ring within 200 rows, in per cent
    later        the same, where 500 undisturbed rows come first
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from data import mnist
from doubters import SIDE, convolutional
from numpy.typing import NDArray
from record import parser, print_table, training_bar, write
from scipy.stats import binom
from torch import Tensor

from dubito.engine import Classification, Engine
from dubito.monitoring.drift import FALSE_ALARM_RATE, DriftTest
from dubito.monitoring.martingale import Jumper
from dubito_nn import export
from dubito_nn.training import cross_entropy, seeded, train

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """How much is trained, scored and drawn."""

    train_rows: int = 6_000
    epochs: int = 4
    score_rows: int = 2_000
    num_samples: int = 16
    held_out: tuple[int, ...] = (30, 135)
    angles: tuple[int, ...] = (30, 45, 90)
    num_streams: int = 300
    num_rows: int = 1_000
    num_turned: int = 100
    seed: int = 0


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Train, score, draw streams; write the record and return its figures."""
    options = parser(__doc__).parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = Settings()
    if options.quick:
        settings = replace(
            settings, train_rows=200, epochs=1, score_rows=60, held_out=(20,), num_streams=3
        )
    start = time.perf_counter()
    ordinary, turned = _scores(options.data, settings)
    figures = {
        f"{count} held-out rows": _figures(ordinary, turned, count, settings)
        for count in settings.held_out
    }
    _show(figures, settings)
    write(
        options.results,
        "drift",
        settings=asdict(settings),
        figures=figures,
        seconds=time.perf_counter() - start,
        is_quick=options.quick,
    )
    return figures


def _scores(folder: Path, settings: Settings) -> tuple[Scores, dict[int, Scores]]:
    digits = mnist(folder).first(settings.train_rows)
    with seeded(settings.seed):
        network = convolutional()
    with training_bar("mnist") as show:
        train(
            network,
            digits.images,
            digits.labels,
            loss=cross_entropy,
            epochs=settings.epochs,
            batch_size=64,
            learning_rate=2e-3,
            seed=settings.seed,
            progress=show,
        )
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "mnist.dubito"
        export(network, digits.images[:4], path, task="classification", output="logits")
        engine = Engine.load(path, num_samples=settings.num_samples, draw="stratified")
    rows = digits.test_images[: settings.score_rows]
    return _score(engine, rows), {
        angle: _score(engine, turn(rows, angle)) for angle in settings.angles
    }


def _score(engine: Engine, rows: Tensor) -> Scores:
    found = [engine.predict(part) for part in rows.split(500)]
    assert all(isinstance(one, Classification) for one in found)
    return np.concatenate([one.predictive_entropy for one in found])  # type: ignore[union-attr]


def turn(rows: Tensor, angle: int) -> Tensor:
    """Return flat images turned by an angle in degrees, bilinear, with paper at the corners."""
    radians = torch.tensor(angle * torch.pi / 180)
    cos, sin = torch.cos(radians), torch.sin(radians)
    matrix = torch.stack([torch.stack([cos, -sin, cos * 0]), torch.stack([sin, cos, cos * 0])])
    images = rows.view(-1, 1, SIDE, SIDE)
    grid = torch.nn.functional.affine_grid(
        matrix.expand(len(rows), 2, 3), list(images.shape), align_corners=False
    )
    return torch.nn.functional.grid_sample(images, grid, align_corners=False).flatten(1)


def _figures(
    ordinary: Scores, turned: dict[int, Scores], count: int, settings: Settings
) -> dict[str, float]:
    generator = np.random.default_rng(settings.seed)
    found = {"alarms": 0.0, "fixed": 0.0}
    for seed in range(settings.num_streams):
        held_out = generator.choice(ordinary, count)
        stream = generator.choice(ordinary, settings.num_rows)
        test = DriftTest(held_out.tolist(), seed)
        test.feed(stream.tolist())
        found["alarms"] += test.state.alarm_after is not None
        found["fixed"] += _rings_against_fixed(held_out, stream, seed)
    found["bound"] = float(binom.ppf(0.99, settings.num_streams, FALSE_ALARM_RATE))
    for angle, scores in turned.items():
        for name, before in (("within 200", 0), ("later", 500)):
            rang = 0
            for seed in range(settings.num_turned):
                test = DriftTest(generator.choice(ordinary, count).tolist(), seed)
                test.feed(generator.choice(ordinary, before).tolist())
                test.feed(generator.choice(scores, 200).tolist())
                after = test.state.alarm_after
                rang += after is not None and after > before
            found[f"{angle} degrees, {name}"] = 100 * rang / settings.num_turned
    return found


def _rings_against_fixed(held_out: Scores, stream: Scores, seed: int) -> bool:
    """Whether the same bets ring on p-values that no score of the stream joins."""
    ordered, jumper = np.sort(held_out), Jumper()
    above = len(ordered) - np.searchsorted(ordered, stream, side="right")
    equal = len(ordered) - np.searchsorted(ordered, stream, side="left") - above + 1
    u = np.random.default_rng(seed).random(len(stream))
    p_values = (above + u * equal) / (len(ordered) + 1)
    return any(jumper.bet(p) >= np.log(1 / FALSE_ALARM_RATE) for p in p_values.tolist())


def _show(figures: dict[str, dict[str, float]], settings: Settings) -> None:
    names = list(next(iter(figures.values())))
    rows = [(name, *(found[name] for found in figures.values())) for name in names]
    print_table(f"{settings.num_streams} streams", ("", *figures), rows)


if __name__ == "__main__":
    main()
