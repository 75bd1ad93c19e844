"""Every figure of the report against an independent implementation, to 1e-6."""

from math import erf, exp, pi, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, stats
from scipy.special import softmax
from sklearn import metrics

from dubito import report
from dubito.report.reliability import likely

from .fits import classification_figures, ood_figures, regression_figures


def labelled(
    num_rows: int = 200, num_classes: int = 4, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    mean_BC = softmax(2 * generator.normal(size=(num_rows, num_classes)), axis=-1)
    label_B = np.array([generator.choice(num_classes, p=p_C) for p_C in mean_BC])
    return mean_BC, label_B


@pytest.mark.parametrize("num_classes", [2, 4])
def test_classification_figures_agree_with_loops(num_classes: int) -> None:
    mean_BC, label_B = labelled(num_classes=num_classes)
    sets_BC = mean_BC > 0.3
    sets_BC[:20] = False
    figures = classification_figures(mean_BC, label_B, sets_BC)
    rows = list(zip(mean_BC, label_B, sets_BC, strict=True))
    classes = np.arange(num_classes)
    column = mean_BC[:, 1] if num_classes == 2 else mean_BC
    expected = {
        "accuracy": metrics.accuracy_score(label_B, mean_BC.argmax(axis=-1)),
        "nll": metrics.log_loss(label_B, mean_BC, labels=classes),
        "brier": metrics.brier_score_loss(label_B, column, labels=classes, scale_by_half=False),
        "ece": slow_ece(mean_BC.max(axis=-1), mean_BC.argmax(axis=-1) == label_B),
        "adaptive_ece": slow_adaptive_ece(mean_BC, label_B),
        "classwise_ece": np.mean([slow_ece(mean_BC[:, c], label_B == c) for c in classes]),
        "aurc": slow_aurc(mean_BC, label_B),
        "e_aurc": slow_aurc(mean_BC, label_B) - best_aurc(mean_BC, label_B),
        "set_coverage": sum(set_C[y] for _, y, set_C in rows) / len(rows),
        "set_size": sum(set_C.sum() for _, _, set_C in rows) / len(rows),
        "empty_sets": sum(not set_C.any() for _, _, set_C in rows) / len(rows),
    }
    assert figures["empty_sets"] == pytest.approx(0.1, abs=0.05)
    assert figures == pytest.approx(expected, abs=1e-5)  # rows that tie, in `aurc`


def slow_ece(probability_B: NDArray[np.float64], is_true_B: NDArray[np.bool_]) -> float:
    total = 0.0
    for index in range(15):
        inside = [
            (p, is_true)
            for p, is_true in zip(probability_B, is_true_B, strict=True)
            if index / 15 <= p < (index + 1) / 15 or (index == 14 and p == 1.0)
        ]
        if inside:
            gap = np.mean([right for _, right in inside]) - np.mean([p for p, _ in inside])
            total += len(inside) / len(probability_B) * abs(gap)
    return total


def slow_adaptive_ece(mean_BC: NDArray[np.float64], label_B: NDArray[np.int64]) -> float:
    order = np.argsort(mean_BC.max(axis=-1))
    confidence, right = mean_BC.max(axis=-1)[order], (mean_BC.argmax(axis=-1) == label_B)[order]
    return sum(
        len(c) / len(order) * abs(c.mean() - r.mean())
        for c, r in zip(np.array_split(confidence, 15), np.array_split(right, 15), strict=True)
    )


def best_aurc(mean_BC: NDArray[np.float64], label_B: NDArray[np.int64]) -> float:
    wrong_B = np.sort(mean_BC.argmax(axis=-1) != label_B)
    return float(np.mean([wrong_B[: i + 1].mean() for i in range(len(wrong_B))]))


def slow_ause(variance_B: NDArray[np.float64], error_B: NDArray[np.float64]) -> float:
    def curve(key_B: NDArray[np.float64]) -> list[float]:
        kept = np.argsort(key_B)
        return [sqrt(np.mean(error_B[kept[: i + 1]] ** 2)) for i in range(len(kept))]

    gap = np.subtract(curve(variance_B), curve(np.abs(error_B)))
    return float(np.mean(gap) / sqrt(np.mean(error_B**2)))


def slow_aurc(mean_BC: NDArray[np.float64], label_B: NDArray[np.int64]) -> float:
    order = np.argsort(-mean_BC.max(axis=-1))
    wrong_B = (mean_BC.argmax(axis=-1) != label_B)[order]
    return float(np.mean([wrong_B[: i + 1].mean() for i in range(len(wrong_B))]))


def test_without_sets_and_flags_their_figures_are_none_and_never_nan() -> None:
    mean_BC, label_B = labelled()
    figures = classification_figures(mean_BC, label_B, None)
    assert figures["set_coverage"] is None
    assert figures["set_size"] is None
    assert ood_figures(None, np.zeros(3), None) == {"ood_flag_rate": None}
    assert set(ood_figures(None, np.zeros(3), np.zeros(0)).values()) == {None}
    assert ood_figures(None, np.array([np.nan]), np.ones(2))["ood_auroc"] is None


def test_certain_rows_fall_into_the_last_bin_and_a_wrong_one_has_no_finite_loss() -> None:
    mean_BC = np.array([[1.0, 0.0], [1.0, 0.0]])
    figures = classification_figures(mean_BC, np.array([0, 1]), None)
    bins = report.reliability_bins(mean_BC, np.array([0, 1]))
    assert [one.count for one in bins] == [0] * 14 + [2]
    assert (bins[-1].confidence, bins[-1].accuracy) == (1.0, 0.5)
    assert bins[0].confidence is None
    assert figures["ece"] == 0.5
    assert figures["nll"] is None


def test_bins_are_equal_in_width_and_hold_every_row_once() -> None:
    mean_BC, label_B = labelled(500)
    bins = report.reliability_bins(mean_BC, label_B)
    assert len(bins) == 15
    assert sum(one.count for one in bins) == 500
    for index, one in enumerate(bins):
        assert (one.lower, one.upper) == pytest.approx((index / 15, (index + 1) / 15))


def test_rows_of_equal_confidence_count_as_the_mean_over_their_orders() -> None:
    mean_BC = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    label_B = np.array([0, 1, 0])
    orders = ([0, 1, 0], [1, 0, 0])
    expected = np.mean([[np.mean(wrong[: i + 1]) for i in range(3)] for wrong in orders])
    assert classification_figures(mean_BC, label_B, None)["aurc"] == pytest.approx(expected)


def crps_by_integration(
    mean_T: NDArray[np.float64], variance_T: NDArray[np.float64], target: float
) -> float:
    def distribution(x: float) -> float:
        return float(stats.norm.cdf(x, mean_T, np.sqrt(variance_T)).mean())

    below, _ = integrate.quad(lambda x: distribution(x) ** 2, target - 60, target, limit=400)
    above, _ = integrate.quad(lambda x: (1 - distribution(x)) ** 2, target, target + 60, limit=400)
    return below + above


def test_the_crps_of_a_mixture_agrees_with_its_integral() -> None:
    generator = np.random.default_rng(4)
    mean_TBD = 3 * generator.normal(size=(5, 3, 2))
    variance_TBD = generator.gamma(2.0, size=(5, 3, 2))
    target_BD = 3 * generator.normal(size=(3, 2))
    crps_BD = report.mixture_crps(mean_TBD, variance_TBD, target_BD)
    for row, output in np.ndindex(3, 2):
        expected = crps_by_integration(
            mean_TBD[:, row, output], variance_TBD[:, row, output], target_BD[row, output]
        )
        assert crps_BD[row, output] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("narrowest", [0.4, 0.01])
def test_the_crps_of_many_samples_agrees_with_its_integral_by_every_way(narrowest: float) -> None:
    """T = 300: nodes are fewer than pairs for wide components, more for narrow ones."""
    generator = np.random.default_rng(5)
    mean_TBD = generator.normal(size=(300, 2, 1))
    variance_TBD = generator.uniform(narrowest**2, 0.5, size=(300, 2, 1))
    variance_TBD[0] = narrowest**2
    target_BD = generator.normal(size=(2, 1))
    crps_BD = report.mixture_crps(mean_TBD, variance_TBD, target_BD)
    for row in range(2):
        expected = crps_by_integration(
            mean_TBD[:, row, 0], variance_TBD[:, row, 0], target_BD[row, 0]
        )
        assert crps_BD[row, 0] == pytest.approx(expected, abs=1e-6)


def test_the_crps_of_one_gaussian_is_its_closed_form() -> None:
    z = 0.7
    gaussian = z * erf(z / sqrt(2)) + 2 * exp(-(z**2) / 2) / sqrt(2 * pi) - 1 / sqrt(pi)
    crps_BD = report.mixture_crps(np.zeros((3, 1, 1)), np.full((1, 1, 1), 4.0), np.array([[1.4]]))
    assert crps_BD.item() == pytest.approx(2 * gaussian, abs=1e-12)


def test_the_crps_without_noise_is_that_of_the_samples() -> None:
    sample_T = np.array([0.0, 1.0, 4.0])
    pairs = np.abs(sample_T[:, None] - sample_T).mean()
    crps_BD = report.mixture_crps(sample_T[:, None, None], np.zeros((1, 1, 1)), np.array([[1.0]]))
    assert crps_BD.item() == pytest.approx(np.abs(sample_T - 1.0).mean() - pairs / 2, abs=1e-12)


def test_regression_figures_agree_with_loops() -> None:
    generator = np.random.default_rng(6)
    mean_TBD = generator.normal(size=(4, 50, 2))
    variance_TBD = generator.gamma(2.0, size=(4, 50, 2))
    target_BD = 2 * generator.normal(size=(50, 2))
    lower_BD, upper_BD = mean_TBD.mean(axis=0) - 1.5, mean_TBD.mean(axis=0) + 1.5
    figures = regression_figures(mean_TBD, variance_TBD, target_BD, (lower_BD, upper_BD), 0.9)
    total_BD = mean_TBD.var(axis=0) + variance_TBD.mean(axis=0)
    error_BD = mean_TBD.mean(axis=0) - target_BD
    cells = list(np.ndindex(50, 2))
    score = 0.0
    for cell in cells:
        low, high, y = lower_BD[cell], upper_BD[cell], target_BD[cell]
        score += high - low + 20 * max(low - y, 0) + 20 * max(y - high, 0)
    density = [
        np.mean(stats.norm.pdf(target_BD[b, d], mean_TBD[:, b, d], np.sqrt(variance_TBD[:, b, d])))
        for b, d in cells
    ]
    expected = {
        "rmse": sqrt(
            np.mean([(mean_TBD[:, b, d].mean() - target_BD[b, d]) ** 2 for b, d in cells])
        ),
        "nll": -np.mean(np.log(density)),
        "crps": np.mean(report.mixture_crps(mean_TBD, variance_TBD, target_BD)),
        "ause": np.mean([slow_ause(total_BD[:, d], error_BD[:, d]) for d in range(2)]),
        "interval_coverage": np.mean([lower_BD[c] <= target_BD[c] <= upper_BD[c] for c in cells]),
        "interval_width": 3.0,
        "interval_score": score / len(cells),
    }
    assert figures == pytest.approx(expected, abs=1e-6)


def test_a_head_of_means_alone_has_no_density_and_no_interval() -> None:
    figures = regression_figures(
        np.zeros((3, 4, 1)), np.zeros((1, 1, 1)), np.ones((4, 1)), None, None
    )
    assert figures["nll"] is None
    assert figures["interval_score"] is None
    assert figures["crps"] == pytest.approx(1.0)


def test_a_mixture_of_points_and_gaussians_has_the_crps_of_its_pairs() -> None:
    """Y is 0 or N(1, 1), each half the time: three kinds of pairs, each a closed form."""
    mean_TBD, variance_TBD = np.array([[[0.0]], [[1.0]]]), np.array([[[0.0]], [[1.0]]])
    folded = 2 * exp(-0.5) / sqrt(2 * pi) + erf(1 / sqrt(2))  # E|N(1, 1)|
    expected = 0.5 * folded - 0.5 * (0.5 * folded + 0.25 * 2 / sqrt(pi))
    crps_BD = report.mixture_crps(mean_TBD, variance_TBD, np.zeros((1, 1)))
    assert crps_BD.item() == pytest.approx(expected, abs=1e-12)


def test_an_order_as_good_as_can_be_leaves_nothing_above_the_best() -> None:
    mean_BC = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    label_B = np.array([0, 0, 1, 1])
    figures = classification_figures(mean_BC, label_B, None)
    assert figures["e_aurc"] == pytest.approx(0.0, abs=1e-12)
    error_BD = np.array([[0.1], [-0.5], [1.0]])
    variance_TBD = np.abs(error_BD)[None]
    numbers = regression_figures(np.zeros((1, 3, 1)), variance_TBD, error_BD, None, None)
    assert numbers["ause"] == pytest.approx(0.0, abs=1e-12)


def test_errors_of_nought_leave_no_sparsification() -> None:
    means = np.arange(4.0).reshape(1, 4, 1)
    figures = regression_figures(means, np.ones((1, 1, 1)), means[0], None, None)
    assert figures["rmse"] == 0.0
    assert figures["ause"] is None


def test_bins_of_equal_mass_hold_the_rows_in_order() -> None:
    mean_BC, label_B = labelled(200)
    bins = report.adaptive_bins(mean_BC, label_B)
    assert [one.count for one in bins] == [14] * 5 + [13] * 10
    assert all(one.lower <= (one.confidence or 0.0) <= one.upper for one in bins)
    assert [one.upper for one in bins] == sorted(one.upper for one in bins)
    figures = classification_figures(mean_BC, label_B, None)
    assert report.expected_calibration_error(bins) == pytest.approx(figures["adaptive_ece"])
    equal_width = report.expected_calibration_error(report.reliability_bins(mean_BC, label_B))
    assert equal_width == pytest.approx(figures["ece"])
    assert len(report.adaptive_bins(mean_BC[:4], label_B[:4])) == 4


def test_an_endless_interval_has_no_width_but_covers() -> None:
    endless = np.full((2, 1), np.inf)
    figures = regression_figures(
        np.zeros((2, 2, 1)), np.ones((1, 1, 1)), np.zeros((2, 1)), (-endless, endless), 0.9
    )
    assert figures["interval_width"] is None
    assert figures["interval_coverage"] == 1.0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=20),
    st.lists(st.integers(2, 10), min_size=1, max_size=20),
)
def test_ood_figures_agree_with_counting_pairs_and_thresholds(
    inside: list[int], outside: list[int]
) -> None:
    flag_B = np.array(inside) >= 7
    figures = ood_figures(flag_B, np.array(inside, float), np.array(outside, float))
    pairs = [(o > i) + 0.5 * (o == i) for o in outside for i in inside]
    levels = sorted({*inside, *outside}, reverse=True)
    recall, area = 0.0, 0.0
    false_rates = []
    for level in levels:
        true, false = sum(o >= level for o in outside), sum(i >= level for i in inside)
        area += (true / len(outside) - recall) * true / (true + false)
        recall = true / len(outside)
        if recall >= 0.95:
            false_rates.append(false / len(inside))
    expected = {
        "ood_flag_rate": float(np.mean([one >= 7 for one in inside])),
        "ood_auroc": float(np.mean(pairs)),
        "ood_aupr": area,
        "ood_fpr95": min(false_rates),
    }
    assert figures == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("right", "count"), [(0, 3), (2, 3), (3, 3), (57, 60), (1, 1)])
def test_the_interval_of_a_bin_is_wilsons(right: int, count: int) -> None:
    known = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert likely(right / count, count) == pytest.approx((known.low, known.high), abs=1e-7)


def test_what_is_taken_for_what_is_counted_as_elsewhere() -> None:
    mean_BC, label_B = labelled()
    known = metrics.confusion_matrix(label_B, mean_BC.argmax(axis=-1))
    np.testing.assert_array_equal(report.confusion(mean_BC, label_B), known)
