"""Noise of a regression against data of known noise and a slow reference."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import minimize_scalar

from dubito.calibration.scaling.bounded import limit
from dubito.calibration.scaling.noise import Noise, check_precision, fit_noise, noise_losses
from dubito.errors import InputError
from dubito.report.likelihood import mixture_nll


def drawn(
    num_rows: int, noise: float, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of 32 passes that spread by 0.5, and targets of one pass plus noise; two outputs."""
    generator = np.random.default_rng(seed)
    mean_TBD = generator.normal(size=(1, num_rows, 2)) + 0.5 * generator.normal(
        size=(32, num_rows, 2)
    )
    chosen_B = generator.integers(0, 32, num_rows)
    target_BD = mean_TBD[chosen_B, np.arange(num_rows)]
    return mean_TBD, target_BD + noise * generator.normal(size=target_BD.shape) * [1.0, 3.0]


def slow_nll(mean_TBD: NDArray[np.float64], variance: object, target_BD: object) -> NDArray:
    density_TBD = stats.norm.pdf(target_BD, mean_TBD, np.sqrt(variance))
    return -np.log(density_TBD.mean(axis=0))


def test_the_noise_that_targets_were_drawn_with_is_found_again_for_each_output() -> None:
    """4,000 rows: relative standard error of a variance near 3 % beside the spread of passes."""
    mean_TBD, target_BD = drawn(4000, 0.7)
    noise = fit_noise(mean_TBD, None, target_BD)
    assert noise.variance == pytest.approx((0.49, 0.49 * 9), rel=0.15)
    assert noise.scale == (1.0, 1.0)
    assert noise.undetermined == ()


def test_the_scale_that_log_variances_are_off_by_is_found_again() -> None:
    mean_TBD, target_BD = drawn(4000, 0.7)
    true_D = np.log([0.49, 0.49 * 9])
    log_variance_TBD = np.broadcast_to(true_D - np.log(5.0), mean_TBD.shape)
    noise = fit_noise(mean_TBD, log_variance_TBD, target_BD)
    assert noise.scale == pytest.approx((5.0, 5.0), rel=0.15)
    assert noise.variance == (0.0, 0.0)


def test_the_fit_is_the_minimum_of_the_mixture_s_loss_written_out() -> None:
    mean_TBD, target_BD = drawn(80, 0.7, seed=1)
    log_variance_TBD = np.random.default_rng(2).normal(size=mean_TBD.shape)
    for log_variance in (None, log_variance_TBD):
        own = 1.0 if log_variance is None else np.exp(log_variance[..., :1])
        found = minimize_scalar(
            lambda u, own=own: slow_nll(
                mean_TBD[..., :1], np.exp(u) * own, target_BD[:, :1]
            ).mean(),
            bounds=(-5, 5),
            method="bounded",
            options={"xatol": 1e-8},
        )
        noise = fit_noise(mean_TBD, log_variance, target_BD)
        fitted = noise.variance[0] if log_variance is None else noise.scale[0]
        assert fitted == pytest.approx(np.exp(found.x), rel=1e-4)


@pytest.mark.parametrize(("log_variance", "residual"), [(-12.0, 1.0), (-700.0, 1e-3), (0.0, 1e6)])
def test_one_row_however_far_off_leaves_the_scale_of_the_others_where_it_was(
    log_variance: float, residual: float
) -> None:
    mean_TBD, target_BD = drawn(50, 0.7)
    own_TBD = np.zeros_like(mean_TBD)
    before = fit_noise(np.delete(mean_TBD, 17, axis=1), own_TBD[:, 1:], np.delete(target_BD, 17, 0))
    own_TBD[:, 17, 0] = log_variance
    target_BD[17, 0] = mean_TBD[:, 17, 0].mean() + residual
    after = fit_noise(mean_TBD, own_TBD, target_BD)
    assert after.scale[0] == pytest.approx(before.scale[0], rel=1e-3)
    assert after.outlying == (17,)
    assert before.outlying == ()


def test_one_far_target_leaves_the_noise_of_means_alone_where_it_was() -> None:
    mean_TBD, target_BD = drawn(50, 0.7)
    target_BD[17] += 1e4
    others = fit_noise(np.delete(mean_TBD, 17, axis=1), None, np.delete(target_BD, 17, axis=0))
    found = fit_noise(mean_TBD, None, target_BD)
    assert found.variance == pytest.approx(others.variance, rel=1e-3)
    assert found.outlying == (17,)


@pytest.mark.parametrize("size", [2.0, 5.0, 8.0, 12.0, 100.0])
def test_one_row_of_any_size_raises_the_noise_by_a_bounded_factor(size: float) -> None:
    generator = np.random.default_rng(0)
    target_BD = generator.normal(size=(50, 1))
    mean_TBD = np.zeros((1, 50, 1))
    before = fit_noise(mean_TBD, None, target_BD).variance[0]
    target_BD[7] = size
    assert fit_noise(mean_TBD, None, target_BD).variance[0] < 3 * before


def test_rows_that_agree_are_taken_at_their_word() -> None:
    """1 in 20 targets ten times as far: the likelihood of all rows, 100 of them far, decides."""
    generator = np.random.default_rng(0)
    target_BD = generator.normal(size=(2000, 1)) * np.where(np.arange(2000) % 20, 1, 10)[:, None]
    noise = fit_noise(np.zeros((1, 2000, 1)), None, target_BD)
    assert noise.variance[0] == pytest.approx(target_BD.var(), rel=0.01)
    assert noise.outlying == ()


def test_rows_that_are_met_too_well_have_their_say() -> None:
    mean_TBD = np.zeros((1, 12, 1))
    target_BD = np.random.default_rng(0).normal(size=(12, 1))
    target_BD[:3] = 0.0
    noise = fit_noise(mean_TBD, None, target_BD)
    assert noise.variance[0] == pytest.approx((target_BD**2).mean(), rel=0.01)
    assert noise.outlying == ()


def test_the_loss_is_the_mixture_s_and_not_that_of_averaged_parameters() -> None:
    mean_TBD = np.array([-1.0, 1.0]).reshape(2, 1, 1)
    nll_BD = mixture_nll(mean_TBD, np.full((1, 1, 1), 0.01), np.array([[1.0]]))
    expected = -(stats.norm.logpdf(0, scale=0.1) - np.log(2))
    assert nll_BD.item() == pytest.approx(expected, abs=1e-12)


def test_the_loss_agrees_with_its_formula_and_does_not_underflow() -> None:
    mean_TBD, target_BD = drawn(30, 0.7)
    variance_TBD = np.random.default_rng(3).gamma(2.0, size=mean_TBD.shape)
    np.testing.assert_allclose(
        mixture_nll(mean_TBD, variance_TBD, target_BD),
        slow_nll(mean_TBD, variance_TBD, target_BD),
        atol=1e-10,
    )
    far = mixture_nll(np.zeros((4, 1, 1)), np.full((1, 1, 1), 1e-6), np.array([[100.0]]))
    assert np.isfinite(far).all()


def test_the_component_variance_is_scale_times_its_own_plus_noise() -> None:
    log_variance_TBD = np.log(np.array([1.0, 3.0])).reshape(2, 1, 1)
    noise = Noise(variance=(0.5,), scale=(2.0,))
    assert noise.component_variance(log_variance_TBD).ravel().tolist() == [
        pytest.approx(2.5),
        pytest.approx(6.5),
    ]
    assert Noise.none(1).component_variance(None).tolist() == [[[0.0]]]


def test_a_given_precision_is_one_over_the_variance_and_must_be_positive() -> None:
    assert Noise.of_precision(4.0, 2).variance == (0.25, 0.25)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="positive number"):
            Noise.of_precision(wrong, 1)


@pytest.mark.parametrize("precision", [1e300, 1e-300, 1e13, 1e-13])
def test_a_precision_beyond_anything_the_targets_could_have_is_refused(precision: float) -> None:
    target_BD = np.random.default_rng(0).normal(size=(200, 1))
    with pytest.raises(InputError, match=r"from .*e-1[23] to .*e\+1[12] for targets like these"):
        check_precision(precision, target_BD)
    check_precision(1e11, target_BD)
    check_precision(1e-11, target_BD)
    check_precision(1e13, 1e-3 * target_BD)  # in another unit it is none


def test_targets_that_are_met_exactly_leave_the_noise_undetermined_and_finite() -> None:
    mean_TBD = np.broadcast_to(np.arange(20.0)[None, :, None], (4, 20, 1))
    noise = fit_noise(mean_TBD, None, mean_TBD[0])
    assert noise.undetermined == (0,)
    assert 0 < noise.variance[0] < 1e-6


@pytest.mark.parametrize("log_variance", [None, 0.0, 50.0, -50.0])
@pytest.mark.parametrize("level", [0.0, 0.1])
@pytest.mark.parametrize("every", [20, 50])
def test_rows_that_are_met_exactly_do_not_hide_the_optimum_of_the_others(
    log_variance: float | None, level: float, every: int
) -> None:
    """1 row in 20 or 50 is off by about 1.5, the others by 0, or what rounding leaves of 0.1."""
    mean_TBD = np.full((2, 100, 1), np.float32(level), dtype=np.float64)
    target_BD = np.full((100, 1), level)
    target_BD[::every, 0] += np.resize([1.5, -1.4, 1.7], 100 // every)
    own_TBD = None if log_variance is None else np.full_like(mean_TBD, log_variance)
    noise = fit_noise(mean_TBD, own_TBD, target_BD)
    found = noise.component_variance(own_TBD).ravel()[0]
    assert found == pytest.approx(((target_BD - mean_TBD[0]) ** 2).mean(), rel=0.02)
    assert (noise.undetermined, noise.outlying) == ((), ())


@pytest.mark.parametrize("log_variance", [50.0, 600.0, 699.9, -600.0, -690.0])
def test_log_variances_too_large_are_mended_as_those_too_small(log_variance: float) -> None:
    target_BD = np.random.default_rng(0).normal(size=(100, 1))
    mean_TBD = np.zeros((2, 100, 1))
    own_TBD = np.full_like(mean_TBD, log_variance)
    noise = fit_noise(mean_TBD, own_TBD, target_BD)
    variance = noise.component_variance(own_TBD)[0, 0, 0]
    assert variance == pytest.approx((target_BD**2).mean(), rel=1e-3)
    assert noise.undetermined == ()


def test_log_variances_that_differ_by_tens_of_nats_have_their_optimum() -> None:
    """Two thirds of the rows state e^30 times what the others do, and the others decide."""
    target_BD = np.random.default_rng(0).normal(size=(90, 1))
    mean_TBD, own_TBD = np.zeros((1, 90, 1)), np.zeros((1, 90, 1))
    own_TBD[:, np.arange(90) % 3 > 0] = 30.0
    noise = fit_noise(mean_TBD, own_TBD, target_BD)
    expected = (target_BD**2 / np.exp(own_TBD[0])).mean()
    assert noise.scale[0] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("offset", [0.0, 1e-4])
@pytest.mark.parametrize("num_rows", [20, 200])
def test_without_an_optimum_one_row_as_the_network_states_it_decides(
    offset: float, num_rows: int
) -> None:
    """Targets all 0, met exactly or nearly: a row of variance 1 costs half a nat for each row."""
    mean_TBD = np.full((2, num_rows, 1), offset)
    noise = fit_noise(mean_TBD, np.zeros_like(mean_TBD), np.zeros((num_rows, 1)))
    assert noise.scale[0] == pytest.approx(1 / (num_rows + 1), rel=1e-3)
    assert noise.undetermined == (0,)


def test_a_single_row_that_is_off_leaves_at_most_the_noise_that_the_network_states() -> None:
    mean_TBD, target_BD = np.zeros((1, 99, 1)), np.zeros((99, 1))
    for size, expected in ((1.0, 2 / 100), (5.0, 26 / 100), (1e6, 1.0)):
        target_BD[17] = size
        noise = fit_noise(mean_TBD, np.zeros_like(mean_TBD), target_BD)
        assert noise.scale == pytest.approx((expected,))


@pytest.mark.parametrize(("size", "expected"), [(2.8, 0.0802), (6.0, 0.3618), (1e6, 1.0)])
def test_rows_met_exactly_do_not_outvote_the_largest_of_few_that_are_off(
    size: float, expected: float
) -> None:
    mean_TBD, target_BD = np.zeros((1, 100, 1)), np.zeros((100, 1))
    target_BD[:5, 0] = [size, 0.3, -0.2, 0.1, 0.2]
    noise = fit_noise(mean_TBD, np.zeros_like(mean_TBD), target_BD)
    assert noise.scale[0] == pytest.approx(expected, rel=0.02)
    assert noise.outlying == ((0,) if size > 10 else ())


def test_means_that_meet_the_same_target_in_every_row_get_a_noise_of_its_size() -> None:
    for level, expected in ((0.0, 1 / 51), (-3.0, 9 / 51)):
        mean_TBD = np.full((2, 50, 1), level)
        assert fit_noise(mean_TBD, None, mean_TBD[0]).variance == pytest.approx((expected,))


def test_what_a_row_may_lose_is_counted_from_the_noise_that_suits_its_passes_together() -> None:
    """That is the mean of their squares, of this row (9 + 1) / 2; the noise is far too small."""
    mean_TBD, target_BD = np.array([0.0, 2.0]).reshape(2, 1, 1), np.array([[3.0]])
    found = noise_losses(Noise((1e-9,), (1.0,)), mean_TBD, None, target_BD, num_rows=1)
    density = stats.norm.pdf(3.0, [0.0, 2.0], np.sqrt(5.0)).mean()
    assert found == pytest.approx([limit(1) - np.log(density)])
