"""What a calibration promised and what came of it: figures against closed forms, and the words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import softmax

from dubito.calibration import splits
from dubito.calibration.choices import DEFAULTS
from dubito.calibration.page import page_of
from dubito.calibration.promised import chance, interval_of, rows_wanted, sentences
from dubito.calibration.promises.conformal import order
from dubito.calibration.record import Calibration
from dubito.engine.calling.sampling import Sampling
from dubito.report.page import html

from .fits import fit_classification, fit_regression

ASKED = {"sampling": Sampling(num_samples=4), "alpha": 0.05, "coverage": 0.9, "seed": 0}
Floats = NDArray[np.float64]


def accurate(count: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """Four passes of a calibrated network of two classes that is right in about .97."""
    generator = np.random.default_rng(seed)
    logit_B = 6.0 * generator.choice([-1, 1], count) + generator.normal(size=count)
    logit_B[: count // 20] = 0.3 * generator.normal(size=count // 20)
    logits_TBC = np.stack([0 * logit_B, logit_B], axis=-1)[None] + 0.1 * generator.normal(
        size=(4, count, 2)
    )
    mean_B = softmax(logits_TBC, axis=-1).mean(axis=0)[:, 1]
    return logits_TBC, (generator.random(count) < mean_B).astype(np.int64)


def test_chance_gives_what_splits_of_exchangeable_scores_do() -> None:
    """1,000 splits: beyond the bounds in 1 of 20, so in more than 80 by chance in 1 of 50,000."""
    generator, n, m = np.random.default_rng(0), 57, 71
    score_SB = generator.random((1000, n + m))
    threshold_S = np.sort(score_SB[:, :n], axis=1)[:, order(n, 0.9) - 1]
    share_S = (score_SB[:, n:] <= threshold_S[:, None]).mean(axis=1)
    low, high = chance(n, order(n, 0.9), m)
    assert ((share_S < low) | (share_S > high)).sum() <= 80
    assert low < 0.9 < high
    assert chance(n, n + 1, m) == (1.0, 1.0)
    assert chance(n, 0, m) == (0.0, 0.0)


def test_an_interval_of_a_share_is_never_a_point() -> None:
    assert interval_of(0.9, 100, (0.85, 0.95)) == (0.85, 0.95)
    low, high = interval_of(1.0, 50, (1.0, 1.0))
    assert (low, high) == (pytest.approx(0.025 ** (1 / 50)), 1.0)
    assert interval_of(0.9, 100, None) == pytest.approx(
        tuple(stats.binomtest(90, 100).proportion_ci(0.95))
    )


def test_rows_wanted_narrow_an_interval_by_the_square() -> None:
    assert rows_wanted(500, (0.86, 0.94)) == 2000
    assert rows_wanted(500, (0.89, 0.92)) is None


def test_an_accurate_network_is_left_as_it_is_and_its_sets_are_never_empty() -> None:
    record = fit_classification(*accurate(569, 1), **ASKED)
    verdict, before, after = record.verdict, record.report.before, record.report.after
    assert verdict is not None
    assert verdict.is_left_out
    assert record.is_worth_using
    assert (after["nll"], after["ece"]) == (before["nll"], before["ece"])
    assert after["empty_sets"] == 0
    fit, sets, flag = sentences(record)
    assert fit.startswith("no different from no fit beyond chance: by cross-validation on 142 rows")
    assert "it is left out" in fit
    assert sets.startswith("sets: at least 0.9 was promised; on 142 rows that no fit has seen")
    assert "the predicted class, right in 0.9" in sets
    assert flag.startswith("flag: at most 0.05 of ordinary rows was promised; on 142 rows that no")
    assert all("labelled rows would tell it to 0.02 either way" in one for one in (flag,))
    assert record.summary()["verdict"] == f"{fit} {sets} {flag}"
    page = html(page_of(record, "animals"))
    assert "<h2>What was promised, and what came</h2>" in page
    assert sets.replace("'", "&#39;") in page


def test_a_fit_that_was_named_is_taken_and_its_figures_are_told() -> None:
    record = fit_classification(
        *accurate(569, 1), **ASKED, choices=replace(DEFAULTS, scaling="vector", empty_sets=True)
    )
    fit, sets, _ = sentences(record)
    before, after = record.report.before["nll"], record.report.after["nll"]
    assert f"it takes `nll` from {before:.3g} to {after:.3g} [" in fit
    assert record.report.after["empty_sets"] == pytest.approx(0.1, abs=0.1)
    assert sets.rstrip(".").endswith("of them none")


def test_numbers_are_told_of_their_intervals() -> None:
    generator = np.random.default_rng(2)
    mean_TBD = generator.normal(size=(1, 400, 1)) + 0.1 * generator.normal(size=(4, 400, 1))
    target_BD = mean_TBD.mean(axis=0) + generator.normal(size=(400, 1))
    record = fit_regression(mean_TBD, np.zeros((4, 400, 1)), target_BD, **ASKED)
    assert record.head.stored()["variance_scale"] == (1.0,)  # left out
    fit, intervals, _ = sentences(record)
    assert "it is left out" in fit
    assert intervals.startswith("intervals: at least 0.9 was promised; on 100 rows")
    narrow = fit_regression(mean_TBD, np.full((4, 400, 1), -3.0), target_BD, **ASKED)
    assert narrow.head.stored()["variance_scale"] == pytest.approx((20.0,), rel=0.4)


def test_records_of_earlier_builds_read_and_write_as_they_did() -> None:
    record = fit_classification(
        *accurate(569, 1), **ASKED, choices=replace(DEFAULTS, scaling="none", empty_sets=True)
    )
    written = record.to_json()
    assert "never_empty" not in written["set_rule"]
    assert "is_left_out" not in written["verdict"]
    assert Calibration.from_json(written) == record
    assert sentences(replace(record, verdict=None)) == ()
    new = fit_classification(*accurate(569, 1), **ASKED)
    assert new.to_json()["set_rule"]["never_empty"] is True
    assert Calibration.from_json(new.to_json()) == new
    assert new.splits[splits.REPORT] == 142
