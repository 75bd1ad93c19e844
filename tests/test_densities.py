"""Gaussian densities of classes: by scipy once more, with few rows, and as a part of a flag."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from dubito.calibration.flags.densities import ClassDensities
from dubito.calibration.flags.distances import FeatureBank
from dubito.errors import InputError


def test_scores_are_those_of_scipy_s_gaussians_with_shrunk_covariances() -> None:
    generator = np.random.default_rng(0)
    label_B = np.repeat([0, 1, 4], [40, 60, 5])
    scale_B1 = np.array([1.0, 3.0, 1.0])[np.repeat([0, 1, 2], [40, 60, 5])][:, None]
    row_BP = generator.normal(size=(105, 4)) * scale_B1 + label_B[:, None]
    densities = ClassDensities.fit(row_BP, label_B)
    asked_BP = generator.normal(size=(20, 4)) * 4
    parts = []
    for label in (0, 1, 4):
        own = row_BP[label_B == label]
        spread = np.cov(own.T, bias=True) * len(own)
        covariance = (spread + 5 * np.eye(4)) / (len(own) + 5)
        normal = multivariate_normal(own.mean(axis=0), covariance)
        parts.append(np.log(len(own) / 105) + normal.logpdf(asked_BP))
    expected = -logsumexp(parts, axis=0) - 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(densities.score(asked_BP), expected, rtol=1e-5)


def test_a_wide_class_takes_what_is_far_from_a_narrow_one() -> None:
    generator = np.random.default_rng(1)
    narrow, wide = generator.normal(size=(200, 2)) * 0.1, generator.normal(size=(200, 2)) * 2 + 9
    label_B = np.repeat([0, 1], 200)
    rows = np.concatenate([narrow, wide])
    bank = FeatureBank.fit(rows, label_B)
    densities = ClassDensities.fit(bank.white(rows), label_B)
    asked = np.array([[1.5, 0.0], [10.5, 9.0]])  # as far from either mean
    score = densities.score(bank.white(asked))
    assert score[0] > score[1] + 5
    distance = bank.mahalanobis(asked)
    assert distance[0] == pytest.approx(distance[1], rel=0.5)


def test_classes_of_one_row_are_as_wide_as_all() -> None:
    row_BP = np.random.default_rng(2).normal(size=(30, 6))
    score = ClassDensities.fit(row_BP, np.arange(30)).score(row_BP)
    assert np.isfinite(score).all()
    assert score.max() < ClassDensities.fit(row_BP, np.arange(30)).score(row_BP + 100).min()


def test_too_many_classes_are_refused_with_another_score() -> None:
    with pytest.raises(InputError, match="at most 256 classes of 128 features, got 300"):
        ClassDensities.fit(np.zeros((300, 128)), np.arange(300))
