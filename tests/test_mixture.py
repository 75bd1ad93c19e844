"""Quantiles of mixtures against closed forms and a slow sum."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from dubito.calibration.promises.mixture import quantiles


@pytest.mark.parametrize("level", [0.01, 0.3, 0.5, 0.95])
def test_one_component_has_the_quantiles_of_a_gaussian(level: float) -> None:
    mean_TBD, variance_TBD = np.array([[[3.0, -1.0]]]), np.array([[[4.0, 0.25]]])
    expected = norm.ppf(level, [[3.0, -1.0]], [[2.0, 0.5]])
    np.testing.assert_allclose(quantiles(mean_TBD, variance_TBD, level), expected, atol=1e-12)


@pytest.mark.parametrize("level", [0.01, 0.3, 0.5, 0.95])
def test_as_much_of_the_mixture_lies_below_as_the_level_says(level: float) -> None:
    generator = np.random.default_rng(0)
    mean_TBD = 5 * generator.normal(size=(16, 7, 2))
    variance_TBD = generator.gamma(2.0, size=(16, 7, 2))
    found_BD = quantiles(mean_TBD, variance_TBD, level)
    below_BD = np.mean(norm.cdf(found_BD, mean_TBD, np.sqrt(variance_TBD)), axis=0)
    np.testing.assert_allclose(below_BD, level, atol=1e-12)
