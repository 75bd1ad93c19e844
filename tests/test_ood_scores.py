"""Scores against their formulas, and the detector's rate of false alarms."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp, softmax

from dubito.calibration.flags import scores
from dubito.calibration.flags.detector import Detector
from dubito.errors import InputError


@dataclass(frozen=True)
class Columns:
    predictive_entropy: NDArray[np.float64]
    mutual_information: NDArray[np.float64]
    mean: NDArray[np.float64]
    energy: NDArray[np.float64]
    energy_spread: NDArray[np.float64]
    max_logit: NDArray[np.float64]


def some_logits(seed: int = 0) -> NDArray[np.float64]:
    return 3 * np.random.default_rng(seed).normal(size=(8, 5, 4))


def test_every_score_follows_its_formula() -> None:
    logits_TBC = some_logits()
    probs_TBC = softmax(logits_TBC, axis=-1)
    total_B = stats.entropy(probs_TBC.mean(axis=0), axis=-1)
    expected_B = stats.entropy(probs_TBC, axis=-1).mean(axis=0)
    reference = {
        "predictive_entropy": total_B,
        "mutual_information": total_B - expected_B,
        "max_probability": 1 - probs_TBC.mean(axis=0).max(axis=-1),
        "energy": -logsumexp(logits_TBC, axis=-1).mean(axis=0),
        "energy_spread": logsumexp(logits_TBC, axis=-1).var(axis=0) ** 0.5,
        "max_logit": -logits_TBC.max(axis=-1).mean(axis=0),
    }
    assert reference.keys() == scores.CLASSIFICATION.keys()
    for name, expected in reference.items():
        np.testing.assert_allclose(scores.from_logits(name, logits_TBC), expected, atol=1e-12)


def test_columns_of_a_prediction_give_the_same_scores_as_its_logits() -> None:
    logits_TBC = some_logits(1)
    found = {name: scores.from_logits(name, logits_TBC) for name in scores.CLASSIFICATION}
    del found["max_probability"]
    found["max_logit"] = -found["max_logit"]
    columns = Columns(mean=softmax(logits_TBC, axis=-1).mean(axis=0), **found)
    for name in scores.CLASSIFICATION:
        np.testing.assert_array_equal(
            scores.from_columns(name, columns), scores.from_logits(name, logits_TBC)
        )


def test_the_order_of_the_samples_does_not_matter_and_certain_rows_score_0() -> None:
    logits_TBC = some_logits(2)
    certain_TBC = np.zeros((3, 1, 2))
    certain_TBC[..., 1] = -np.inf
    for name in scores.CLASSIFICATION:
        np.testing.assert_allclose(
            scores.from_logits(name, logits_TBC[::-1]),
            scores.from_logits(name, logits_TBC),
            atol=1e-12,
        )
        assert scores.from_logits(name, certain_TBC).item() == 0.0


def test_the_epistemic_score_counts_in_units_of_the_noise() -> None:
    mean_TBD = np.array([[[0.0, 0.0]], [[2.0, 20.0]]])
    score_B = scores.epistemic_variance(mean_TBD, np.array([0.5, 50.0]))
    assert score_B.tolist() == [2.0]  # variances 1 and 100, over 0.5 and 50
    epistemic_BD = mean_TBD.var(axis=0)
    np.testing.assert_array_equal(scores.normalised(epistemic_BD, np.array([0.5, 50.0])), score_B)


def test_an_unknown_score_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InputError, match=r"`predictive_entropy`.*got `wild`"):
        scores.from_logits("wild", some_logits())
    columns = Columns(*(np.zeros(1),) * 6)
    with pytest.raises(InputError, match="got `knn`"):
        scores.from_columns("knn", columns)


def test_the_default_scores_are_the_documented_ones() -> None:
    assert next(iter(scores.CLASSIFICATION)) == "predictive_entropy"
    assert scores.REGRESSION[0] == "epistemic_variance"


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=40),
    st.sampled_from([0.01, 0.05, 0.1, 0.25, 0.5, 0.9]),
)
def test_a_row_is_flagged_where_its_score_is_above_the_threshold(
    held_out: list[int], alpha: float
) -> None:
    detector = Detector.fit("energy", np.array(held_out, dtype=np.float64), alpha)
    asked_B = np.arange(-1.0, 14.0)
    np.testing.assert_array_equal(detector.flags(asked_B), asked_B > detector.threshold)


def test_ties_only_lower_the_rate_of_flags() -> None:
    detector = Detector.fit("energy", np.zeros(99), 0.05)
    assert detector.p_values(np.zeros(1)).item() == 1.0
    assert not detector.flags(np.zeros(1)).item()
    assert detector.flags(np.ones(1)).item()


def test_the_share_of_flags_over_random_splits_follows_the_beta_binomial() -> None:
    """Counts over 400 splits of 135 + 112 rows; fails by chance 1 in 1,000."""
    generator = np.random.default_rng(11)
    expected = 6  # floor(0.05 * 136)
    law = stats.betabinom(112, expected, 136 - expected)
    places = []
    for _ in range(400):
        score_B = generator.gamma(0.5, size=247)
        flagged = int(Detector.fit("energy", score_B[:135], 0.05).flags(score_B[135:]).sum())
        places.append(law.cdf(flagged - 1) + generator.random() * law.pmf(flagged))
    assert stats.kstest(places, "uniform").pvalue > 0.001
