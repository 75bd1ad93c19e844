"""The whole fit: splits, what it promises, the report on unseen rows, and bad input."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from dubito.calibration import splits
from dubito.calibration.choices import Choices, ScalingName, SetsName
from dubito.calibration.record import Calibration
from dubito.calibration.scaling.scaling import mean_probabilities
from dubito.engine.calling.sampling import Sampling
from dubito.errors import InputError

from .fits import evaluate_classification, evaluate_regression, fit_classification, fit_regression

SAMPLING = Sampling(num_samples=16)
ASKED = {"sampling": SAMPLING, "alpha": 0.05, "coverage": 0.9, "seed": 0}


def classified(
    num_rows: int = 450, seed: int = 0, temperature: float = 2.0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits that are too sure by a temperature, and labels."""
    generator = np.random.default_rng(seed)
    logits_TBC = generator.normal(size=(16, num_rows, 5)) + 4 * generator.normal(
        size=(1, num_rows, 5)
    )
    mean_BC = mean_probabilities(logits_TBC, temperature)
    uniform_B = generator.random(num_rows)
    return logits_TBC, (mean_BC.cumsum(axis=-1) < uniform_B[:, None]).sum(axis=-1).clip(max=4)


def regressed(
    num_rows: int = 450, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Means, log-variances that are too small by a factor of 4, and targets; two outputs."""
    generator = np.random.default_rng(seed)
    mean_TBD = generator.normal(size=(1, num_rows, 2)) + 0.3 * generator.normal(
        size=(16, num_rows, 2)
    )
    deviation_BD = np.exp(0.5 * generator.normal(size=(num_rows, 2)))
    target_BD = mean_TBD.mean(axis=0) + deviation_BD * generator.normal(size=(num_rows, 2))
    return mean_TBD, np.broadcast_to(2 * np.log(deviation_BD / 2), mean_TBD.shape), target_BD


def figure(report: dict[str, float | None], name: str) -> float:
    value = report[name]
    assert value is not None
    return value


@settings(max_examples=60, deadline=None)
@given(st.integers(61, 600), st.integers(0, 2**63 - 1), st.integers(1, 8))
def test_parts_are_disjoint_complete_stratified_and_repeatable(
    num_rows: int, seed: int, num_classes: int
) -> None:
    label_B = np.random.default_rng(num_rows).integers(0, num_classes, num_rows)
    asked = {"alpha": 0.05, "coverage": 0.9, "seed": seed, "label_B": label_B}
    parts = splits.parts(num_rows, **asked)
    together = np.concatenate(list(parts.values()))
    assert sorted(together.tolist()) == list(range(num_rows))
    assert {name: len(rows) for name, rows in parts.items()} == splits.sizes(num_rows)
    for name, rows in parts.items():
        np.testing.assert_array_equal(rows, splits.parts(num_rows, **asked)[name])
        share = splits.SHARES[name] / 20
        counts = np.bincount(label_B[rows], minlength=num_classes)
        assert np.abs(counts - share * np.bincount(label_B, minlength=num_classes)).max() <= 2
        assert abs(len(rows) - share * num_rows) <= 1


def test_every_row_is_as_likely_as_its_share_to_land_in_a_part() -> None:
    """2,000 seeds; a count beyond its exact binomial bounds in 1 of 10,000 per row, 61 rows."""
    counts = np.zeros(61)
    for seed in range(2000):
        counts[splits.parts(61, alpha=0.05, coverage=0.9, seed=seed)["ood"]] += 1
    share = splits.sizes(61)["ood"] / 61
    low, high = stats.binom.interval(1 - 1e-4, 2000, share)
    assert counts.min() >= low
    assert counts.max() <= high


def test_a_classification_finds_its_temperature_and_reports_before_and_after() -> None:
    logits_TBC, label_B = classified(2000)
    record = fit_classification(logits_TBC, label_B, **ASKED)
    assert record.head.scaling.applied == pytest.approx(2.0, rel=0.3)
    assert record.splits == {"fit": 500, "conformal": 400, "ood": 600, "report": 500}
    assert record.num_rows == 2000
    assert sum(one.count for one in record.bins) == 500
    assert figure(record.report.after, "nll") < figure(record.report.before, "nll")
    assert figure(record.report.after, "ece") < figure(record.report.before, "ece")
    assert record.report.before["set_coverage"] is None
    assert record.warnings == ()
    assert str(record.verdict).startswith("better than no fit beyond chance: ")
    assert str(record.summary()["verdict"]).startswith(f"{record.verdict}; on the 500 rows that no")
    assert Calibration.from_json(json.dumps(record.to_json())) == record


def test_one_held_out_row_does_not_ruin_a_regression_and_is_named() -> None:
    """200 rows, one of a log-variance of -12 that is off by 1; 50 rows are fitted on."""
    generator = np.random.default_rng(0)
    mean_TBD = generator.normal(size=(1, 200, 1)) + 0.05 * generator.normal(size=(16, 200, 1))
    target_BD = mean_TBD.mean(axis=0) + generator.normal(size=(200, 1))
    row = splits.parts(200, alpha=0.05, coverage=0.9, seed=0)["fit"][3]
    log_variance_TBD = np.zeros((16, 200, 1))
    log_variance_TBD[:, row] = -12.0
    target_BD[row] = mean_TBD[:, row].mean() + 1.0
    record = fit_regression(mean_TBD, log_variance_TBD, target_BD, **ASKED)
    assert record.head.noise.scale == pytest.approx((1.0,), rel=0.3)
    assert figure(record.report.after, "nll") < figure(record.report.before, "nll") + 0.05
    assert record.warnings == (
        "the fit leaves out rows that the network takes for next to impossible, 1 of 50 (row "
        f"{row}): check their targets and inputs",
    )
    assert str(record.verdict).startswith("no different from no fit beyond chance: ")
    assert record.is_worth_using


def test_a_fit_that_is_worse_than_none_is_not_worth_using() -> None:
    generator = np.random.default_rng(0)
    logits_TBC = 0.4 * generator.normal(size=(1, 1600, 200))
    chance_BC = np.exp(logits_TBC[0]) / np.exp(logits_TBC[0]).sum(axis=-1, keepdims=True)
    chance_BC = chance_BC.cumsum(axis=-1)
    label_B = (chance_BC < generator.random((1600, 1))).sum(axis=-1).clip(max=199)
    fresh_B = (chance_BC < generator.random((1600, 1))).sum(axis=-1).clip(max=199)
    asked = ASKED | {"sampling": Sampling(num_samples=1, method="point")}
    choices = Choices(scaling="vector")
    record = fit_classification(logits_TBC, label_B, **asked, choices=choices)
    assert str(record.verdict).startswith("worse than no fit beyond chance: ")
    assert not record.is_worth_using
    with_it, without = (
        evaluate_classification(logits_TBC, fresh_B, calibration=one).report
        for one in (record, None)
    )
    assert figure(with_it, "nll") > figure(without, "nll")
    again = Calibration.from_json(json.dumps(record.to_json()))
    assert again == record


def test_the_loss_of_rows_that_are_wrong_by_100_nats_is_100_in_fit_and_report() -> None:
    logits_TBC = np.zeros((16, 20, 2))
    logits_TBC[:, :, 0] = 100.0
    label_B = np.ones(20, dtype=np.int64)
    found = evaluate_classification(logits_TBC, label_B, calibration=None)
    assert figure(found.report, "nll") == pytest.approx(100.0)
    assert found.warnings == ()
    logits_TBC[:, 3, 1] = -np.inf
    found = evaluate_classification(logits_TBC, label_B, calibration=None)
    assert found.report["nll"] is None
    assert found.warnings[0].startswith("`nll` is null: the label has a probability of 0 in 1 rows")
    assert "row 3 of those judged" in found.warnings[0]


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_coverage_and_flags_of_fresh_rows_over_splits_stay_in_their_exact_bounds(
    coverage: float,
) -> None:
    """99.9 % beta-binomial bounds on the sum over 20 data sets; each fails by chance 1 in 1,000.

    The sum of 20 independent counts, by the exact mean and variance and 3.29 deviations.
    """
    covered = flagged = 0.0
    num_sets, num_flags = splits.sizes(120)["conformal"], splits.sizes(120)["ood"]
    for seed in range(20):
        logits_TBC, label_B = classified(320, seed)
        asked = ASKED | {"coverage": coverage, "seed": seed}
        record = fit_classification(logits_TBC[:, :120], label_B[:120], **asked)
        fresh = evaluate_classification(logits_TBC[:, 120:], label_B[120:], calibration=record)
        covered += 200 * figure(fresh.report, "set_coverage")
        flagged += 200 * figure(fresh.report, "ood_flag_rate")
    k, a = int(np.ceil((num_sets + 1) * coverage)), int((num_flags + 1) * 0.05)
    for count, law in (
        (covered, stats.betabinom(200, k, num_sets + 1 - k)),
        (flagged, stats.betabinom(200, a, num_flags + 1 - a)),
    ):
        assert abs(count - 20 * law.mean()) < 3.29 * np.sqrt(20) * law.std()


def test_strange_rows_serve_the_report_and_change_nothing_else() -> None:
    logits_TBC, label_B = classified()
    strange_TNC = 0.3 * logits_TBC[:, :80]
    without = fit_classification(logits_TBC, label_B, **ASKED)
    record = fit_classification(logits_TBC, label_B, **ASKED, strange=strange_TNC)
    assert record.ood == without.ood
    assert record.head.scaling.applied == without.head.scaling.applied
    assert figure(record.report.after, "ood_auroc") > 0.7
    assert {"ood_aupr", "ood_fpr95"} <= record.report.after.keys()
    assert "ood_auroc" not in without.report.after
    assert "ood_flag_rate" in without.report.after


def test_each_fit_sees_its_own_rows_and_the_report_rows_that_no_fit_has_seen() -> None:
    mean_TBD, _, target_BD = regressed()
    record = fit_regression(mean_TBD, None, target_BD, **ASKED)
    parts = splits.parts(450, alpha=0.05, coverage=0.9, seed=0)
    judged = parts["report"]
    again = evaluate_regression(mean_TBD[:, judged], None, target_BD[judged], calibration=record)
    assert again.report == record.report.after

    moved_BD = target_BD.copy()
    moved_BD[judged] += 1.0
    moved = fit_regression(mean_TBD, None, moved_BD, **ASKED)
    assert (moved.head.noise.variance, moved.conformal, moved.ood) == (
        record.head.noise.variance,
        record.conformal,
        record.ood,
    )
    assert moved.report.after["rmse"] != record.report.after["rmse"]
    assert moved.verdict == record.verdict

    moved_BD = target_BD.copy()
    moved_BD[parts["conformal"]] += 1.0
    moved = fit_regression(mean_TBD, None, moved_BD, **ASKED)
    assert moved.head.noise.variance == record.head.noise.variance
    assert moved.conformal != record.conformal


def test_a_regression_with_its_own_variance_gets_a_scale_and_one_without_gets_noise() -> None:
    mean_TBD, log_variance_TBD, target_BD = regressed(2000)
    scaled = fit_regression(mean_TBD, log_variance_TBD, target_BD, **ASKED)
    assert scaled.head.noise.scale == pytest.approx((4.0, 4.0), rel=0.35)
    assert scaled.head.noise.variance == (0.0, 0.0)
    assert figure(scaled.report.after, "nll") < figure(scaled.report.before, "nll")
    assert figure(scaled.report.after, "interval_coverage") == pytest.approx(0.9, abs=0.06)
    plain = fit_regression(mean_TBD, None, target_BD, **ASKED)
    assert plain.head.noise.scale == (1.0, 1.0)
    assert min(plain.head.noise.variance) > 0.3
    assert plain.report.before["nll"] is None
    assert figure(plain.report.after, "interval_width") > figure(
        scaled.report.after, "interval_width"
    )
    assert Calibration.from_json(scaled.to_json()) == scaled


def test_where_nothing_is_fitted_its_rows_serve_the_sets_but_for_a_penalty() -> None:
    logits_TBC, label_B = classified(2000)
    choices = Choices(scaling="none")
    record = fit_classification(logits_TBC, label_B, **ASKED, choices=choices)
    assert record.splits == {"fit": 0, "conformal": 900, "ood": 600, "report": 500}
    assert record.conformal.num_rows == 900
    assert record.head.scaling.applied == 1.0
    assert record.report.after["nll"] == record.report.before["nll"]
    assert figure(record.report.after, "set_coverage") == pytest.approx(0.9, abs=0.05)
    penalised = replace(choices, sets="raps")
    record = fit_classification(logits_TBC, label_B, **ASKED, choices=penalised)
    assert record.splits["fit"] == 500


@pytest.mark.parametrize("scaling", ["vector", "isotonic"])
@pytest.mark.parametrize("sets", ["aps", "raps"])
@pytest.mark.parametrize("per_class", [False, True])
def test_every_choice_is_kept_in_the_record_and_survives_the_round_trip(
    scaling: ScalingName, sets: SetsName, per_class: bool
) -> None:
    logits_TBC, label_B = classified(1200)
    choices = Choices(scaling, sets, per_class)
    record = fit_classification(logits_TBC, label_B, **ASKED, choices=choices)
    assert (record.head.scaling.name, record.head.set_rule.kind) == (scaling, sets)
    assert len(record.conformal.columns) == (5 if per_class else 1)
    assert figure(record.report.after, "nll") < figure(record.report.before, "nll")
    assert figure(record.report.after, "set_coverage") == pytest.approx(0.9, abs=0.06)
    again = Calibration.from_json(json.dumps(record.to_json()))
    assert again == record


def test_quantile_intervals_are_kept_in_the_record_and_cover() -> None:
    mean_TBD, log_variance_TBD, target_BD = regressed(1200)
    choices = Choices(intervals="cqr")
    record = fit_regression(mean_TBD, log_variance_TBD, target_BD, **ASKED, choices=choices)
    assert record.head.intervals.kind == "cqr"
    assert figure(record.report.after, "interval_coverage") == pytest.approx(0.9, abs=0.04)
    assert Calibration.from_json(json.dumps(record.to_json())) == record
    plain = fit_regression(mean_TBD, None, target_BD, **ASKED, choices=choices)
    assert figure(plain.report.after, "interval_coverage") == pytest.approx(0.9, abs=0.04)


@pytest.mark.parametrize(
    "wrong", [{"scaling": "platt"}, {"sets": "LAC"}, {"intervals": "CQR"}, {"per_class": 1}]
)
def test_unknown_choices_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"`{next(iter(wrong))}` expects"):
        Choices(**wrong)  # type: ignore[arg-type]


def test_a_given_noise_precision_is_taken_as_it_is() -> None:
    mean_TBD, log_variance_TBD, target_BD = regressed()
    record = fit_regression(mean_TBD, None, target_BD, **ASKED, noise_precision=4.0)
    assert record.head.noise.variance == (0.25, 0.25)
    with pytest.raises(InputError, match="means alone"):
        fit_regression(mean_TBD, log_variance_TBD, target_BD, **ASKED, noise_precision=4.0)


def test_far_rows_of_a_regression_are_told_apart() -> None:
    mean_TBD, _, target_BD = regressed()
    far_TND = 4 * (mean_TBD - mean_TBD.mean(axis=0)) + 10
    record = fit_regression(mean_TBD, None, target_BD[:, :], **ASKED, strange=far_TND)
    assert figure(record.report.after, "ood_auroc") > 0.99
    before = evaluate_regression(mean_TBD, None, target_BD, calibration=None)
    assert before.report["ood_flag_rate"] is None


def test_one_output_takes_a_flat_target_and_one_pass_will_do() -> None:
    mean_TBD, _, target_BD = regressed()
    asked = ASKED | {"sampling": Sampling(num_samples=1, method="point")}
    record = fit_regression(mean_TBD[:1, :, :1], None, target_BD[:, 0], **asked)
    assert len(record.conformal.columns) == 1
    assert any("same out-of-distribution score" in one for one in record.warnings)
    assert record.report.after["ood_flag_rate"] == 0.0


@pytest.mark.parametrize(
    ("coverage", "alpha", "needed"), [(0.9, 0.05, 61), (0.99, 0.05, 493), (0.9, 0.01, 329)]
)
def test_too_few_rows_are_refused_with_the_number_that_would_do(
    coverage: float, alpha: float, needed: int
) -> None:
    asked = ASKED | {"coverage": coverage, "alpha": alpha}
    logits_TBC, label_B = classified(needed)
    with pytest.raises(InputError, match=f"at least {needed} labelled rows, got {needed - 1}: "):
        fit_classification(logits_TBC[:, 1:], label_B[1:], **asked)
    assert fit_classification(logits_TBC, label_B, **asked).num_rows == needed


def test_three_rows_are_refused() -> None:
    logits_TBC, label_B = classified(3)
    told = r"got 3: it needs 10 to fit the scaling, 9 for .* deals rows out .* 5 : 4 : 6 : 5"
    with pytest.raises(InputError, match=told):
        fit_classification(logits_TBC, label_B, **ASKED)
    with pytest.raises(InputError, match="it needs 10 more for the sets, 9 for"):
        fit_classification(logits_TBC, label_B, **ASKED, choices=Choices(scaling="none"))


def test_labels_that_cannot_be_used_are_refused_with_the_reason() -> None:
    logits_TBC, label_B = classified()
    for wrong, message in (
        (np.r_[label_B, 0], r"450 in all, got shape \(451,\)"),
        (np.zeros(450, dtype=np.int64), "at least 2 classes, got only class 0"),
        (np.full(450, 5), r"in \[0, 5\), got 5"),
        (label_B - 1, "got -1"),
        (label_B + 0.5, "integer class indices here, got float64"),
    ):
        with pytest.raises(InputError, match=message):
            fit_classification(logits_TBC, wrong, **ASKED)


def test_samples_that_cannot_be_used_are_refused_with_the_reason() -> None:
    logits_TBC, label_B = classified()
    broken_TBC = logits_TBC.copy()
    broken_TBC[3, 2, 1] = np.nan
    for wrong, message in (
        (broken_TBC, "finite numbers, got NaN or infinity in 1 rows, the first of them row 2"),
        (logits_TBC[:8], "expects 16 samples, as the calibration will be bound to, got 8"),
        (logits_TBC[0], r"shape \(T, B, C or D\)"),
        (logits_TBC.astype(str), "expects numbers"),
    ):
        with pytest.raises(InputError, match=message):
            fit_classification(wrong, label_B, **ASKED)
    with pytest.raises(InputError, match="`ood logits` expects finite"):
        fit_classification(logits_TBC, label_B, **ASKED, strange=broken_TBC)


def test_targets_that_cannot_be_used_are_refused_with_the_reason() -> None:
    mean_TBD, log_variance_TBD, target_BD = regressed()
    constant_BD = target_BD.copy()
    constant_BD[:, 1] = 3.0
    rounded_BD = constant_BD.copy()
    rounded_BD[1::2, 1] = np.nextafter(3.0, 4.0)
    broken_BD = target_BD.copy()
    broken_BD[0, 0] = np.nan
    for wrong, message in (
        (constant_BD, "targets that vary, got 3.0 in every row of output 1"),
        (rounded_BD, "targets that vary, got 3.0"),
        (broken_BD, "`targets` expects finite numbers, .* row 0: drop"),
        (target_BD[:, 0], r"expects shape \(450, 2\)"),
        (np.r_[target_BD, target_BD], r"got \(900, 2\)"),
    ):
        with pytest.raises(InputError, match=message):
            fit_regression(mean_TBD, None, wrong, **ASKED)
    with pytest.raises(InputError, match="the shape of the means"):
        fit_regression(mean_TBD, log_variance_TBD[:, :9], target_BD, **ASKED)
    for too_far in (-800.0, 800.0):
        log_variance_TBD = log_variance_TBD.copy()
        log_variance_TBD[3, 7, 1] = too_far
        message = (
            rf"numbers from -700 to 700, whose .*, got {too_far:g} in row 7: leave that row out"
        )
        with pytest.raises(InputError, match=message):
            fit_regression(mean_TBD, log_variance_TBD, target_BD, **ASKED)
        with pytest.raises(InputError, match=message):
            evaluate_regression(mean_TBD, log_variance_TBD, target_BD, calibration=None)


def test_a_class_without_rows_is_warned_of() -> None:
    logits_TBC, label_B = classified()
    record = fit_classification(logits_TBC, np.minimum(label_B, 3), **ASKED)
    assert record.warnings == ("no labelled row is of class index 4: nothing is promised for it",)
