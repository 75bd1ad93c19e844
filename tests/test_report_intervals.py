"""Intervals: resamples are repeated rows, and the truth lies inside as often as is stated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.special import softmax

from dubito import report
from dubito.report.statistics import RowCounts, mean_of

from .fits import evaluate_classification, evaluate_regression

Floats = NDArray[np.float64]
NUM_ROWS, NUM_STRANGE = 24, 9


def classes(num_rows: int, seed: int, sharpness: float = 1.0) -> tuple[Floats, NDArray[np.int64]]:
    """Probabilities that are right where `sharpness` is 1, and their labels."""
    generator = np.random.default_rng(seed)
    logits_BC = 1.5 * generator.normal(size=(num_rows, 3))
    true_BC = softmax(logits_BC, axis=-1)
    uniform_B = generator.random(num_rows)
    label_B = (true_BC.cumsum(axis=-1) < uniform_B[:, None]).sum(axis=-1).clip(max=2)
    return softmax(sharpness * logits_BC, axis=-1), label_B


def of_classes(seed: int, rows: NDArray[np.int64], strange: NDArray[np.int64]) -> report.Statistics:
    """Statistics of some of 24 rows, confidences rounded so that many tie, and of strange ones."""
    mean_BC, label_B = classes(NUM_ROWS, seed)
    mean_BC = np.round(4 * mean_BC) + 1
    mean_BC = (mean_BC / mean_BC.sum(axis=-1, keepdims=True))[rows]
    score_B, score_N = mean_BC.max(axis=-1), np.linspace(0.2, 0.9, NUM_STRANGE).round(1)[strange]
    return {
        **report.classification_statistics(mean_BC, label_B[rows], mean_BC > 0.4),
        **report.ood_statistics(score_B > 0.6, score_B, score_N),
    }


def of_numbers(seed: int, rows: NDArray[np.int64]) -> report.Statistics:
    generator = np.random.default_rng(seed)
    mean_TBD = generator.normal(size=(3, NUM_ROWS, 2)).round(1)
    variance_TBD = generator.integers(1, 4, size=(1, NUM_ROWS, 2)).astype(float)
    target_BD = generator.normal(size=(NUM_ROWS, 2)).round(1)
    ends = (target_BD - 1 + mean_TBD[0], target_BD + 1 + mean_TBD[1])
    interval = (ends[0][rows], ends[1][rows])
    return report.regression_statistics(
        mean_TBD[:, rows], variance_TBD[:, rows], target_BD[rows], interval, 0.9
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, NUM_ROWS - 1), min_size=NUM_ROWS, max_size=NUM_ROWS),
    st.lists(st.integers(0, NUM_STRANGE - 1), min_size=NUM_STRANGE, max_size=NUM_STRANGE),
    st.integers(0, 1000),
)
def test_a_figure_of_counts_is_the_figure_of_the_repeated_rows(
    drawn: list[int], drawn_strange: list[int], seed: int
) -> None:
    rows, strange = np.array(drawn), np.array(drawn_strange)
    counts = RowCounts(
        np.bincount(rows, minlength=NUM_ROWS)[None].astype(float),
        np.bincount(strange, minlength=NUM_STRANGE)[None].astype(float),
    )
    every, every_strange = np.arange(NUM_ROWS), np.arange(NUM_STRANGE)
    for whole, repeated in (
        (of_classes(seed, every, every_strange), of_classes(seed, rows, strange)),
        (of_numbers(seed, every), of_numbers(seed, rows)),
    ):
        expected = report.figures(repeated, NUM_ROWS, NUM_STRANGE)
        for name, one in whole.items():
            assert one is not None
            assert one.value(counts)[0] == pytest.approx(expected[name], abs=1e-9), name


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60))
def test_figures_and_intervals_keep_their_bounds(seed: int, num_rows: int) -> None:
    mean_BC, label_B = classes(num_rows, seed)
    statistics = report.classification_statistics(mean_BC, label_B, mean_BC > 0.4)
    figures = report.figures(statistics, num_rows)
    found = report.intervals(statistics, figures, num_rows)
    assert found.keys() == figures.keys()
    for name, interval in found.items():
        value = figures[name]
        assert value is not None
        assert interval is not None
        assert 0.0 <= interval[0] <= interval[1]
        assert value >= 0.0
        if name not in ("nll", "brier", "set_size"):
            assert value <= 1.0
    assert figures["e_aurc"] <= figures["aurc"]  # type: ignore[operator]


def test_the_interval_of_a_mean_is_scipy_s_percentile_interval() -> None:
    """Quantiles of 400 and of 20,000 resamples differ by a tenth of the width, at most."""
    value_B = np.random.default_rng(1).gamma(2.0, size=300)
    own = report.intervals({"x": mean_of(value_B)}, {"x": float(value_B.mean())}, 300)["x"]
    expected = stats.bootstrap(
        (value_B,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert own == pytest.approx(tuple(expected), abs=0.1 * (expected.high - expected.low))


MEANS = ("accuracy", "nll", "brier")
ERRORS = ("ece", "adaptive_ece", "classwise_ece")


@pytest.mark.slow
@pytest.mark.parametrize("sharpness", [2.0, 1.0])
def test_the_truth_lies_inside_as_often_as_is_stated(sharpness: float) -> None:
    """150 data sets of 200 rows, the truth from 200,000 rows; too sure by 2, and just right.

    Each count is within the 99.95 % binomial bound of a rate: 0.93 for means and, where the truth
    is 0, for errors of calibration; 0.87 for skewed figures and for errors of calibration that are
    far from 0, whose intervals cover less than their nominal 0.95 at 200 rows.
    """
    mean_BC, label_B = classes(200_000, 10**6, sharpness)
    statistics = report.classification_statistics(mean_BC, label_B, None)
    names = (*MEANS, *ERRORS, "aurc", "e_aurc")
    truth = report.figures({name: statistics[name] for name in names}, 200_000)
    if sharpness == 1.0:
        truth |= dict.fromkeys(ERRORS, 0.0)  # 200,000 rows still have errors by chance
    hits = dict.fromkeys(names, 0)
    for seed in range(150):
        mean_BC, label_B = classes(200, seed, sharpness)
        of_set = report.classification_statistics(mean_BC, label_B, None)
        asked = {name: of_set[name] for name in names}
        found = report.intervals(asked, report.figures(asked, 200), 200, seed=seed)
        for name in names:
            low, high = found[name]  # type: ignore[misc]
            hits[name] += low <= truth[name] <= high  # type: ignore[operator]
    for name, count in hits.items():
        is_sharp = name in MEANS or (name in ERRORS and sharpness == 1.0)
        assert count >= stats.binom.ppf(0.0005, 150, 0.93 if is_sharp else 0.87), hits


@pytest.mark.parametrize("seed", range(12))
def test_every_interval_holds_its_figure_also_where_bias_moves_all_resamples(seed: int) -> None:
    """With 40 rows of 20 classes, resamples of the classwise error lie far above it."""
    generator = np.random.default_rng(seed)
    mean_BC = softmax(generator.normal(size=(40, 20)), axis=-1)
    label_B = (mean_BC.cumsum(axis=-1) < generator.random((40, 1))).sum(axis=-1).clip(max=19)
    found = evaluate_classification(np.log(mean_BC)[None], label_B, calibration=None, seed=seed)
    for name, interval in found.intervals.items():
        figure = found.report[name]
        if interval is not None and figure is not None:
            assert interval[0] <= figure <= interval[1], name


def test_one_row_and_what_is_undefined_have_no_interval() -> None:
    statistics = {"x": mean_of(np.array([1.0])), "none": None, "inf": mean_of(np.array([np.inf]))}
    figures = report.figures(statistics, 1)
    assert figures == {"x": 1.0, "none": None, "inf": None}
    assert report.intervals(statistics, figures, 1) == {"x": None, "none": None, "inf": None}


def test_equal_seeds_draw_equal_rows_and_others_do_not() -> None:
    value_B = np.arange(50.0)
    first, again, other = (
        report.intervals({"x": mean_of(value_B)}, {"x": 24.5}, 50, seed=seed) for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


class EndedError(Exception):
    pass


@pytest.mark.parametrize("limit", [1, 4])
def test_an_evaluation_ends_where_its_check_says_so(limit: int) -> None:
    """At its first check, and at its fourth, which is between two blocks of resamples."""
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls >= limit:
            raise EndedError

    generator = np.random.default_rng(0)
    samples_TBC = generator.normal(size=(8, 5000, 3))
    label_B = generator.integers(0, 3, 5000)
    with pytest.raises(EndedError):
        evaluate_classification(samples_TBC, label_B, calibration=None, check=check)
    calls = 0
    with pytest.raises(EndedError):
        evaluate_regression(
            samples_TBC, 0 * samples_TBC, samples_TBC[0], calibration=None, check=check
        )
