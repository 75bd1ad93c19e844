"""The drift test on scikit-learn's digits, through training, export, engine and calibration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binom

from dubito.engine import Engine
from dubito.monitoring.drift import FALSE_ALARM_RATE, DriftTest
from dubito.recipes.demo.digits import digit_splits
from dubito_nn import export
from dubito_nn.dropout import StandardFamily
from dubito_nn.networks import CNN
from dubito_nn.training import cross_entropy, seeded, train

from .fits import fit_classification, served_scores

pytestmark = [
    pytest.mark.slow,  # a network is trained
]

SIDE, EPOCHS, NUM_SAMPLES = 8, 10, 16


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of rows that the network has not seen, and of the same rows turned by 90 degrees."""

    num_held_out: int
    ordinary: NDArray[np.float64]
    rotated: NDArray[np.float64]


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    splits = digit_splits()
    with seeded(0):
        network = CNN(
            dropout=StandardFamily(drop_prob=0.4, spatial_drop_prob=0.2), cosine_scale=20.0
        )
    rows = torch.from_numpy(splits.train.inputs)
    train(
        network,
        rows,
        torch.from_numpy(splits.train.targets),
        loss=cross_entropy,
        epochs=EPOCHS,
        batch_size=50,
        learning_rate=2e-3,
        seed=0,
    )
    path: Path = tmp_path_factory.mktemp("digits") / "digits.dubito"
    export(network, rows[:4], path, task="classification", output="logits")
    engine = Engine.load(path, num_samples=NUM_SAMPLES, draw="stratified")
    held_out, test = splits.calibration, splits.test
    sampling = engine.predict(rows[:1]).sampling
    calibration = fit_classification(
        engine.sample(torch.from_numpy(held_out.inputs), sampling=sampling).numpy(),
        held_out.targets,
        sampling=sampling,
        alpha=0.05,
        coverage=0.9,
        seed=0,
    )
    unseen = np.concatenate([held_out.inputs, test.inputs])
    turned = np.rot90(unseen.reshape(-1, SIDE, SIDE), axes=(1, 2)).reshape(unseen.shape)

    def scored(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        found = engine.predict(
            torch.from_numpy(np.ascontiguousarray(rows)),
            temperature=calibration.head.logit_scaling,
        )
        return served_scores(calibration, found)

    return Scores(len(calibration.ood.held_out), scored(unseen), scored(turned))


def test_undisturbed_streams_ring_no_more_often_than_promised(scores: Scores) -> None:
    """300 streams of 1,000 rows at 1 %: the count is within its exact 99 % bound."""
    generator, num_streams = np.random.default_rng(1), 300
    alarms = 0
    for seed in range(num_streams):
        drawn = generator.choice(scores.ordinary, scores.num_held_out + 1000)
        drift = DriftTest(drawn[:-1000].tolist(), seed)
        drift.feed(drawn[-1000:].tolist())
        alarms += drift.state.alarm_after is not None
    print(f"{alarms} of {num_streams} undisturbed streams ring")
    assert alarms <= binom.ppf(0.99, num_streams, FALSE_ALARM_RATE)


def test_rotated_digits_ring_within_200_rows(scores: Scores) -> None:
    generator = np.random.default_rng(2)
    rang_after = []
    for seed in range(100):
        held_out = generator.choice(scores.ordinary, scores.num_held_out)
        drift = DriftTest(held_out.tolist(), seed)
        drift.feed(generator.choice(scores.rotated, 200).tolist())
        rang_after.append(drift.state.alarm_after)
    found = [after for after in rang_after if after is not None]
    print(f"{len(found)} of 100 rotated streams ring, median after {np.median(found):.0f} rows")
    assert len(found) >= 95
