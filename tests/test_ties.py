"""Rows that repeat: the tolerance of a tie, promises by enumeration, equal rows in any company."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from math import factorial, inf, prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import logsumexp

from dubito import ties
from dubito.calibration.flags import scorer
from dubito.calibration.flags.combined import Tail
from dubito.calibration.flags.detector import Detector
from dubito.calibration.flags.distances import FeatureBank
from dubito.calibration.flags.flagging import Flagging
from dubito.calibration.flags.scorer import OF_CLASSES, FittedScore
from dubito.calibration.flags.source import SampledSource, ServedSource
from dubito.calibration.heads.classes import ClassHead
from dubito.calibration.promises import intervals
from dubito.calibration.promises.policy import Policy, Target
from dubito.calibration.promises.positions import Positions
from dubito.calibration.promises.sets import SetRule
from dubito.calibration.sampled import Sampled
from dubito.calibration.scaling.scaling import fit_scaling, mean_probabilities
from dubito.errors import InputError
from dubito.monitoring.drift import DriftTest
from dubito.monitoring.observed import ObservedRows
from dubito.report.rejection import ause
from dubito.report.reliability import confidence
from dubito.report.statistics import RowCounts

from .fits import ood_figures

Floats = NDArray[np.float64]
ROUNDING = 1e-8  # relative: more than the kernels' own, which the engine's test below has
numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


def off(value: Floats, seed: int) -> Floats:
    """The same figures as other neighbours would have left them."""
    sign = np.random.default_rng(seed).choice([-1.0, 1.0], value.shape)
    return value * (1 + ROUNDING * sign)


@given(st.lists(numbers, min_size=1, max_size=20))
def test_what_a_figure_may_have_been_rises_with_it_and_groups_are_no_chains(
    found: list[float],
) -> None:
    ascending = np.sort(np.array(found))
    low, high = ties.lowered(ascending), ties.raised(ascending)
    assert (low < ascending).all()
    assert (ascending < high).all()
    assert (np.diff(low) >= 0).all()
    assert (np.diff(high) >= 0).all()
    merged = ties.merged(ascending)
    assert (merged <= ascending).all()
    assert (ties.lowered(ascending) <= ties.raised(merged)).all()
    assert (np.diff(ties.plateaus(np.unique(merged))) > 0).all()
    assert ties.merged(off(merged, 0))[::-1].tolist() == ties.merged(off(merged, 0)[::-1]).tolist()


def test_figures_that_rounding_parts_are_one_and_others_are_not() -> None:
    assert 100 < len(ties.starts(np.arange(1.0, 1.01, 1e-6))) < 200
    assert len(ties.starts(np.sort(off(np.full(1000, 3.7), 1)))) == 1
    assert len(ties.starts(np.array([1e-9, 1.1e-9, 1.2e-9]))) == 3  # of a confident network
    assert [ties.lowered(np.float64(inf)), ties.raised(np.float64(-inf))] == [inf, -inf]
    mean_BC = np.array([[0.2, 0.4, 0.4 - 1e-9], [0.2, 0.4 - 1e-9, 0.4], [np.nan] * 3])
    assert ties.most_probable(mean_BC).tolist() == [1, 1, 0]
    assert ties.falling(mean_BC)[:2].tolist() == [[1, 2, 0], [1, 2, 0]]


def held_out_sets(num_kinds: int, count: int) -> Iterator[tuple[NDArray[np.int64], float]]:
    """Every set of so many rows of equally frequent kinds, and how often chance draws it."""
    for places in itertools.combinations(range(count + num_kinds - 1), num_kinds - 1):
        edges = np.array([-1, *places, count + num_kinds - 1])
        count_K = np.diff(edges) - 1
        ways = factorial(count) / prod(map(factorial, count_K.tolist()))
        yield np.repeat(np.arange(num_kinds), count_K), ways / num_kinds**count


MEAN_KC = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.1, 0.4, 0.5]])
LABEL_K = np.array([0, 1, 2, 2])
UNIFORM_K = np.array([0.3, 0.3, 0.6, 0.6])


@pytest.mark.parametrize("coverage", [0.5, 0.7, 0.8])
@pytest.mark.parametrize(
    "rule", [SetRule(), SetRule("aps"), SetRule("raps", penalty=0.1, free_ranks=1)]
)
def test_sets_of_rows_that_repeat_cover_as_promised(rule: SetRule, coverage: float) -> None:
    """Exactly, over all held-out sets; every served score lies above the held-out ones of its kind.

    Probabilities that fall by 1e-8 raise the scores of lac, those that rise the others.
    """
    served_KC = MEAN_KC * (1 - ROUNDING if rule.kind == "lac" else 1 + ROUNDING)
    covered = 0.0
    for kind_b, weight in held_out_sets(4, 6):
        held_out = rule.fit(MEAN_KC[kind_b], LABEL_K[kind_b], UNIFORM_K[kind_b])
        sets_KC = rule.sets(held_out, served_KC, UNIFORM_K, coverage)
        covered += weight * sets_KC[np.arange(4), LABEL_K].mean()
    assert covered >= coverage


def test_classes_that_tie_keep_their_order_in_scores_and_outcomes() -> None:
    mean_BC = np.array([[0.4, 0.4 - 1e-8, 0.2], [0.4 - 1e-8, 0.4, 0.2]])
    scores_BC = SetRule("aps").scores(mean_BC, np.full(2, 0.5))
    np.testing.assert_allclose(scores_BC, [[0.2, 0.6, 0.9]] * 2, atol=1e-7)
    assert confidence(mean_BC, np.zeros(2, np.int64))[1].tolist() == [1.0, 1.0]
    mean = np.array([[0.4, np.nextafter(np.float32(0.4), 1)]], np.float32)
    kept = ObservedRows(mean, np.zeros(1), np.zeros(1, bool), np.ones((1, 2), bool))
    assert kept.class_outcome(0, 0).is_right


def test_rows_of_positions_that_repeat_are_covered_as_promised() -> None:
    positions, label_KP = Positions("dense", 0.5), np.array([[0, 1], [1, 0], [2, 2], [0, 0]])
    mean_KPC = np.stack([MEAN_KC, MEAN_KC[::-1]], axis=1)
    covered = 0.0
    for kind_b, weight in held_out_sets(4, 6):
        scores_b = positions.row_scores(mean_KPC[kind_b], label_KP[kind_b])
        held_out = intervals.ConformalScores.of([scores_b])
        sets_KPC = positions.sets(held_out, mean_KPC * (1 - ROUNDING), 0.7)
        covered += weight * positions.is_covered(sets_KPC, label_KP).mean()
    assert covered >= 0.7


@pytest.mark.parametrize("kind", ["normalised", "cqr"])
def test_intervals_of_rows_that_repeat_cover_as_promised(kind: str) -> None:
    """The third kind has its target at 0, where an end that must hold it has no size."""
    mean_K1, variance_K1 = np.array([[5.0], [-3.0], [2.0], [2.0]]), np.array([[1.0], [4], [1], [1]])
    target_K1, covered = np.array([[5.0], [-2.0], [0.0], [3.0]]), 0.0
    served_K1 = mean_K1 * (1 + ROUNDING * np.sign(mean_K1 - target_K1) * np.sign(mean_K1))
    for kind_b, weight in held_out_sets(4, 6):
        if kind == "normalised":
            scores = intervals.fit_normalised(
                *(mean_K1[kind_b], variance_K1[kind_b], target_K1[kind_b])
            )
            exact = intervals.normalised(scores, mean_K1, variance_K1, 0.7)
            ends = intervals.normalised(scores, served_K1, variance_K1, 0.7)
        else:
            fitted = mean_K1[kind_b] - 0.5, mean_K1[kind_b] + 0.5
            scores = intervals.fit_quantiles(fitted, target_K1[kind_b])
            exact = intervals.widened(scores, (mean_K1 - 0.5, mean_K1 + 0.5), 0.7)
            ends = intervals.widened(scores, (served_K1 - 0.5, served_K1 + 0.5), 0.7)
        is_in_K1 = (ends[0] <= target_K1) & (target_K1 <= ends[1])
        assert is_in_K1.tolist() == ((exact[0] <= target_K1) & (target_K1 <= exact[1])).tolist()
        covered += weight * is_in_K1.mean()
    assert covered >= 0.7


@pytest.mark.parametrize("kind", ["normalised", "cqr"])
@pytest.mark.parametrize("unit", [1e-25, 1e-12, 1e20])
def test_intervals_and_their_report_have_no_unit_of_the_target(kind: str, unit: float) -> None:
    generator = np.random.default_rng(0)
    mean_B1, variance_B1 = generator.normal(size=(400, 1)), generator.uniform(0.5, 2, (400, 1))
    target_B1 = mean_B1 + generator.normal(size=(400, 1)) * np.sqrt(variance_B1)

    def ends(unit: float) -> intervals.Ends:
        mean, variance, target = unit * mean_B1, unit**2 * variance_B1, unit * target_B1
        if kind == "normalised":
            scores = intervals.fit_normalised(mean, variance, target)
            return intervals.normalised(scores, mean, variance, 0.8)
        raw = mean - unit, mean + unit
        return intervals.widened(intervals.fit_quantiles(raw, target), raw, 0.8)

    for scaled, plain in zip(ends(unit), ends(1.0), strict=True):
        np.testing.assert_allclose(scaled / unit, plain, rtol=1e-9)
    error_B1 = target_B1 - mean_B1
    areas = [
        ause(scale**2 * variance_B1, scale * error_B1).value(RowCounts.once(400))
        for scale in (unit, 1.0)
    ]
    np.testing.assert_allclose(areas[0], areas[1])


SCORE_K = np.array([1e-9, 0.02, 0.3, 4.0])


@pytest.mark.parametrize("share", [0.2, 0.3, 0.5])
def test_rows_that_repeat_are_flagged_at_most_and_accepted_at_least_as_often_as_promised(
    share: float,
) -> None:
    flagged, accepted, served_K = 0.0, 0.0, SCORE_K * (1 + ROUNDING)
    never_K, target = np.zeros(4, bool), Target(acceptance=share)
    for kind_b, weight in held_out_sets(4, 9):
        detector = Detector.fit("predictive_entropy", SCORE_K[kind_b], share)
        flag_K = detector.flags(served_K)
        assert flag_K.tolist() == detector.flags(SCORE_K).tolist()
        flagged += weight * flag_K.mean()
        policy = Policy.fit(target, off(SCORE_K[kind_b], 0), never_K[kind_b], None)
        accepted_K = np.array(policy.decide(never_K, served_K, None)) == "accept"
        assert policy.acceptance == accepted_K[kind_b].mean()
        accepted += weight * accepted_K.mean()
    assert flagged <= share
    assert accepted >= share


def test_the_risk_of_accepted_rows_that_repeat_is_exceeded_no_oftener_than_stated() -> None:
    """Over all sets of 24 rows; of the greater uncertainty, a third of them, all are wrong."""
    uncertainty_K, is_wrong_K = np.array([0.1, 0.1, 0.4]), np.array([False, False, True])
    target, exceeded, promised = Target(risk=0.3, risk_confidence=0.6), 0.0, 0.0
    for kind_b, weight in held_out_sets(3, 24):
        try:
            policy = Policy.fit(
                target, off(uncertainty_K[kind_b], 0), np.zeros(24, bool), is_wrong_K[kind_b]
            )
        except InputError:
            continue
        served_K = uncertainty_K * (1 - ROUNDING)
        accepted_K = np.array(policy.decide(np.zeros(3, bool), served_K, None)) == "accept"
        assert policy.acceptance == accepted_K[kind_b].mean()
        promised += weight
        if accepted_K.any():
            exceeded += weight * (is_wrong_K[accepted_K].mean() > 0.3)
    assert promised > 0.9
    assert exceeded <= 0.4


def test_a_stream_of_rows_that_repeat_raises_no_drift_alarm() -> None:
    """Every score of the stream lies above the held-out ones of its kind; ever rings in 1 %."""
    kind_N = np.random.default_rng(0).integers(0, 4, 2000)
    test = DriftTest((SCORE_K[np.arange(200) % 4]).tolist())
    test.feed((SCORE_K[kind_N] * (1 + ROUNDING)).tolist())
    assert test.state.alarm_after is None


def test_the_areas_of_a_report_count_rows_of_one_kind_as_ties() -> None:
    usual_B, strange_N = np.repeat(SCORE_K, 5), np.repeat(SCORE_K * (1 + ROUNDING), 5)
    report = ood_figures(None, usual_B, strange_N)
    assert report["ood_auroc"] == pytest.approx(0.5)
    assert report["ood_fpr95"] == 1.0


def test_a_combined_score_is_as_steady_as_its_parts() -> None:
    """Also beyond the top tenth, which is one kind, and between kinds that lie close together."""
    score_B = np.repeat(np.array([1.0, 1.0001, 2.0, 5.0]), 50)
    tail = Tail.fit("energy", off(score_B, 0))
    found_SK = np.stack([tail.surprise(off(score_B[::50], seed)) for seed in range(20)])
    assert (np.ptp(found_SK, axis=0) < 1e-12).all()
    assert tail.slope == 0
    assert (np.diff(found_SK[0]) > 0.2).all()


@pytest.mark.parametrize("name", OF_CLASSES.plain)
def test_a_score_of_equal_rows_is_not_made_of_rounding(name: str) -> None:
    """Also where large logits cancel: energies and largest logits of 0, passes that agree."""
    logits_TKC = 20 * np.random.default_rng(3).normal(size=(4, 30, 3))
    logits_TKC[:, :10] -= logsumexp(logits_TKC, axis=-1).mean(axis=0)[:10, None]
    logits_TKC[:, 10:20] -= logits_TKC.max(axis=-1).mean(axis=0)[10:20, None]
    logits_TKC[:, 20:] = logits_TKC[0, 20:]
    found_SK = [source_of(off(logits_TKC, seed)).plain(name) for seed in range(20)]
    low_K, high_K = np.min(found_SK, axis=0), np.max(found_SK, axis=0)
    least = ties.least_of(name)
    is_tie_K = ties.lowered(high_K, least) <= ties.raised(low_K, least)
    assert is_tie_K.all(), f"give `{name}` a larger tolerance in `ties.LEAST_OF`"


def source_of(logits_TBC: NDArray[np.float64]) -> SampledSource:
    return ClassHead().source(Sampled((logits_TBC,)))


@pytest.mark.parametrize("name", scorer.DISTANCES)
def test_distances_from_classes_of_one_kind_are_not_made_of_rounding(name: str) -> None:
    """Every class is one row many times, so that features within it differ by rounding alone."""
    feature_KF = np.maximum(np.random.default_rng(2).normal(size=(8, 40)), 0.0)
    kind_B = np.arange(400) % 8
    fitted = FittedScore(FeatureBank.fit(off(feature_KF[kind_B], 0), kind_B))
    found_SK = [
        fitted.score(name, ServedSource(lambda _: np.zeros(8), off(feature_KF, seed)))
        for seed in range(20)
    ]
    low_K, high_K = np.min(found_SK, axis=0), np.max(found_SK, axis=0)
    least = ties.least_of(name)
    assert (ties.lowered(high_K, least) <= ties.raised(low_K, least)).all()


def test_kinds_that_tie_choose_no_score_and_are_told() -> None:
    usual, strange = (
        source_of(np.repeat(MEAN_KC, 10, axis=0)[None] * (1 + shift)) for shift in (0.0, ROUNDING)
    )
    found = scorer.compare(["energy", "mutual_information"], FittedScore(), usual, strange)
    assert found == {"energy": 0.5, "mutual_information": 0.5}
    same = source_of(off(np.full((2, 300, 3), [1.0, 2.0, 3.0]), 0))
    parts = {"ood": np.arange(300)}
    flag = Flagging(OF_CLASSES, None, alpha=0.1, seed=0).fit(same, None, None, parts)
    assert "all held-out rows have the same out-of-distribution score" in flag.warnings[0]


def test_isotonic_scaling_does_not_part_probabilities_that_tie() -> None:
    """Ten kinds of rows, right or wrong by turns: exact knots would step between equal rows."""
    generator = np.random.default_rng(1)
    kind_B = generator.integers(0, 10, 400)
    logits_KC = 3 * generator.normal(size=(10, 3))
    said_B, is_right_B = logits_KC.argmax(axis=-1)[kind_B], generator.random(400) < 0.7
    label_B = np.where(is_right_B, said_B, generator.integers(0, 3, 400))
    scaling = fit_scaling("isotonic", off(logits_KC[kind_B], 0)[None], label_B)
    found = [mean_probabilities(off(logits_KC, seed)[None], scaling) for seed in range(20)]
    assert np.ptp(found, axis=0).max() < 1e-9
