"""Measures against closed forms, a slow reference in numpy, and their inequalities."""

from math import log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import digamma
from tests import measures
from torch import Tensor

from dubito.errors import InputError


@st.composite
def probabilities(draw: st.DrawFn, min_samples: int = 1) -> Tensor:
    """Softmax of wild logits, with rows that are certain or even among them."""
    num_samples = draw(st.integers(min_samples, 9))
    num_rows, num_classes = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    seed, scale = draw(st.integers(0, 2**31)), draw(st.sampled_from([0.0, 0.1, 3.0, 50.0, 2000.0]))
    generator = torch.Generator().manual_seed(seed)
    logits_TBC = scale * torch.randn(
        num_samples, num_rows, num_classes, generator=generator, dtype=torch.float64
    )
    return logits_TBC.softmax(dim=-1)


def slow_entropy(probs_C: np.ndarray) -> float:
    return -sum(float(p) * log(float(p)) for p in probs_C if p > 0)


def test_two_certain_and_opposed_samples_are_all_mutual_information() -> None:
    probs_TBC = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert measures.predictive_entropy(probs_TBC).item() == pytest.approx(log(2), abs=1e-15)
    assert measures.expected_entropy(probs_TBC).item() == 0.0
    assert measures.mutual_information(probs_TBC).item() == pytest.approx(log(2), abs=1e-15)
    assert measures.variation_ratio(probs_TBC).item() == 0.5
    assert measures.variance(probs_TBC).tolist() == [[0.25, 0.25]]
    assert measures.standard_error(probs_TBC).tolist() == [[pytest.approx(0.5)] * 2]


def test_equal_samples_have_no_mutual_information_and_no_spread() -> None:
    probs_TBC = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64).expand(5, 1, 3)
    assert measures.mutual_information(probs_TBC).item() == pytest.approx(0.0, abs=1e-15)
    assert measures.corrected_mutual_information(probs_TBC).item() == pytest.approx(0, abs=1e-14)
    assert measures.variation_ratio(probs_TBC).item() == 0.0
    assert measures.variance(probs_TBC).abs().max().item() == pytest.approx(0.0, abs=1e-30)


def test_a_certain_row_gives_zeros_and_no_nan() -> None:
    probs_TBC = torch.tensor([[[1.0, 0.0, 0.0]]]).expand(4, 1, 3)
    for measure in (
        measures.predictive_entropy,
        measures.expected_entropy,
        measures.mutual_information,
        measures.corrected_mutual_information,
    ):
        assert measure(probs_TBC).item() == 0.0


@settings(max_examples=60, deadline=None)
@given(probabilities())
def test_the_measures_agree_with_a_slow_reference(probs_TBC: Tensor) -> None:
    probs = probs_TBC.numpy()
    for row in range(probs.shape[1]):
        total = slow_entropy(probs[:, row].mean(axis=0))
        expected = np.mean([slow_entropy(sample_C) for sample_C in probs[:, row]])
        votes_T = probs[:, row].argmax(axis=-1)
        voted = np.bincount(votes_T).max() / len(votes_T)
        assert measures.predictive_entropy(probs_TBC)[row].item() == pytest.approx(total, abs=1e-12)
        assert measures.expected_entropy(probs_TBC)[row].item() == pytest.approx(
            expected, abs=1e-12
        )
        assert measures.variation_ratio(probs_TBC)[row].item() == pytest.approx(1 - voted)
    np.testing.assert_allclose(measures.variance(probs_TBC), probs.var(axis=0), atol=1e-15)


@settings(max_examples=100, deadline=None)
@given(probabilities())
def test_mutual_information_lies_between_0_and_the_entropy_which_is_at_most_log_c(
    probs_TBC: Tensor,
) -> None:
    information_B = measures.mutual_information(probs_TBC)
    entropy_B = measures.predictive_entropy(probs_TBC)
    parts_B = measures.expected_entropy(probs_TBC) + information_B
    assert (information_B >= 0).all()
    assert (information_B <= entropy_B).all()
    assert (entropy_B <= log(probs_TBC.shape[-1]) + 1e-12).all()
    torch.testing.assert_close(parts_B, entropy_B, rtol=0, atol=1e-15)


@settings(max_examples=60, deadline=None)
@given(probabilities(min_samples=2), st.integers(0, 2**31))
def test_the_order_of_the_samples_does_not_matter(probs_TBC: Tensor, seed: int) -> None:
    shuffled_TBC = probs_TBC[np.random.default_rng(seed).permutation(len(probs_TBC))]
    for measure in (
        measures.predictive_entropy,
        measures.expected_entropy,
        measures.mutual_information,
        measures.corrected_mutual_information,
        measures.variation_ratio,
        measures.variance,
        measures.standard_error,
    ):
        torch.testing.assert_close(measure(shuffled_TBC), measure(probs_TBC), rtol=0, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(probabilities(min_samples=2))
def test_the_jackknife_agrees_with_its_formula_written_out(probs_TBC: Tensor) -> None:
    probs = probs_TBC.numpy()
    num_samples = len(probs)
    for row in range(probs.shape[1]):
        samples_TC = probs[:, row]
        mean_C = samples_TC.mean(axis=0)
        without = sum(
            slow_entropy(np.clip((num_samples * mean_C - sample_C) / (num_samples - 1), 0, None))
            for sample_C in samples_TC
        )
        corrected = num_samples * slow_entropy(mean_C) - (num_samples - 1) / num_samples * without
        expected = np.mean([slow_entropy(sample_C) for sample_C in samples_TC])
        assert measures.corrected_mutual_information(probs_TBC)[row].item() == pytest.approx(
            corrected - expected, abs=1e-10
        )


@settings(max_examples=60, deadline=None)
@given(probabilities(min_samples=3))
def test_unequal_groups_of_the_jackknife_agree_with_means_taken_without_each(
    probs_TBC: Tensor,
) -> None:
    num_samples = len(probs_TBC)
    sizes = [num_samples - 2, 2] if num_samples > 3 else [1, 2]
    expected_B = len(sizes) * measures.predictive_entropy(probs_TBC)
    start = 0
    for size in sizes:
        kept_TBC = torch.cat([probs_TBC[:start], probs_TBC[start + size :]])
        expected_B -= (1 - size / num_samples) * measures.predictive_entropy(
            kept_TBC.mean(dim=0, keepdim=True)
        )
        start += size
    expected_B -= measures.expected_entropy(probs_TBC)
    corrected_B = measures.corrected_mutual_information(probs_TBC, group_sizes=sizes)
    torch.testing.assert_close(corrected_B, expected_B, rtol=0, atol=1e-10)
    assert (corrected_B >= measures.mutual_information(probs_TBC)).all()


def test_the_correction_takes_out_most_of_the_bias_at_ten_samples() -> None:
    """Dirichlet samples have a known mutual information; 4,000 rows leave 1 % of noise."""
    alpha_C = np.array([2.0, 1.0, 1.0])
    draws = np.random.default_rng(0).dirichlet(alpha_C, size=(10, 4000))
    mean_C = alpha_C / alpha_C.sum()
    expected = float(np.sum(mean_C * (digamma(alpha_C.sum() + 1) - digamma(alpha_C + 1))))
    truth = float(stats.entropy(mean_C)) - expected
    probs_TBC = torch.from_numpy(draws)
    plain = measures.mutual_information(probs_TBC).mean().item() / truth
    corrected = measures.corrected_mutual_information(probs_TBC).mean().item() / truth
    assert 0.85 < plain < 0.94
    assert corrected == pytest.approx(1.0, abs=0.03)


def test_the_standard_error_is_the_sample_deviation_over_root_t() -> None:
    samples_TBD = torch.from_numpy(np.random.default_rng(1).normal(size=(7, 3, 2)))
    np.testing.assert_allclose(
        measures.standard_error(samples_TBD), stats.sem(samples_TBD.numpy(), axis=0), rtol=1e-12
    )


def test_a_spread_that_is_small_beside_its_mean_is_not_lost() -> None:
    samples_TBD = torch.tensor([1e4, 1e4 + 2.0**-9], dtype=torch.float32).reshape(2, 1, 1)
    assert measures.variance(samples_TBD).item() == pytest.approx(2.0**-20, rel=1e-9)


@pytest.mark.parametrize("sizes", [[4], [3, 2], [0, 4], []])
def test_groups_that_do_not_partition_the_samples_are_refused(sizes: list[int]) -> None:
    probs_TBC = torch.full((4, 1, 2), 0.5)
    with pytest.raises(InputError, match="at least 2 groups that add up to 4"):
        measures.corrected_mutual_information(probs_TBC, group_sizes=sizes)


def test_one_sample_has_no_standard_error() -> None:
    with pytest.raises(InputError, match="at least 2 samples, got 1"):
        measures.standard_error(torch.zeros(1, 2, 3))


def test_samples_without_a_sample_axis_are_refused_with_their_shape() -> None:
    with pytest.raises(InputError, match=r"got \(2, 3\)"):
        measures.predictive_entropy(torch.zeros(2, 3))
