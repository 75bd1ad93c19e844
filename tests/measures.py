"""Measures of uncertainty: pure functions from the samples' probabilities to one number per row.

Flow: `probs_TBC` → sums over T in float64 → `*_B` or `*_BC`. The slow, clear reference that the
engine's streaming sums agree with. Entropies are in nats; p log p is 0 at p = 0.

Dimensions: T samples, B rows, C classes (or D outputs), G groups of samples.

Rows of probabilities are taken as they are, not normalised again: rows that sum to 1 only to
float32 rounding give entropies that are right to that rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor

from dubito.errors import InputError


def predictive_entropy(probs_TBC: Tensor) -> Tensor:
    """Entropy of the mean distribution: the total uncertainty, in [0, log C].

    H_B = -Σ_c p̄_c log p̄_c, with p̄ = 1/T Σ_t p_t

    It is the sum of `expected_entropy` and `mutual_information`; by concavity never below the
    first, which rounding is kept from undoing.

    Source: Depeweg et al. 2018, arXiv:1710.07283.
    """
    return torch.maximum(_entropy(_mean(probs_TBC)), expected_entropy(probs_TBC))


def expected_entropy(probs_TBC: Tensor) -> Tensor:
    """Mean entropy of the samples: the aleatoric part.

    E_B = 1/T Σ_t -Σ_c p_tc log p_tc

    Source: Depeweg et al. 2018, arXiv:1710.07283.
    """
    return _entropy(_checked(probs_TBC)).mean(dim=0)


def mutual_information(probs_TBC: Tensor) -> Tensor:
    """Predictive less expected entropy: the epistemic part, in [0, log C].

    MI_B = H[p̄] - 1/T Σ_t H[p_t]

    Biased low by about 1/T of itself; `corrected_mutual_information` takes that back.

    Source: Houlsby et al. 2011, arXiv:1112.5745.
    """
    return predictive_entropy(probs_TBC) - expected_entropy(probs_TBC)


def corrected_mutual_information(
    probs_TBC: Tensor, *, group_sizes: Sequence[int] | None = None
) -> Tensor:
    """Mutual information with the bias in T taken out by a jackknife.

    MI_J = G·H - Σ_j (1 - m_j/T)·H_(j) - 1/T Σ_t H[p_t]

    H_(j) is the entropy of the mean without group j, which holds m_j consecutive samples. Without
    `group_sizes` every sample is its own group: T·H - (T-1)/T·Σ_t H_(t). By concavity never below
    the plain figure; with few samples it may pass log C, and is not cut off there.

    Args:
        probs_TBC: probabilities of each sample.
        group_sizes: sizes of consecutive groups, at least two, which add up to T.

    Raises:
        InputError: fewer than two samples, or sizes that do not partition T.

    Source: Busing, Meijer and Van der Leeden 1999 (delete-m_j jackknife), Statistics and
    Computing 9:3-8.
    """
    probs_TBC = _checked(probs_TBC)
    num_samples = probs_TBC.shape[0]
    sizes = [1] * num_samples if group_sizes is None else list(group_sizes)
    if len(sizes) < 2 or min(sizes) < 1 or sum(sizes) != num_samples:
        raise InputError(
            f"the jackknife expects at least 2 groups that add up to {num_samples} samples, "
            f"got sizes {sizes}: draw more samples or give other sizes"
        )
    total_BC = probs_TBC.sum(dim=0)
    corrected_B = len(sizes) * predictive_entropy(probs_TBC)
    for size, group_MBC in zip(sizes, torch.split(probs_TBC, sizes), strict=True):
        rest = num_samples - size
        without_BC = ((total_BC - group_MBC.sum(dim=0)) / rest).clamp_min(0.0)
        corrected_B = corrected_B - rest / num_samples * _entropy(without_BC)
    return torch.maximum(corrected_B - expected_entropy(probs_TBC), mutual_information(probs_TBC))


def variation_ratio(probs_TBC: Tensor) -> Tensor:
    """Share of the samples that do not vote for the most voted class, in [0, 1 - 1/C].

    v_B = 1 - max_c #{t : argmax p_t = c} / T

    A tie within a sample goes to its first class.

    Source: Freeman 1965; Gal 2016, "Uncertainty in Deep Learning", section 3.3.1.
    """
    probs_TBC = _checked(probs_TBC)
    votes_TB = probs_TBC.argmax(dim=-1)
    votes_TBC = torch.nn.functional.one_hot(votes_TB, probs_TBC.shape[-1])
    return 1.0 - votes_TBC.sum(dim=0).amax(dim=-1).double() / probs_TBC.shape[0]


def variance(samples_TBD: Tensor) -> Tensor:
    """Variance over the samples with ddof = 0, so that the decomposition adds up.

    s²_BD = 1/T Σ_t (y_t - ȳ)²
    """
    samples_TBD = _checked(samples_TBD)
    return samples_TBD.var(dim=0, correction=0)


def standard_error(samples_TBD: Tensor) -> Tensor:
    """Standard error of the mean of T independent samples.

    se_BD = sqrt(1/(T-1) Σ_t (y_t - ȳ)²) / sqrt(T)

    Raises:
        InputError: fewer than two samples.
    """
    samples_TBD = _checked(samples_TBD)
    num_samples = samples_TBD.shape[0]
    if num_samples < 2:
        raise InputError("a standard error expects at least 2 samples, got 1: raise `num_samples`")
    return samples_TBD.std(dim=0, correction=1) / sqrt(num_samples)


def _checked(samples_TBD: Tensor) -> Tensor:
    """The samples in float64, refused where there is no samples axis or no sample."""
    if samples_TBD.ndim != 3 or samples_TBD.shape[0] < 1:
        raise InputError(
            f"expected samples of shape (T, B, C) with T >= 1, got {tuple(samples_TBD.shape)}: "
            "put the samples on the first axis and the classes or outputs on the last"
        )
    return samples_TBD.double()


def _mean(probs_TBC: Tensor) -> Tensor:
    return _checked(probs_TBC).mean(dim=0)


def _entropy(probs: Tensor) -> Tensor:
    """-Σ p log p over the last axis, 0 at p = 0."""
    entropy: Tensor = torch.special.entr(probs).sum(dim=-1)
    return entropy
