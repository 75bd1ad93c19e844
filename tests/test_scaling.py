"""Vector and isotonic scaling: against references, few rows, consistency inside the engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import approx_fprime, minimize
from scipy.special import entr, log_softmax, softmax
from sklearn.isotonic import IsotonicRegression

from dubito.calibration.choices import ScalingName
from dubito.calibration.scaling.scaling import (
    _mean_loss,
    fit_isotonic,
    fit_scaling,
    fit_vector,
    label_nll,
    mean_probabilities,
    scaled_logits,
)
from dubito.calibration.scaling.temperature import fit_temperature
from dubito.engine import Engine, Ensemble, Sampling
from dubito.engine.heads.scaling import ClassMap, Isotonic, Scaling, Vector, scaled
from dubito.errors import InputError

from .conftest import Bundles

Floats = NDArray[np.float64]
VECTOR = Vector((0.5, 1.0, 2.0), (0.3, 0.0, -0.3))
ISOTONIC = Isotonic((0.0, 0.2, 0.6, 1.0), (0.1, 0.1, 0.5, 0.9), 99)


def drawn(
    num_rows: int, bias: float = 0.0, spread: float = 1.0, seed: int = 0
) -> tuple[Floats, NDArray[np.int64]]:
    """Logits of 8 passes that are too sure by 2, and off by a bias per class; and labels."""
    generator = np.random.default_rng(seed)
    logits_TBC = 4 * generator.normal(size=(1, num_rows, 5))
    logits_TBC = logits_TBC + spread * generator.normal(size=(8, num_rows, 5))
    bias_C = bias * np.array([1.0, -1.0, 0.5, -0.5, 0.0])
    mean_BC = softmax(logits_TBC / 2 + bias_C, axis=-1).mean(axis=0)
    label_B = (mean_BC.cumsum(axis=-1) < generator.random(num_rows)[:, None]).sum(axis=-1)
    return logits_TBC, label_B.clip(max=4)


def nll(scaling: Scaling, logits_TBC: Floats, label_B: NDArray[np.int64]) -> float:
    mean_BC = mean_probabilities(logits_TBC, scaling)
    return -float(np.log(mean_BC[np.arange(len(label_B)), label_B]).mean())


def slow_isotonic(probs_C: Floats, isotonic: Isotonic) -> Floats:
    share = 1 / (isotonic.num_rows + 1)
    risen_C = np.interp(probs_C, isotonic.inputs, isotonic.outputs)
    mixed_C = (1 - 2 * share) * risen_C + share * probs_C + share / len(probs_C)
    return mixed_C / mixed_C.sum()


def test_a_vector_scales_and_shifts_the_log_probabilities() -> None:
    logits_TBC = torch.randn(2, 4, 3, dtype=torch.float64)
    got = scaled(logits_TBC, VECTOR).softmax(-1)
    expected = softmax(
        np.array(VECTOR.weight) * log_softmax(logits_TBC.numpy(), axis=-1) + VECTOR.bias, axis=-1
    )
    np.testing.assert_allclose(got, expected, atol=1e-12)
    torch.testing.assert_close(scaled(logits_TBC + 7, VECTOR).softmax(-1), got)


@given(st.lists(st.floats(-30, 30), min_size=3, max_size=3))
def test_isotonic_scaling_agrees_with_a_slow_reference(logits: list[float]) -> None:
    got = scaled(torch.tensor([logits], dtype=torch.float64), ISOTONIC).softmax(-1)[0]
    np.testing.assert_allclose(got, slow_isotonic(softmax(np.array(logits)), ISOTONIC), atol=1e-12)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=6, unique=True))
def test_isotonic_scaling_keeps_the_order_of_classes_and_no_probability_at_zero(
    logits: list[float],
) -> None:
    before = softmax(np.array(logits))
    after = scaled(torch.tensor(logits, dtype=torch.float64), ISOTONIC).softmax(-1).numpy()
    floor = 1 / (ISOTONIC.num_rows + 1) / len(logits)
    assert (after > 0.9 * floor / 2).all()
    for i in range(len(logits)):
        for j in range(len(logits)):
            if before[i] > before[j] + 1e-9:
                assert after[i] > after[j]


@pytest.mark.parametrize("scaling", [2.5, VECTOR, ISOTONIC])
def test_the_axis_of_the_classes_may_be_any(scaling: Scaling) -> None:
    logits_TBC = torch.randn(4, 5, 3, dtype=torch.float64)
    last = scaled(logits_TBC, scaling).softmax(-1)
    middle = scaled(logits_TBC.transpose(1, 2), scaling, dim=1).softmax(1)
    torch.testing.assert_close(middle.transpose(1, 2), last)
    numpy_TBC = softmax(scaled_logits(logits_TBC.numpy(), scaling), axis=-1)
    np.testing.assert_allclose(numpy_TBC, last, atol=1e-12)


def test_a_plain_one_costs_nothing() -> None:
    logits_TBC = torch.randn(2, 3, 4)
    assert scaled(logits_TBC, 1.0) is logits_TBC


@pytest.mark.parametrize("scaling", [VECTOR, ISOTONIC])
def test_a_probability_of_zero_is_no_accident(scaling: ClassMap) -> None:
    logits_BC = torch.tensor([[0.0, 1.0, -torch.inf]], dtype=torch.float64)
    probs_BC = scaled(logits_BC, scaling).softmax(-1)
    assert probs_BC.isfinite().all()
    assert (probs_BC[0, 2] == 0) == isinstance(scaling, Vector)


def test_the_slopes_of_the_loss_are_those_of_finite_differences() -> None:
    logits_TBC, label_B = drawn(30)
    log_BCT = log_softmax(logits_TBC, axis=-1).transpose(1, 2, 0)
    point = np.random.default_rng(1).normal(size=10) / 3

    def loss(at: Floats) -> float:
        return _mean_loss(log_BCT, label_B, np.exp(at[:5]), at[5:])[0]

    _, by_weight_C, by_bias_C = _mean_loss(log_BCT, label_B, np.exp(point[:5]), point[5:])
    expected = approx_fprime(point, loss, 1e-6)
    np.testing.assert_allclose(np.r_[by_weight_C, by_bias_C], expected, atol=1e-4)


def test_the_vector_is_that_of_a_slow_search_of_its_posterior() -> None:
    logits_TBC, label_B = drawn(80, bias=1.0)

    def slow(point: Floats) -> float:
        log_weight_C, bias_C, middle = point[:5], point[5:10], point[10]
        scaled_TBC = np.exp(log_weight_C) * log_softmax(logits_TBC, axis=-1) + bias_C
        mean_BC = softmax(scaled_TBC, axis=-1).mean(axis=0)
        prior = (
            middle**2 + (((log_weight_C - middle) / 0.2) ** 2).sum() + ((bias_C / 0.4) ** 2).sum()
        )
        return float(-np.log(mean_BC[np.arange(80), label_B]).sum() + prior / 2)

    found = minimize(slow, np.zeros(11), method="BFGS", options={"gtol": 1e-4}).x
    vector = fit_vector(logits_TBC, label_B)
    np.testing.assert_allclose(vector.weight, np.exp(found[:5]), atol=5e-3)
    np.testing.assert_allclose(vector.bias, found[5:10] - found[5:10].mean(), atol=5e-3)


def test_a_vector_finds_what_a_temperature_cannot() -> None:
    known, fresh = drawn(1000, bias=1.0), drawn(4000, bias=1.0, seed=1)
    vector = fit_vector(*known)
    assert nll(vector, *fresh) < 0.95 * nll(fit_temperature(*known), *fresh)
    np.testing.assert_allclose(vector.bias, [1.0, -1.0, 0.5, -0.5, 0.0], atol=0.35)


def test_few_rows_do_not_overfit() -> None:
    """Over 20 draws of 30 rows where one temperature is the truth."""
    fresh = drawn(2000, seed=99)
    losses = {name: [] for name in ("none", "temperature", "vector")}
    for seed in range(20):
        known = drawn(30, seed=seed)
        for name, found in losses.items():
            found.append(nll(fit_scaling(name, *known), *fresh))  # type: ignore[arg-type]
    none, temperature, vector = (np.mean(losses[name]) for name in losses)
    assert vector < temperature + 0.02
    assert vector < none - 0.05


@pytest.mark.parametrize("name", ["temperature", "vector", "isotonic"])
def test_one_row_however_wrong_hardly_moves_a_scaling(name: ScalingName) -> None:
    known, fresh = drawn(120), drawn(2000, seed=1)
    before = nll(fit_scaling(name, *known), *fresh)
    for wrong in (1e2, 1e3, 1e5, np.inf):
        logits_TBC, label_B = known[0].copy(), known[1]
        logits_TBC[:, 3] = 0.0
        logits_TBC[:, 3, label_B[3]] = -wrong
        assert nll(fit_scaling(name, logits_TBC, label_B), *fresh) < before + 0.05


def test_positions_of_one_row_have_the_weight_of_one_row() -> None:
    logits_TBC, label_B = drawn(400)
    logits_TBPC, label_BP = logits_TBC.reshape(-1, 80, 5, 5), label_B.reshape(80, 5)
    before = fit_scaling("temperature", logits_TBPC, label_BP)
    logits_TBPC[:, 3] = 0.0
    np.put_along_axis(logits_TBPC[:, 3], label_BP[None, 3, :, None], -1e4, axis=-1)
    assert fit_scaling("temperature", logits_TBPC, label_BP) == pytest.approx(before, rel=0.05)


@pytest.mark.parametrize("scaling", [1.0, 2.5, VECTOR, ISOTONIC])
def test_the_loss_of_labels_is_that_of_their_mean_probability(scaling: Scaling) -> None:
    logits_TBC, label_B = drawn(40)
    logits_TBC, label_B = logits_TBC[..., :3], label_B % 3
    of_label_B = mean_probabilities(logits_TBC, scaling)[np.arange(40), label_B]
    np.testing.assert_allclose(label_nll(logits_TBC, label_B, scaling), -np.log(of_label_B))
    maps = label_nll(logits_TBC.reshape(-1, 8, 5, 3), np.r_[-1, label_B[1:]].reshape(8, 5), scaling)
    np.testing.assert_allclose(maps.ravel(), np.r_[0.0, -np.log(of_label_B)[1:]], atol=1e-12)


def test_the_loss_of_labels_underflows_nowhere_and_is_infinite_where_a_label_is_impossible() -> (
    None
):
    logits_TBC = np.zeros((2, 3, 2))
    logits_TBC[:, :, 0] = [100.0, 2000.0, np.inf]
    logits_TBC[:, 2] = [0.0, -np.inf]
    found = label_nll(logits_TBC, np.array([1, 1, 1]), 1.0)
    np.testing.assert_allclose(found, [100.0, 2000.0, np.inf])
    assert label_nll(logits_TBC[:, 2:], np.array([1]), ISOTONIC)[0] < 6
    one_in_two = np.array([[[0.0, 0.0]], [[500.0, 0.0]]])
    assert label_nll(one_in_two, np.array([1]), 1.0)[0] == pytest.approx(2 * np.log(2))


def test_a_class_without_rows_keeps_a_weight_near_the_others_and_hardly_an_offset() -> None:
    logits_TBC, label_B = drawn(200)
    vector = fit_vector(logits_TBC[:, label_B < 4], label_B[label_B < 4])
    assert 0 < vector.weight[4] < 2
    assert np.isfinite(vector.bias).all()


def test_isotonic_scaling_of_one_pass_is_scikit_learn_s_at_first() -> None:
    """One round is all there is to it where the mean is the pass, but for the sum of 1."""
    logits_TBC, label_B = drawn(300)
    one_TBC = logits_TBC[:1]
    probs_BC = softmax(one_TBC[0], axis=-1)
    reference = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    reference.fit(probs_BC.ravel(), np.eye(5)[label_B].ravel())
    found = fit_isotonic(one_TBC, label_B)
    grid = np.linspace(0, 1, 101)
    got = np.interp(grid, found.inputs, found.outputs)
    np.testing.assert_allclose(got, reference.predict(grid), atol=0.12)


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_isotonic_scaling_calibrates_the_mean_of_the_passes_and_not_the_mean_s_own_map(
    spread: float,
) -> None:
    known, fresh = drawn(1500, spread=spread), drawn(6000, spread=spread, seed=1)
    isotonic = fit_isotonic(*known)
    logits_TBC, label_B = fresh
    served_BC = mean_probabilities(logits_TBC, isotonic)
    is_hit_BC = np.eye(5)[label_B]
    edges = np.quantile(served_BC, np.linspace(0, 1, 11))
    place_BC = np.searchsorted(edges[1:-1], served_BC)
    for level in range(10):
        inside = place_BC == level
        assert served_BC[inside].mean() == pytest.approx(is_hit_BC[inside].mean(), abs=0.035)
    assert nll(isotonic, *fresh) < nll(1.0, *fresh)
    assert nll(isotonic, *fresh) < nll(fit_temperature(*known), *fresh) + 0.02


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Vector((1.0,), (0.0,)), "2 or more classes"),
        (lambda: Vector((1.0, 0.0), (0.0, 0.0)), "above 0"),
        (lambda: Vector((1.0, float("nan")), (0.0, 0.0)), "finite"),
        (lambda: Vector((1.0, 1.0), (0.0,)), "2 and 1"),
        (lambda: Isotonic((0.0,), (0.5,), 5), "2 or more knots"),
        (lambda: Isotonic((0.0, 0.0), (0.5, 0.6), 5), "ascending"),
        (lambda: Isotonic((0.0, 1.0), (0.6, 0.5), 5), "do not fall"),
        (lambda: Isotonic((0.0, 1.0), (0.6, 1.5), 5), r"\[0, 1\]"),
        (lambda: Isotonic((0.0, 1.0), (0.6, 0.7), 0), "1 row or more"),
    ],
)
def test_what_is_no_scaling_is_refused(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


@pytest.fixture(scope="module")
def engine(bundles: Bundles) -> Engine:
    return Engine.load(bundles("first"), num_samples=32)


ROWS = np.random.default_rng(3).normal(size=(7, 4)).astype(np.float32)
METHODS = [
    Sampling(32),
    Sampling(32, draw="iid"),
    Sampling(1, method="point"),
    Sampling(1, method="moments"),
]


@pytest.mark.parametrize("scaling", [2.5, VECTOR, ISOTONIC])
@pytest.mark.parametrize("sampling", METHODS)
def test_every_figure_of_a_prediction_is_of_the_calibrated_passes(
    engine: Engine, scaling: Scaling, sampling: Sampling
) -> None:
    got = engine.predict(ROWS, sampling=sampling, temperature=scaling)
    raw_TBC = engine.sample(ROWS, sampling=sampling).double().numpy()
    probs_TBC = softmax(scaled_logits(raw_TBC, scaling), axis=-1)
    mean_BC = probs_TBC.mean(axis=0)
    expected_B = entr(probs_TBC).sum(axis=-1).mean(axis=0)
    near = {"atol": 1e-6 if sampling.method == "moments" else 1e-7}
    np.testing.assert_allclose(got.mean, mean_BC, **near)
    np.testing.assert_allclose(got.mean, mean_probabilities(raw_TBC, scaling), **near)
    np.testing.assert_allclose(got.variance, probs_TBC.var(axis=0), **near)
    np.testing.assert_allclose(got.expected_entropy, expected_B, atol=1e-6)  # type: ignore[union-attr]
    np.testing.assert_allclose(
        got.predictive_entropy,  # type: ignore[union-attr]
        entr(mean_BC).sum(axis=-1),
        atol=1e-6,
    )
    total_B = got.expected_entropy + got.mutual_information  # type: ignore[union-attr]
    np.testing.assert_allclose(got.predictive_entropy, total_B, atol=1e-12)  # type: ignore[union-attr]


@pytest.mark.parametrize("scaling", [VECTOR, ISOTONIC])
def test_rows_that_stop_early_and_ensembles_are_scaled_too(
    engine: Engine, bundles: Bundles, scaling: Scaling
) -> None:
    stopping = Sampling(64, tolerance=10.0)
    got = engine.predict(ROWS, sampling=stopping, temperature=scaling)
    plain = engine.predict(ROWS, sampling=Sampling(32), temperature=scaling)
    np.testing.assert_allclose(got.mean, plain.mean, atol=1e-12)
    other = Engine.load(bundles("second"), num_samples=32)
    together = Ensemble((engine, other)).predict(
        ROWS, sampling=Sampling(32, method="ensemble"), temperature=scaling
    )
    second = other.predict(ROWS, sampling=Sampling(32, seed=1), temperature=scaling)
    np.testing.assert_allclose(together.mean, (plain.mean + second.mean) / 2, atol=1e-12)


def test_factors_of_other_classes_are_refused(engine: Engine) -> None:
    wrong = replace(VECTOR, weight=(1.0,) * 4, bias=(0.0,) * 4)
    with pytest.raises(InputError, match="each of 3 classes, got 4"):
        engine.predict(ROWS, temperature=wrong)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_information_is_never_negative_nor_above_the_total(seed: int) -> None:
    generator = np.random.default_rng(seed)
    isotonic = Isotonic(
        (0.0, *np.sort(generator.random(3)).tolist(), 1.0),
        tuple(np.sort(generator.random(5)).tolist()),
        int(generator.integers(1, 100)),
    )
    probs_TBC = softmax(scaled_logits(4 * generator.normal(size=(8, 5, 4)), isotonic), axis=-1)
    total_B = entr(probs_TBC.mean(axis=0)).sum(axis=-1)
    expected_B = entr(probs_TBC).sum(axis=-1).mean(axis=0)
    assert (total_B >= expected_B - 1e-12).all()
    assert (total_B <= np.log(4) + 1e-12).all()
