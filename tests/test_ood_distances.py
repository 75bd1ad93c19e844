"""Distances between features against scikit-learn, and what a record keeps of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from dubito.calibration.flags.combined import Tail
from dubito.calibration.flags.distances import (
    HASHED,
    MAX_FEATURES,
    MAX_KEPT,
    MAX_PROJECTED,
    MAX_UNHASHED,
    FeatureBank,
    hashed,
)
from dubito.calibration.flags.packed import PackedArray
from dubito.errors import InputError

Floats = NDArray[np.float64]


def clusters(rows: int = 300, features: int = 12, seed: int = 0) -> tuple[Floats, Floats]:
    """Three clouds of float32 features and their labels."""
    generator = np.random.default_rng(seed)
    label_B = np.arange(rows) % 3
    centre_KF = 3 * generator.normal(size=(3, features))
    mixing_FF = generator.normal(size=(features, features)) / features**0.5
    feature_BF = centre_KF[label_B] + generator.normal(size=(rows, features)) @ mixing_FF
    return feature_BF.astype(np.float32).astype(np.float64), label_B


def test_the_distance_to_the_kth_neighbour_is_that_of_scikit_learn() -> None:
    feature_BF, label_B = clusters()
    asked_BF = np.r_[feature_BF[:5], np.random.default_rng(1).normal(size=(40, 12))]
    bank = FeatureBank.fit(feature_BF, label_B, neighbours=7)

    def scaled(row_BF: Floats) -> Floats:
        return row_BF / np.linalg.norm(row_BF, axis=1, keepdims=True)

    reference = NearestNeighbors(n_neighbors=7, algorithm="brute").fit(scaled(feature_BF))
    expected = reference.kneighbors(scaled(asked_BF))[0][:, -1]
    np.testing.assert_allclose(bank.knn(asked_BF), expected, atol=1e-6)
    nearest = FeatureBank.fit(feature_BF, label_B, neighbours=1)
    np.testing.assert_allclose(nearest.knn(feature_BF[:5]), 0, atol=1e-3)


def test_mahalanobis_distances_are_those_of_scikit_learn_s_shrunk_covariance() -> None:
    feature_BF, label_B = clusters()
    asked_BF = 4 * np.random.default_rng(2).normal(size=(25, 12))
    bank = FeatureBank.fit(feature_BF, label_B)
    means = np.stack([feature_BF[label_B == k].mean(axis=0) for k in range(3)])
    within = LedoitWolf(assume_centered=True).fit(feature_BF - means[label_B]).get_precision()
    overall = LedoitWolf().fit(feature_BF)
    expected = [min(mahalanobis(row, mean, within) ** 2 for mean in means) for row in asked_BF]
    np.testing.assert_allclose(bank.mahalanobis(asked_BF), expected, rtol=1e-6)
    relative = np.array(expected) - overall.mahalanobis(asked_BF)
    np.testing.assert_allclose(bank.relative_mahalanobis(asked_BF), relative, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e-6, 1e30])
def test_distances_do_not_depend_on_the_unit_of_the_features(scale: float) -> None:
    feature_BF, label_B = clusters()
    asked_BF = 4 * np.random.default_rng(2).normal(size=(25, 12))
    usual, scaled = (FeatureBank.fit(one * feature_BF, label_B) for one in (1.0, scale))
    for name in ("knn", "mahalanobis", "relative_mahalanobis"):
        expected = getattr(usual, name)(asked_BF)
        np.testing.assert_allclose(
            getattr(scaled, name)(scale * asked_BF), expected, rtol=1e-5, atol=1e-5
        )


def test_rows_without_classes_are_of_one_kind() -> None:
    feature_BF, _ = clusters()
    bank = FeatureBank.fit(feature_BF, None)
    assert bank.means.shape == (1, 12)
    np.testing.assert_allclose(bank.relative_mahalanobis(feature_BF), 0, atol=1e-9)


def test_many_features_are_projected_and_many_rows_are_thinned_out() -> None:
    generator = np.random.default_rng(3)
    mixing_HF = generator.normal(size=(20, 400))  # 20 directions hold everything
    feature_BF, asked_BF = (generator.normal(size=(rows, 20)) @ mixing_HF for rows in (1500, 30))
    bank = FeatureBank.fit(feature_BF, None, neighbours=3, seed=5)
    assert bank.projection is not None
    assert (bank.projection.shape, bank.kept.shape) == ((128, 400), (1000, 128))
    kept_n = np.sort(np.random.Generator(np.random.Philox(5)).permutation(1500)[:1000])
    asked, kept = (
        row_BF / np.linalg.norm(row_BF, axis=1, keepdims=True)
        for row_BF in (asked_BF, feature_BF[kept_n])
    )
    expected = NearestNeighbors(n_neighbors=3).fit(kept).kneighbors(asked)[0][:, -1]
    np.testing.assert_allclose(bank.knn(asked_BF), expected, atol=1e-5)


def test_a_bank_comes_back_from_json_and_gives_the_same_scores_to_the_last_bit() -> None:
    feature_BF, label_B = clusters(features=140)
    bank = FeatureBank.fit(feature_BF, label_B)
    adapter = TypeAdapter(FeatureBank)
    again = adapter.validate_json(adapter.dump_json(bank), strict=True)
    assert again == bank
    for name in ("knn", "mahalanobis", "relative_mahalanobis"):
        given_B, back_B = (getattr(one, name)(feature_BF) for one in (bank, again))
        np.testing.assert_array_equal(given_B, back_B)


def test_the_record_of_the_largest_bank_is_bounded() -> None:
    generator = np.random.default_rng(4)
    feature_BF = generator.normal(size=(140, MAX_UNHASHED)).astype(np.float32)
    bank = FeatureBank.fit(feature_BF, np.arange(140) % 10)
    rest = (MAX_KEPT - 140) * MAX_PROJECTED * 4 * 4 / 3  # rows not kept here, float32 in base64
    assert len(TypeAdapter(FeatureBank).dump_json(bank)) + rest < 4_200_000


def test_what_lies_outside_is_the_squared_length_that_the_projection_leaves_out() -> None:
    generator = np.random.default_rng(6)
    feature_BF = generator.normal(size=(150, 6)) @ generator.normal(size=(6, 200))
    feature_BF += 0.1 * generator.normal(size=(150, 200))
    bank = FeatureBank.fit(feature_BF, None)
    assert bank.projection is not None
    direction_PF = bank.projection.array()
    within_BF = feature_BF @ direction_PF.T @ direction_PF
    np.testing.assert_allclose(bank.outside(within_BF), 0, atol=1e-6)
    beside_F = generator.normal(size=200)
    beside_F -= beside_F @ direction_PF.T @ direction_PF
    expected = np.square(beside_F).sum()
    np.testing.assert_allclose(bank.outside(within_BF + beside_F), expected, rtol=1e-4)
    small = FeatureBank.fit(feature_BF[:, :9], None)
    assert small.outside(feature_BF[:, :9]).tolist() == [0.0] * 150


def test_very_many_features_are_hashed_and_keep_their_products() -> None:
    """By chance 1 in 1,000: the error of a product of unit vectors is about 1/32."""
    generator = np.random.default_rng(7)
    feature_BF = generator.normal(size=(6, 3 * MAX_UNHASHED + 5))
    feature_BF /= np.linalg.norm(feature_BF, axis=1, keepdims=True)
    feature_BF[3:] = 0.8 * feature_BF[:3] + 0.6 * feature_BF[3:]
    short_BF = hashed(feature_BF)
    assert short_BF.shape == (6, HASHED)
    np.testing.assert_allclose(short_BF @ short_BF.T, feature_BF @ feature_BF.T, atol=0.15)
    few_BF = feature_BF[:, :MAX_UNHASHED]
    np.testing.assert_array_equal(hashed(few_BF), few_BF)
    bank = FeatureBank.fit(np.repeat(feature_BF, 30, axis=0), None)
    assert bank.num_features == 3 * MAX_UNHASHED + 5
    assert TypeAdapter(FeatureBank).validate_json(TypeAdapter(FeatureBank).dump_json(bank)) == bank
    np.testing.assert_allclose(bank.outside(feature_BF), 0, atol=1e-6)


def test_a_bank_without_rows_gives_all_distances_but_those_to_rows() -> None:
    feature_BF, label_B = clusters(features=140)
    bank = FeatureBank.fit(feature_BF, label_B)
    small = bank.without_rows()
    assert small.kept.shape == (1, bank.kept.shape[1])
    for name in ("mahalanobis", "relative_mahalanobis", "outside"):
        np.testing.assert_array_equal(
            getattr(small, name)(feature_BF), getattr(bank, name)(feature_BF)
        )


def test_features_that_never_vary_and_rows_of_zeros_have_finite_distances() -> None:
    feature_BF, label_B = clusters()
    feature_BF[:, 3] = 0.0
    bank = FeatureBank.fit(feature_BF, label_B)
    asked_BF = np.zeros((2, 12))
    asked_BF[1, 3] = 5.0
    for name in ("knn", "mahalanobis", "relative_mahalanobis"):
        assert np.isfinite(getattr(bank, name)(asked_BF)).all()


def test_features_that_vary_by_rounding_alone_are_constant() -> None:
    constant_BF = np.full((49, 4), 0.1)
    rounded_BF = constant_BF + np.where(np.arange(49)[:, None] % 2, 1e-17, 0.0)
    bank = FeatureBank.fit(rounded_BF, None)
    np.testing.assert_allclose(bank.mahalanobis(constant_BF), 0, atol=1e-9)


@pytest.mark.parametrize(
    ("feature_BF", "message"),
    [
        (np.zeros((1, 3)), "at least 2 rows set aside, got 1"),
        (np.zeros((4, MAX_FEATURES + 1)), "naming a smaller layer"),
        (np.full((4, 3), np.nan), "expected finite numbers"),
        (np.zeros(4), "got shape"),
    ],
)
def test_features_that_cannot_be_used_are_refused(feature_BF: Floats, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FeatureBank.fit(feature_BF, None)


def test_rows_of_another_width_are_refused() -> None:
    bank = FeatureBank.fit(*clusters())
    with pytest.raises(InputError, match="fitted on 12 features per row"):
        bank.knn(np.zeros((2, 11)))


@pytest.mark.parametrize(
    ("shape", "data", "message"),
    [((2,), "AAAA", "expects 16 bytes, got 3"), ((1,), "!", "expects base64")],
)
def test_a_damaged_array_is_refused(shape: tuple[int, ...], data: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PackedArray(shape, data)


def test_an_array_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InputError, match="finite"):
        PackedArray.of(np.array([1.0, np.inf]))


def test_surprise_is_minus_the_logarithm_of_the_conformal_p_value() -> None:
    score_B = np.random.default_rng(5).permutation(np.linspace(0.1, 9.0, 199))
    tail = Tail.fit("energy", score_B)
    expected = -np.log([(1 + (score_B >= one).sum()) / 200 for one in score_B])
    np.testing.assert_allclose(tail.surprise(score_B), expected, atol=1e-12)


@settings(deadline=None)
@example([0.0, 0.0, 0.0, 0.0, -19.0], [0.0, -3.969330579567542e-19])
@given(
    st.lists(st.floats(-100, 100), min_size=1, max_size=60),
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20),
)
def test_surprise_never_falls_as_the_score_rises(held_out: list[float], asked: list[float]) -> None:
    surprise_B = Tail.fit("energy", np.array(held_out)).surprise(np.sort(np.array(asked)))
    assert (np.diff(surprise_B) >= 0).all()
    assert (surprise_B >= 0).all()


def test_beyond_the_greatest_score_surprise_rises_as_the_tail_does() -> None:
    """Of exponential scores with mean 2 by 1 / 2 per unit, within 5 standard errors."""
    score_B = np.random.default_rng(6).exponential(2.0, size=4000)
    tail = Tail.fit("energy", score_B)
    high = score_B.max()
    rise = np.diff(tail.surprise(np.array([high, high + 1.0]))).item()
    assert rise == pytest.approx(0.5, rel=5 / 400**0.5)
