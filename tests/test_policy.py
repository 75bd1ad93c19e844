"""Thresholds with a promise: the risk holds as often as stated, the share as often as stated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from dubito.calibration.promises import selective
from dubito.calibration.promises.policy import Policy, Target, number_uncertainty
from dubito.errors import InputError


def rows(generator: np.random.Generator, count: int) -> tuple[NDArray[np.float64], ...]:
    """Uncertainty uniform on [0, 1], and wrong with half that probability."""
    uncertainty_B = generator.random(count)
    return uncertainty_B, generator.random(count) < 0.5 * uncertainty_B


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 60), st.floats(0.001, 0.2))
def test_the_bound_of_a_rate_is_the_exact_binomial_one(
    wrong: int, right: int, failure: float
) -> None:
    bound = selective.risk_bound(wrong, wrong + right, failure)
    assert stats.binom.cdf(wrong, wrong + right, bound) == pytest.approx(failure, rel=1e-6)
    exact = stats.binomtest(wrong, wrong + right, alternative="less")
    interval = exact.proportion_ci(1 - failure, method="exact")
    assert bound == pytest.approx(interval.high, rel=1e-6)


def test_all_wrong_bounds_nothing() -> None:
    assert selective.risk_bound(7, 7, 0.05) == 1.0


@pytest.mark.parametrize(("count", "target"), [(200, 0.15), (1000, 0.1)])
def test_the_risk_of_accepted_rows_exceeds_its_target_no_oftener_than_stated(
    count: int, target: float
) -> None:
    """600 sets at confidence 0.8; the true risk at θ is θ / 4 exactly.

    Failures beyond the 99.9 % bound of binomial(600, 0.2) would happen by chance 1 in 1,000. A set
    that promises nothing accepts nothing.
    """
    generator, failures, accepted = np.random.default_rng(7), 0, 0.0
    for _ in range(600):
        drawn = rows(generator, count)
        try:
            found = selective.threshold_at_risk(*drawn, target_risk=target, confidence=0.8)
        except InputError:
            continue
        assert found.bound is not None
        assert found.bound <= target
        failures += found.threshold / 4 > target
        accepted += found.threshold / 600
    assert failures <= stats.binom.ppf(0.999, 600, 0.2)
    assert 0.7 * target < accepted <= 4 * target  # and it does accept


def test_a_risk_that_depends_on_ties_counts_them_on_neither_side() -> None:
    uncertainty_B = np.repeat([0.0, 0.5], 500)
    is_wrong_B = np.r_[np.zeros(500, bool), np.ones(500, bool)]
    found = selective.threshold_at_risk(
        uncertainty_B, is_wrong_B, target_risk=0.05, confidence=0.95
    )
    assert 0 < found.threshold < 0.5
    assert found.acceptance == 0.5


def test_a_risk_that_cannot_be_promised_names_the_smallest_that_can() -> None:
    uncertainty_B, is_wrong_B = rows(np.random.default_rng(8), 300)
    asked = {"confidence": 0.95}
    with pytest.raises(InputError, match=r"`target_risk` 0.01 cannot be promised") as caught:
        selective.threshold_at_risk(uncertainty_B, is_wrong_B, target_risk=0.01, **asked)
    smallest = float(str(caught.value).split("that they can is ")[1].split(";")[0])
    found = selective.threshold_at_risk(uncertainty_B, is_wrong_B, target_risk=smallest, **asked)
    assert found.bound is not None
    assert found.bound <= smallest
    with pytest.raises(InputError, match="cannot be promised"):
        selective.threshold_at_risk(uncertainty_B, is_wrong_B, target_risk=smallest - 2e-4, **asked)


@pytest.mark.parametrize(("risk", "confidence"), [(0.01, 0.95), (0.1, 0.99), (0.3, 0.5)])
def test_the_rows_that_a_risk_needs_are_just_enough_where_none_is_wrong(
    risk: float, confidence: float
) -> None:
    needed = selective.rows_for_risk(risk, confidence)
    asked = {"target_risk": risk, "confidence": confidence}
    rising = np.linspace(0, 1, needed)
    selective.threshold_at_risk(rising, np.zeros(needed, bool), **asked)
    with pytest.raises(InputError, match="cannot be promised"):
        selective.threshold_at_risk(rising[1:], np.zeros(needed - 1, bool), **asked)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_share_of_accepted_rows_is_the_one_of_the_order_statistic(share: float) -> None:
    """400 sets of 59 rows, the true share is θ; fails by chance 1 in 1,000."""
    generator = np.random.default_rng(9)
    found = [
        selective.threshold_at_acceptance(generator.random(59), share).threshold for _ in range(400)
    ]
    rank = int(np.ceil(60 * share))
    assert stats.kstest(found, stats.beta(rank, 60 - rank).cdf).pvalue > 0.001


def test_a_share_that_flags_leave_no_room_for_names_the_largest() -> None:
    uncertainty_B = np.r_[np.linspace(0, 1, 90), np.full(10, np.inf)]
    with pytest.raises(InputError, match=r"the largest that they can is 0\.891"):
        selective.threshold_at_acceptance(uncertainty_B, 0.95)
    assert selective.threshold_at_acceptance(uncertainty_B, 0.89).threshold == 1.0


def test_flagged_rows_are_rejected_before_anything_else() -> None:
    flag_B = np.array([True, False, False, False])
    uncertainty_B = np.array([0.0, 0.0, 0.9, np.nan])
    sizes_B = np.array([1, 1, 2, 0])
    policy = Policy("acceptance", 0.9, None, 0.5, None, 0.9, 100)
    assert policy.decide(flag_B, uncertainty_B, sizes_B) == ["reject", "accept", "review", "review"]
    assert Policy().decide(flag_B, uncertainty_B, sizes_B) == [
        *("reject", "accept", "review", "review")
    ]
    assert Policy().decide(flag_B, uncertainty_B, None) == ["reject", "accept", "accept", "review"]


def test_a_risk_counts_rows_that_are_not_flagged_alone() -> None:
    """Wrong rows are all flagged, so that what is accepted has no error."""
    uncertainty_B = np.linspace(0, 1, 400)
    is_wrong_B = np.arange(400) % 4 == 0
    target = Target(risk=0.05)
    policy = Policy.fit(target, uncertainty_B, is_wrong_B, is_wrong_B)
    assert policy.kind == "risk"
    assert policy.acceptance == pytest.approx(0.75, abs=0.01)
    with pytest.raises(InputError, match="cannot be promised"):
        Policy.fit(target, uncertainty_B, np.zeros(400, bool), is_wrong_B)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"risk": 0.1, "acceptance": 0.9}, "give one"),
        ({"risk_confidence": 0.9}, "belongs to `target_risk`"),
        ({"risk": 0.0}, "`target_risk` expects a number between 0 and 1, got 0.0"),
        ({"risk": 0.1, "risk_confidence": 1.0}, "`risk_confidence` expects"),
        ({"acceptance": 1.5}, "`target_acceptance` expects"),
    ],
)
def test_targets_that_contradict_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Target(**fields)


def test_a_regression_has_no_risk() -> None:
    with pytest.raises(InputError, match="ask for `target_acceptance`"):
        Target(risk=0.1).check_task("regression")
    variance_BD = np.array([[1.0, 8.0], [2.0, 4.0]])
    assert number_uncertainty(variance_BD, np.array([1.0, 4.0])).tolist() == [1.5, 1.5]
