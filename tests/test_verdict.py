"""Whether a fit is worth having: the verdict against its formula, and on data of known answers."""

from math import log

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import softmax

from dubito.calibration import splits
from dubito.calibration.choices import ScalingName
from dubito.calibration.scaling.noise import Noise, fit_noise
from dubito.calibration.scaling.scaling import fit_scaling
from dubito.calibration.scaling.temperature import fit_temperature
from dubito.calibration.verdict import JudgedFit, Verdict, judge_noise, judge_scaling
from dubito.report import no_check
from dubito.report.likelihood import mixture_nll

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def drawn(
    num_rows: int, num_classes: int, seed: int, *, spread: float = 2.0, factor: float = 1.0
) -> tuple[Floats, Indices]:
    """Logits of 4 passes, too sure by a factor, and labels drawn from their mean without it."""
    generator = np.random.default_rng(seed)
    logits_TBC = spread * generator.normal(
        size=(1, num_rows, num_classes)
    ) + 0.3 * generator.normal(size=(4, num_rows, num_classes))
    mean_BC = softmax(logits_TBC, axis=-1).mean(axis=0)
    uniform_B = generator.random((num_rows, 1))
    label_B = (mean_BC.cumsum(axis=-1) < uniform_B).sum(axis=-1).clip(max=num_classes - 1)
    return factor * logits_TBC, label_B


def judged(name: ScalingName, logits: Floats, label: Indices, seed: int = 0) -> JudgedFit:
    scaling = fit_scaling(name, logits, label)
    return judge_scaling(name, scaling, logits, label, np.arange(len(label)), seed, no_check)


def test_the_verdict_is_that_of_five_folds_written_out() -> None:
    logits_TBC, label_B = drawn(52, 3, seed=1, factor=1.5)
    fit_b = np.arange(1, 52, 2)
    order_b = np.random.Generator(np.random.Philox(7)).permutation(fit_b).tolist()
    order_b.sort(key=lambda row: label_B[row])
    differences = []
    for place in range(5):
        held = order_b[place::5]
        known = np.setdiff1d(fit_b, held)
        temperature = fit_temperature(logits_TBC[:, known], label_B[known])
        for row in held:
            with_it, without = (
                softmax(logits_TBC[:, row] / one, axis=-1)[:, label_B[row]].mean()
                for one in (temperature, 1.0)
            )
            differences.append(np.log(without) - np.log(with_it))
    scaling = fit_temperature(logits_TBC[:, fit_b], label_B[fit_b])
    found = judge_scaling("temperature", scaling, logits_TBC, label_B, fit_b, 7, no_check).verdict
    error = np.std(differences, ddof=1) * np.sqrt((1 + 5 / 4) / 26)
    assert found.nats == pytest.approx(np.mean(differences), abs=1e-4)
    assert found.margin == pytest.approx(max(stats.t.ppf(0.99, 25) * error, log(20) / 26), rel=1e-3)
    assert (found.against, found.num_rows) == ("none", 26)


def test_a_scaling_of_a_calibrated_network_is_hardly_ever_called_worse() -> None:
    """40 draws of 60 rows: more than 2 by chance in 1 of 130, if 1 in 100 were called so."""
    worse = sum(judged("temperature", *drawn(60, 4, seed)).verdict.is_worse for seed in range(40))
    assert worse <= 2


def test_classes_that_were_dealt_out_in_their_shares_are_not_held_against_the_fit() -> None:
    """8 calibrated networks; with folds that pass the classes over, 5 fits are called worse."""
    worse = 0
    for seed in range(8):
        logits_TBC, label_B = drawn(450, 10, seed, spread=0.4)
        fit_b = splits.parts(450, alpha=0.05, coverage=0.9, seed=seed, label_B=label_B)["fit"]
        known = logits_TBC[:1, fit_b], label_B[fit_b]
        worse += judged("vector", *known).verdict.is_worse
    assert worse <= 1


@pytest.mark.parametrize("name", ["temperature", "vector", "isotonic"])
def test_a_scaling_of_a_network_that_is_too_sure_is_better(name: ScalingName) -> None:
    verdict = judged(name, *drawn(120, 4, seed=0, factor=4.0)).verdict
    assert verdict.nats < -verdict.margin
    assert verdict.is_active
    assert str(verdict).startswith("better than no fit beyond chance: by cross-validation on 120")


def test_classes_in_another_order_than_the_networks_are_told() -> None:
    generator = np.random.default_rng(0)
    label = generator.integers(0, 3, 300)
    logits = 4 * np.eye(3)[label][None] + generator.normal(size=(4, 300, 3))
    rows = np.arange(300)
    for order, is_told in (([0, 1, 2], False), ([1, 2, 0], True)):
        permuted = logits[..., order]
        scaling = fit_scaling("temperature", permuted, label, no_check)
        judged = judge_scaling("temperature", scaling, permuted, label, rows, 0, no_check)
        assert any("in the network's order" in line for line in judged.warnings) == is_told


def test_what_is_worse_than_none_is_kept_and_not_active() -> None:
    verdict = Verdict("none", nats=0.2, margin=0.1, num_rows=113)
    assert verdict.is_worse
    assert not verdict.is_active
    assert str(verdict) == (
        "worse than no fit beyond chance: by cross-validation on 113 rows of the fit it costs 0.2 "
        "nats a row, of which chance explains 0.1; it is kept but not active: look for rows with "
        "wrong truths, or of a kind that the network was not trained for, and calibrate again"
    )
    assert Verdict("none", nats=0.1, margin=0.1, num_rows=113).is_active


def test_a_fit_that_does_not_help_is_left_out_unless_it_was_asked_for_by_name() -> None:
    """On 40 draws each of networks that are right and too sure."""
    right = [judged("temperature", *drawn(60, 4, seed)) for seed in range(40)]
    for found in right:
        verdict = found.verdict
        error = verdict.margin / stats.t.ppf(0.99, 59) / np.sqrt(1 + 5 / 4)
        if verdict.margin > 1.001 * log(20) / 60:  # else it is not told by the margin
            helps = -verdict.nats > max(error, 1 / 60)
            assert verdict.is_left_out == (not verdict.is_worse and not helps)
        assert not found.as_asked().verdict.is_left_out
    left_out = sum(found.verdict.is_left_out for found in right)
    assert left_out >= 30
    sure = [judged("temperature", *drawn(60, 4, seed, factor=3.0)) for seed in range(40)]
    assert sum(found.verdict.is_left_out for found in sure) <= 2
    assert str(right[0].verdict).endswith("less than the error of that figure")


def test_positions_are_judged_by_rows_and_unlabelled_ones_not_at_all() -> None:
    logits_TNC, label_N = drawn(300, 3, seed=3, factor=3.0)
    logits_TBPC, label_BP = logits_TNC.reshape(4, 60, 5, 3), label_N.reshape(60, 5)
    label_BP[:, 4] = -1
    first = judged("temperature", logits_TBPC[:, :, :4], label_BP[:, :4]).verdict
    found = judged("temperature", logits_TBPC, label_BP).verdict
    assert (found.num_rows, found.against) == (60, "none")
    assert found.nats == pytest.approx(first.nats, abs=1e-9)
    assert found.nats < -found.margin


def test_one_row_that_the_fit_leaves_out_does_not_sway_the_verdict_and_is_named() -> None:
    logits_TBC, label_B = drawn(60, 4, seed=5)
    before = judged("temperature", logits_TBC, label_B)
    logits_TBC[:, 17] = 0.0
    logits_TBC[:, 17, (label_B[17] + 1) % 4] = 1e4
    after = judged("temperature", logits_TBC, label_B)
    assert before.warnings == ()
    assert "1 of 60 (row 17): check their labels" in after.warnings[0]
    assert after.verdict.nats == pytest.approx(before.verdict.nats, abs=0.05)
    assert after.verdict.margin < 2 * before.verdict.margin


def test_a_noise_is_judged_against_none_a_given_one_against_a_fitted_one() -> None:
    generator = np.random.default_rng(0)
    mean_TBD = 0.1 * generator.normal(size=(4, 80, 1))
    target_BD = generator.normal(size=(80, 1))
    rows, rest = np.arange(80), (0, no_check)
    own_TBD = np.full_like(mean_TBD, -4.0)
    scaled = judge_noise(
        fit_noise(mean_TBD, own_TBD, target_BD), False, mean_TBD, own_TBD, target_BD, rows, *rest
    )
    assert scaled.verdict.nats < -scaled.verdict.margin
    assert scaled.verdict.against == "none"
    fitted = fit_noise(mean_TBD, None, target_BD)
    plain = judge_noise(fitted, False, mean_TBD, None, target_BD, rows, *rest)
    assert plain == JudgedFit(Verdict())
    for precision, is_worse in ((1.0, False), (100.0, True), (0.01, True)):
        given = Noise.of_precision(precision, 1)
        found = judge_noise(given, True, mean_TBD, None, target_BD, rows, *rest)
        assert found.verdict.is_worse is is_worse
        assert found.verdict.is_active  # what the caller knows is taken as it is, not in silence
        assert [one[:17] for one in found.warnings] == ["`noise_precision`"] * is_worse


@pytest.mark.parametrize("log_variance", [0.0, 50.0, 600.0])
def test_a_noise_of_rows_mostly_met_exactly_is_judged_as_it_is_served(log_variance: float) -> None:
    """1 target in 20 is not 0, or a single one outside the fit: no row costs a thousand nats."""
    mean_TBD = np.zeros((2, 400, 1))
    own_TBD = np.full_like(mean_TBD, log_variance)
    some_BD, single_BD = np.zeros((400, 1)), np.zeros((400, 1))
    some_BD[::20, 0] = np.resize([1.5, -0.4, 2.5, -1.4, 0.2], 20)
    single_BD[399] = np.exp(log_variance / 2)
    fit_b = np.arange(100)
    for target_BD, optimum in ((some_BD, (some_BD[:100] ** 2).mean()), (single_BD, None)):
        noise = fit_noise(mean_TBD[:, fit_b], own_TBD[:, fit_b], target_BD[fit_b])
        found = judge_noise(noise, False, mean_TBD, own_TBD, target_BD, fit_b, 0, no_check)
        variance_TBD = noise.component_variance(own_TBD)
        nll_BD = mixture_nll(mean_TBD, variance_TBD, target_BD)[100:]
        without_BD = mixture_nll(mean_TBD, np.exp(own_TBD), target_BD)[100:]
        assert nll_BD.mean() < without_BD.mean()
        assert nll_BD.max() - without_BD.max() < 60
        assert found.verdict.is_active
        assert bool(found.warnings) is (optimum is None)
        if optimum is not None:
            assert variance_TBD.ravel()[0] == pytest.approx(optimum, rel=1e-3)
        else:
            assert "names no noise, for nearly all of its residuals are 0" in found.warnings[0]
