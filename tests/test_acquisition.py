"""Scores and batches against brute force, and their properties."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from math import log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dubito.acquisition.batches import batchbald, gaussian, geometry
from dubito.acquisition.batches.picks import Picks
from dubito.acquisition.draws import gumbels, uniforms, words
from dubito.acquisition.strategies import bald, epig
from dubito.acquisition.strategies.least_confidence import least_confidence
from dubito.acquisition.strategies.margin import margin
from dubito.acquisition.strategies.mean_std import mean_std
from dubito.acquisition.strategies.power_bald import power_bald
from dubito.acquisition.strategies.variance import variance
from dubito.acquisition.top import TopK
from dubito.errors import InputError

Floats = NDArray[np.float64]
SEEDS = st.integers(0, 2**31)


def probs(seed: int, samples: int, rows: int, classes: int, certain: int | None = 0) -> Floats:
    """Probabilities of passes (T, B, C); one row is perfectly certain in every pass."""
    made = np.random.default_rng(seed).dirichlet(np.full(classes, 0.4), size=(samples, rows))
    if certain is not None:
        made[:, certain] = np.eye(classes)[1]
    return made


def entropy(p: Floats) -> float:
    used = p[p > 0]
    return float(-(used * np.log(used)).sum())


def information(p_TNC: Floats, batch: tuple[int, ...]) -> float:
    """MI of the labels of a batch and ω, summed over all their outcomes."""
    samples, _, classes = p_TNC.shape
    joint = []
    for outcome in itertools.product(range(classes), repeat=len(batch)):
        chances = [
            np.prod([p_TNC[t, row, label] for row, label in zip(batch, outcome, strict=True)])
            for t in range(samples)
        ]
        joint.append(np.mean(chances))
    given_omega = [np.mean([entropy(p_TNC[t, row]) for t in range(samples)]) for row in batch]
    return entropy(np.array(joint)) - float(np.sum(given_omega))


def greedy(gain: Callable[[tuple[int, ...]], float], rows: int, k: int) -> list[int]:
    batch: tuple[int, ...] = ()
    for _ in range(k):
        batch += (max((n for n in range(rows) if n not in batch), key=lambda n: gain((*batch, n))),)
    return list(batch)


def picks(rows: int, k: int, seed: int = 0) -> Picks:
    return Picks(k, words(seed, np.arange(rows)))


@pytest.mark.parametrize(("samples", "classes"), [(2, 2), (7, 3), (5, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_batchbald_is_the_greedy_batch_over_all_outcomes(
    seed: int, samples: int, classes: int
) -> None:
    rows, k = 6, 4
    p_TNC = probs(seed, samples, rows, classes)
    found = picks(rows, k)
    batchbald.choose(torch.from_numpy(p_TNC), found)
    for size in range(1, k + 1):
        exact = information(p_TNC, tuple(found.rows[:size]))
        assert sum(found.scores[:size]) == pytest.approx(exact, abs=1e-9)
        best = max(
            information(p_TNC, (*found.rows[: size - 1], n))
            for n in range(rows)
            if n not in found.rows[: size - 1]
        )
        assert exact == pytest.approx(best, abs=1e-9)


def test_batchbald_of_the_whole_pool_has_every_row_once_and_ends_with_the_certain_one() -> None:
    p_TNC = probs(0, 2, 8, 2)
    found = picks(8, 8)
    batchbald.choose(torch.from_numpy(p_TNC), found)
    assert sorted(found.rows) == list(range(8))
    assert np.isfinite(found.scores).all()
    assert found.scores[found.rows.index(0)] == pytest.approx(0, abs=1e-12)
    assert sum(found.scores) == pytest.approx(information(p_TNC, tuple(range(8))), abs=1e-9)
    assert sum(found.scores) <= log(2) + 1e-9  # two ω tell no more than which of them it is


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batchbald_on_a_gpu_is_that_on_the_cpu() -> None:
    """Beyond all outcomes that are kept, 4^6, configurations are drawn from the same numbers."""
    p_TNC = torch.from_numpy(probs(0, 16, 300, 4))
    moved_TNC = batchbald.placed(p_TNC, torch.device("cuda"))
    assert moved_TNC.is_cuda
    chosen = []
    for each_TNC in (p_TNC, moved_TNC):
        found = picks(300, 10)
        batchbald.choose(each_TNC, found, configurations=4096)
        chosen.append(found)
    assert chosen[0].rows == chosen[1].rows
    assert chosen[0].scores == pytest.approx(chosen[1].scores, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_drawn_configurations_agree_with_all_of_them(seed: int) -> None:
    """With 4,000 draws; the bound is five standard errors of a mean of entropies in [0, log C]."""
    p_TNC = torch.from_numpy(probs(seed, 8, 20, 3))
    drawn = batchbald.Configurations.none(8, 4000, seed, p_TNC)
    every = batchbald.Configurations.none(8, 10**6, seed, p_TNC)
    for row in range(1, 9):
        drawn.add(p_TNC[:, row])
        every.add(p_TNC[:, row])
    assert drawn.origins is not None
    assert every.origins is None
    assert len(every.weights) == 3**8
    gap_N = drawn.conditional_entropy(p_TNC) - every.conditional_entropy(p_TNC)
    assert float(gap_N.abs().max()) < 5 * 0.5 * log(3) / 4000**0.5
    assert float(every.weights.sum()) == pytest.approx(1)


def test_looking_only_where_a_bound_allows_finds_what_looking_everywhere_finds() -> None:
    generator = np.random.default_rng(3)
    points = generator.normal(size=(400, 5))
    logits = np.einsum("nf,tfc->tnc", points, generator.normal(size=(20, 5, 4)))
    p_TNC = torch.from_numpy(logits).softmax(-1)
    found = picks(400, 5)
    batchbald.choose(p_TNC, found)
    known = batchbald.Configurations.none(20, batchbald.CONFIGURATIONS, 0, p_TNC)
    expected_N = torch.special.entr(p_TNC).sum(-1).mean(0)
    for place, score in zip(found.rows, found.scores, strict=True):
        gain_N = known.conditional_entropy(p_TNC) - expected_N
        gain_N[[other for other in found.rows if other != place]] = -torch.inf
        assert int(gain_N.argmax()) == place
        assert float(gain_N[place]) == pytest.approx(score, abs=1e-9)
        known.add(p_TNC[:, place])


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, samples=st.integers(2, 6), classes=st.integers(2, 4), k=st.integers(1, 5))
def test_gains_of_batchbald_fall_and_never_pass_their_bounds(
    seed: int, samples: int, classes: int, k: int
) -> None:
    found = picks(6, k, seed)
    batchbald.choose(torch.from_numpy(probs(seed, samples, 6, classes)), found)
    assert len(set(found.rows)) == k
    assert all(-1e-9 <= score <= log(classes) + 1e-9 for score in found.scores)
    assert all(a >= b - 1e-9 for a, b in itertools.pairwise(found.scores))
    assert sum(found.scores) <= log(samples) + 1e-9


def test_batches_of_batchbald_hold_few_near_copies_where_bald_takes_them_together() -> None:
    """A pool in which every row is there three times, with noise of 0.1."""
    generator = np.random.default_rng(0)
    base = generator.normal(size=(100, 8))
    points = np.repeat(base, 3, axis=0) + 0.1 * generator.normal(size=(300, 8))
    weights = generator.normal(size=(40, 8, 6)) + generator.normal(size=(8, 6))
    p_TNC = torch.from_numpy(np.einsum("nf,tfc->tnc", points, weights)).softmax(-1)
    information_N = torch.special.entr(p_TNC.mean(0)).sum(-1) - torch.special.entr(p_TNC).sum(
        -1
    ).mean(0)
    copies: dict[str, list[int]] = {"batchbald": [], "bald": []}
    for trial in range(3):
        some = np.sort(generator.choice(100, 60, replace=False))
        rows = (3 * some[:, None] + np.arange(3)).ravel()
        found = picks(len(rows), 10, trial)
        batchbald.choose(p_TNC[:, rows], found, seed=trial, configurations=1500)
        top = information_N[rows].argsort(descending=True)[:10].numpy()
        for name, places in (("batchbald", np.array(found.rows)), ("bald", top)):
            copies[name].append(10 - len(set((rows[places] // 3).tolist())))
    shares = {name: sum(counts) / 30 for name, counts in copies.items()}
    print(f"near copies in a batch: {shares}")
    assert shares["batchbald"] <= 0.05
    assert shares["bald"] >= 0.25


@pytest.mark.parametrize(("samples", "classes"), [(2, 2), (6, 3)])
def test_epig_is_the_sum_over_all_pairs_of_labels(
    samples: int, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    p_TBC, q_TMC = probs(1, samples, 5, classes), probs(2, samples, 4, classes, certain=3)
    expected = [
        np.mean(
            [
                entropy(p_TBC[:, b].mean(0))
                + entropy(q_TMC[:, m].mean(0))
                - entropy(np.einsum("ty,tz->yz", p_TBC[:, b], q_TMC[:, m]).ravel() / samples)
                for m in range(4)
            ]
        )
        for b in range(5)
    ]
    for table_bytes in (2**25, 8 * classes**2 * 4):  # at once, and in pieces of two rows
        monkeypatch.setattr(epig, "_TABLE_BYTES", table_bytes)
        found = epig.classification(torch.from_numpy(p_TBC), torch.from_numpy(q_TMC))
        np.testing.assert_allclose(found, np.maximum(expected, 0), atol=1e-9)
    assert float(found[0]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("outputs", [1, 2])
def test_epig_of_numbers_is_the_information_of_a_gaussian_pair(outputs: int) -> None:
    generator = np.random.default_rng(4)
    f_TBD, g_TMD = generator.normal(size=(30, 5, outputs)), generator.normal(size=(30, 3, outputs))
    g_TMD += f_TBD[:, :1]
    noise_BD = generator.uniform(0.1, 1, size=(5, outputs))
    noise_MD = generator.uniform(0.1, 1, size=(3, outputs))
    found = epig.regression(*map(torch.from_numpy, (f_TBD, noise_BD, g_TMD, noise_MD)))
    for b in range(5):
        pairs = []
        for m in range(3):
            cov = np.cov(np.hstack([f_TBD[:, b], g_TMD[:, m]]).T, bias=True)
            cov = cov + np.diag(np.concatenate([noise_BD[b], noise_MD[m]]))
            own, other = cov[:outputs, :outputs], cov[outputs:, outputs:]
            determinants = [np.linalg.slogdet(part)[1] for part in (own, other, cov)]
            pairs.append(0.5 * (determinants[0] + determinants[1] - determinants[2]))
        assert float(found[b]) == pytest.approx(np.mean(pairs), abs=1e-9)


@pytest.mark.parametrize("outputs", [1, 2])
def test_batchbald_of_numbers_is_the_greedy_log_determinant(outputs: int) -> None:
    generator = np.random.default_rng(5)
    f_TND = generator.normal(size=(12, 7, outputs))
    f_TND[:, 3] = f_TND[:, 2]  # a copy
    f_TND[:, 4] = 1.0  # certain
    noise_ND = generator.uniform(0.05, 0.2, size=(7, outputs))

    def gain(batch: tuple[int, ...]) -> float:
        flat = f_TND[:, list(batch)].reshape(12, -1)
        noise = noise_ND[list(batch)].ravel()
        cov = np.atleast_2d(np.cov(flat.T, bias=True)) + np.diag(noise)
        return 0.5 * float(np.linalg.slogdet(cov)[1] - np.log(noise).sum())

    found = picks(7, 7)
    gaussian.choose(torch.from_numpy(f_TND), torch.from_numpy(noise_ND), found)
    assert found.rows == greedy(gain, 7, 7)
    for size in range(1, 8):
        expected = gain(tuple(found.rows[:size]))
        assert sum(found.scores[:size]) == pytest.approx(expected, abs=1e-9)
    assert found.rows[-1] == 4


def test_scores_of_single_rows_agree_with_their_formulas() -> None:
    mean_BC = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [1 / 3] * 3])
    np.testing.assert_allclose(least_confidence(mean_BC), [0.5, 0, 2 / 3])
    np.testing.assert_allclose(margin(mean_BC), [-0.2, -1, 0], atol=1e-12)
    variance_BC = np.array([[0.04, 0.09], [0.0, 0.0]])
    np.testing.assert_allclose(mean_std(variance_BC), [0.25, 0])
    np.testing.assert_allclose(variance(variance_BC), [0.13, 0])
    noise_BD = np.full((2, 2), 0.5)
    np.testing.assert_allclose(bald.bald(variance_BC, noise_BD), [0.5 * (log(1.08) + log(1.18)), 0])


def test_the_noise_of_a_target_is_the_network_s_own_or_given_or_a_hundredth_of_the_scale() -> None:
    none_BD, scale_D = np.zeros((2, 2)), np.array([3.0, 0.5])
    np.testing.assert_allclose(bald.noise_of(none_BD, None, scale_D), [[0.09, 0.0025]] * 2)
    np.testing.assert_allclose(bald.noise_of(none_BD, 0.7, scale_D), np.full((2, 2), 0.7))
    own_BD = np.array([[0.3, 1e-12], [0.0, 2.0]])
    found_BD = bald.noise_of(own_BD, None, scale_D)
    assert (found_BD > 0).all()
    np.testing.assert_allclose(found_BD, own_BD, atol=1e-300)


def test_power_bald_draws_rows_in_proportion_to_their_information() -> None:
    """Of 4,000 seeds; five standard errors of a share."""
    information_B = np.array([0.0, 0.1, 0.3, 0.6])
    first = [power_bald(information_B, words(seed, np.arange(4))).argmax() for seed in range(4_000)]
    share = np.bincount(first, minlength=4) / 4_000
    assert np.abs(share - information_B).max() < 5 * 0.5 / 4_000**0.5
    assert share[0] == 0


def test_core_set_takes_the_farthest_row_again_and_again() -> None:
    points = np.array([[0.0], [1.0], [4.0], [10.0], [11.0]])
    found = picks(5, 3)
    geometry.core_set(points, np.array([[0.0]]), found)
    assert found.rows == [4, 2, 1]
    assert found.scores == pytest.approx([11, 4, 1])
    assert geometry.core_set(points, np.empty((0, 1)), alone := picks(5, 1)) is None
    assert alone.rows == [4]  # the farthest from the mean, 5.2


def test_distances_of_badge_are_those_of_the_gradients() -> None:
    generator = np.random.default_rng(7)
    mean_NC, features_NF = generator.dirichlet(np.ones(3), 9), generator.normal(size=(9, 4))
    slope_NC = mean_NC - np.eye(3)[mean_NC.argmax(1)]
    gradients = np.einsum("nc,nf->ncf", slope_NC, features_NF).reshape(9, -1)
    found = picks(9, 9)
    geometry.badge(mean_NC, features_NF, found, seed=3)
    assert sorted(found.rows) == list(range(9))
    assert found.rows[0] == np.square(gradients).sum(1).argmax()
    for turn in range(1, 9):
        to_chosen = gradients[found.rows[:turn]] - gradients[found.rows[turn]]
        nearest = np.square(to_chosen).sum(1).min()
        assert found.scores[turn] == pytest.approx(nearest, abs=1e-9)


def test_weighted_k_means_takes_one_row_of_every_cluster() -> None:
    generator = np.random.default_rng(8)
    features_NF = np.repeat(np.eye(4) * 10, 5, axis=0) + 0.1 * generator.normal(size=(20, 4))
    found = picks(20, 4)
    geometry.k_means(features_NF, np.linspace(1, 2, 20), found, seed=0)
    assert sorted(place // 5 for place in found.rows) == [0, 1, 2, 3]


def test_centres_of_k_means_lie_where_the_scores_are_high() -> None:
    found = picks(3, 1)
    geometry.k_means(np.array([[0.0], [4.0], [10.0]]), np.array([-9.0, -8.0, 0.0]), found, seed=0)
    assert found.rows == [2]  # the centre is 9.4; weighted evenly it were 4.7, by losses 1.9


def test_badge_draws_open_rows_in_proportion_to_their_distances() -> None:
    """Of 4,000 draws; five standard errors of a share."""
    weight_N, batch = np.array([1.0, 2.0, 0.0, 5.0, 2.0]), picks(5, 2)
    batch.take(4, 0.0)
    generator = np.random.Generator(np.random.Philox(key=1))
    drawn = [geometry._drawn(weight_N, batch, generator) for _ in range(4_000)]
    share = np.bincount(drawn, minlength=5) / 4_000
    assert np.abs(share - [1 / 8, 2 / 8, 0, 5 / 8, 0]).max() < 5 * 0.5 / 4_000**0.5
    assert share[[2, 4]].tolist() == [0, 0]


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, rows=st.integers(1, 60), k=st.integers(1, 60), size=st.integers(1, 20))
def test_the_best_of_a_stream_are_the_best_of_the_whole_whatever_the_chunks(
    seed: int, rows: int, k: int, size: int
) -> None:
    generator = np.random.default_rng(seed)
    scores_N = generator.integers(0, 5, rows).astype(float)
    scores_N[generator.random(rows) < 0.1] = np.nan
    labels_N, words_N = generator.integers(0, 3, rows), words(seed, np.arange(rows))
    for per_class in (None, 2):
        keeper, whole = TopK(k, per_class), TopK(k, per_class)
        whole.add(scores_N, words_N, np.arange(rows), labels_N)
        for start in range(0, rows, size):
            part = slice(start, start + size)
            keeper.add(scores_N[part], words_N[part], np.arange(rows)[part], labels_N[part])
        assert keeper.indices.tolist() == whole.indices.tolist()
        assert np.isfinite(keeper.scores).all()
    order = sorted(
        np.flatnonzero(np.isfinite(scores_N)), key=lambda n: (-scores_N[n], -int(words_N[n]))
    )
    best = TopK(k)
    best.add(scores_N, words_N, np.arange(rows), labels_N)
    assert best.indices.tolist() == order[:k]


def test_words_hang_on_seed_and_index_alone_and_their_numbers_are_spread_evenly() -> None:
    """100,000 numbers: Kolmogorov distance below 1.95 / sqrt(n), false alarms 1 in 1,000."""
    indices = np.arange(100_000)
    many = words(5, indices)
    assert (many[500:600] == words(5, indices[500:600])).all()
    assert len(np.unique(many)) == len(many)
    assert (many != words(6, indices)).mean() > 0.99
    ordered = np.sort(uniforms(many))
    assert np.abs(ordered - (indices + 0.5) / len(indices)).max() < 1.95 / len(indices) ** 0.5
    assert gumbels(many).mean() == pytest.approx(np.euler_gamma, abs=5 * 1.283 / 1e5**0.5)


def test_a_tie_is_broken_by_the_seed_alone() -> None:
    chosen = set()
    for seed in range(20):
        found = picks(5, 1, seed)
        batchbald.choose(torch.full((3, 5, 2), 0.5, dtype=torch.float64), found)
        chosen.add(found.rows[0])
    assert len(chosen) > 1


def test_a_class_gives_no_more_rows_than_it_may() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    found = Picks(4, words(0, np.arange(6)), labels, per_class=2)
    batchbald.choose(torch.from_numpy(probs(1, 5, 6, 3, certain=None)), found)
    assert np.bincount(labels[found.rows]).max() <= 2
    full = Picks(4, words(0, np.arange(6)), labels, per_class=1)
    with pytest.raises(InputError, match="at most 1 of a predicted class"):
        batchbald.choose(torch.from_numpy(probs(1, 5, 6, 3)), full)


def test_the_rows_of_a_full_class_hide_no_others_from_batchbald() -> None:
    told_TC = torch.tensor([[0.95, 0.05], [0.05, 0.95]] * 4, dtype=torch.float64)
    dull_TC = torch.tensor([[0.4, 0.6], [0.45, 0.55]] * 4, dtype=torch.float64)
    full = batchbald._FIRST_LOOK
    probs_TNC = torch.stack([told_TC] * full + [dull_TC] * 5, dim=1)
    labels_N = np.repeat([0, 1], [full, 5])
    found = Picks(2, words(0, np.arange(full + 5)), labels_N, per_class=1)
    batchbald.choose(probs_TNC, found)
    assert found.rows[0] < full <= found.rows[1]
