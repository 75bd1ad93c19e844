"""The digits network, whole: accuracy, false alarms, and what it makes of other rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from dubito.calibration.record import Calibration
from dubito.engine import Engine, Sampling
from dubito.recipes.demo import DIGITS, DatasetRows

from .fits import fit_classification, served_scores

ALPHA = 0.05
SAMPLING = Sampling(num_samples=64)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine(demonstrated: Callable[[str], Path]) -> Engine:
    return Engine.load(demonstrated("digits"))


@pytest.fixture(scope="module")
def held_out() -> DatasetRows:
    """All rows that the network was not trained on."""
    splits = DIGITS.splits()
    return DatasetRows(
        np.concatenate([splits.calibration.inputs, splits.test.inputs]),
        np.concatenate([splits.calibration.targets, splits.test.targets]),
    )


@pytest.fixture(scope="module")
def passes(engine: Engine, held_out: DatasetRows) -> NDArray[np.float32]:
    return engine.sample(held_out.inputs, sampling=SAMPLING).numpy()


@pytest.fixture(scope="module")
def maps(engine: Engine, held_out: DatasetRows) -> NDArray[np.float32]:
    return engine.feature_maps(held_out.inputs).numpy()


@pytest.fixture(scope="module")
def calibration(engine: Engine) -> Calibration:
    rows = DIGITS.splits().calibration
    logits_TBC = engine.sample(rows.inputs, sampling=SAMPLING).numpy()
    return calibrated(logits_TBC, rows.targets, engine.feature_maps(rows.inputs).numpy(), 0)


def calibrated(
    logits_TBC: NDArray[np.float32],
    label_B: NDArray[np.generic],
    maps: NDArray[np.float32],
    seed: int,
) -> Calibration:
    asked = {"sampling": SAMPLING, "alpha": ALPHA, "coverage": 0.9, "seed": seed}
    return fit_classification(logits_TBC, label_B, features=maps, **asked)


def flagged(engine: Engine, calibration: Calibration, inputs: NDArray[np.float32]) -> float:
    prediction, maps = engine.predict_with_features(
        inputs, sampling=SAMPLING, temperature=calibration.head.logit_scaling
    )
    return float(calibration.ood.flags(served_scores(calibration, prediction, maps.numpy())).mean())


def test_held_out_accuracy_is_at_least_97_percent(engine: Engine) -> None:
    rows = DIGITS.splits().test
    got = engine.predict(rows.inputs, sampling=SAMPLING)
    assert (got.label_index == rows.targets).mean() >= 0.97  # type: ignore[union-attr]


def test_the_share_of_false_alarms_is_as_stated_over_random_splits(
    engine: Engine,
    held_out: DatasetRows,
    passes: NDArray[np.float32],
    maps: NDArray[np.float32],
) -> None:
    """K of m fresh rows, K ~ BetaBinomial(m, ⌊α(n+1)⌋, n+1-⌊α(n+1)⌋); by chance 1 in 100."""
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(held_out))
        known, fresh = order[:450], order[450:]
        calibration = calibrated(passes[:, known], held_out.targets[known], maps[known], seed)
        n, m = len(calibration.ood.held_out), len(fresh)
        k = int(np.floor(ALPHA * (n + 1)))
        low, high = stats.betabinom(m, k, n + 1 - k).interval(1 - 0.01 / 20)
        share = flagged(engine, calibration, held_out.inputs[fresh])
        assert low / m <= share <= high / m, seed


def test_at_least_95_percent_of_uniform_noise_is_flagged(
    engine: Engine, calibration: Calibration
) -> None:
    noise = np.random.default_rng(0).random((500, 64)).astype(np.float32)
    assert flagged(engine, calibration, noise) >= 0.95


def test_at_least_60_percent_of_digits_mirrored_top_to_bottom_are_flagged(
    engine: Engine, calibration: Calibration
) -> None:
    rows = DIGITS.splits().test
    chosen = rows.inputs[np.isin(rows.targets, [2, 3, 4, 5, 7])]
    mirrored = chosen.reshape(-1, 8, 8)[:, ::-1].reshape(-1, 64).copy()
    assert flagged(engine, calibration, mirrored) >= 0.6


def test_identities_of_the_measures_hold_on_every_row(
    engine: Engine, held_out: DatasetRows
) -> None:
    got = engine.predict(held_out.inputs, sampling=SAMPLING)
    total = got.expected_entropy + got.mutual_information  # type: ignore[union-attr]
    np.testing.assert_allclose(got.predictive_entropy, total, atol=1e-12)  # type: ignore[union-attr]
    assert (got.mutual_information >= 0).all()  # type: ignore[union-attr]
    assert (got.predictive_entropy <= np.log(10)).all()  # type: ignore[union-attr]


def test_many_rows_equal_single_rows(engine: Engine, held_out: DatasetRows) -> None:
    rows = held_out.inputs[:20]
    together = engine.sample(rows)
    alone = torch.cat([engine.sample(rows[i : i + 1]) for i in range(20)], dim=1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
