"""The temperature against a slow reference, its bounds, and data of known temperature."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from dubito.calibration.scaling.scaling import mean_probabilities
from dubito.calibration.scaling.temperature import fit_temperature


def drawn(
    num_rows: int, temperature: float, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits of 64 passes, and labels drawn from their mean at a temperature."""
    generator = np.random.default_rng(seed)
    logits_TBC = generator.normal(size=(64, num_rows, 10)) + 4 * generator.normal(
        size=(1, num_rows, 10)
    )
    mean_BC = mean_probabilities(logits_TBC, temperature)
    uniform_B = generator.random(num_rows)
    label_B = (mean_BC.cumsum(axis=-1) < uniform_B[:, None]).sum(axis=-1).clip(max=9)
    return logits_TBC, label_B


def slow_loss(
    logits_TBC: NDArray[np.float64], label_B: NDArray[np.int64], temperature: float
) -> float:
    mean_BC = softmax(logits_TBC / temperature, axis=-1).mean(axis=0)
    nll = -np.log(mean_BC[np.arange(len(label_B)), label_B]).sum()
    return float(nll + 0.5 * np.log(temperature) ** 2)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found_again(temperature: float) -> None:
    """4,000 rows leave a standard error near 2 %; four of them are allowed."""
    logits_TBC, label_B = drawn(4000, temperature)
    assert fit_temperature(logits_TBC, label_B) == pytest.approx(temperature, rel=0.08)


def test_the_fit_is_the_minimum_of_the_loss_written_out() -> None:
    logits_TBC, label_B = drawn(60, 2.0)
    found = minimize_scalar(
        lambda temperature: slow_loss(logits_TBC, label_B, temperature),
        bounds=(0.2, 10.0),
        method="bounded",
        options={"xatol": 1e-7},
    )
    assert fit_temperature(logits_TBC, label_B) == pytest.approx(found.x, rel=2e-4)


def test_the_loss_is_that_of_the_mean_and_not_the_mean_of_the_losses() -> None:
    logits_TBC, label_B = drawn(300, 2.0)
    of_each_pass = minimize_scalar(
        lambda u: (
            -np.take_along_axis(
                log_softmax(logits_TBC / np.exp(u), axis=-1), label_B[None, :, None], axis=-1
            ).mean()
        ),
        bounds=(-2, 2),
        method="bounded",
    )
    assert abs(fit_temperature(logits_TBC, label_B) - np.exp(of_each_pass.x)) > 0.05


@pytest.mark.parametrize("size", [1e-3, 1e2, 1e4])
def test_logits_of_any_size_get_a_temperature_of_their_size(size: float) -> None:
    """Cosines lie within 1, unnormalised scores in the thousands; the loss has no other valley."""
    logits_TBC, label_B = drawn(500, 1.0)
    usual = fit_temperature(logits_TBC, label_B)
    assert fit_temperature(size * logits_TBC, label_B) == pytest.approx(size * usual, rel=0.06)


def test_rows_that_are_all_right_keep_a_sober_temperature() -> None:
    generator = np.random.default_rng(3)
    label_B = generator.integers(0, 10, 100)
    logits_TBC = generator.normal(size=(64, 100, 10)) * 0.1 + 6 * np.eye(10)[label_B]
    assert 0.2 < fit_temperature(logits_TBC, label_B) < 1.0


def test_logits_of_any_size_and_certain_ones_do_not_overflow() -> None:
    logits_TBC, label_B = drawn(50, 1.0)
    assert np.isfinite(fit_temperature(1e300 * logits_TBC, label_B))
    logits_TBC[:, :, 9] = -np.inf
    assert np.isfinite(fit_temperature(logits_TBC, np.minimum(label_B, 8)))
    assert np.isfinite(mean_probabilities(1e300 * np.sign(logits_TBC[:, :, :9]), 0.05)).all()


def test_the_mean_is_of_probabilities_and_sums_to_1() -> None:
    logits_TBC, _ = drawn(20, 1.0)
    mean_BC = mean_probabilities(logits_TBC, 1.7)
    np.testing.assert_allclose(mean_BC, softmax(logits_TBC / 1.7, axis=-1).mean(axis=0), atol=1e-14)
    np.testing.assert_allclose(mean_BC.sum(axis=-1), 1.0, atol=1e-12)


def test_five_hundred_rows_of_64_passes_take_less_than_a_second() -> None:
    logits_TBC, label_B = drawn(500, 2.0)
    start_s = time.process_time()
    fit_temperature(logits_TBC.astype(np.float32), label_B)
    assert time.process_time() - start_s < 1.0
