"""Stratified draws: one number per stratum and block, and one sample alone as if independent."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
import torch
from scipy import stats

from dubito.engine.draws.masks import draw
from dubito.engine.draws.strata import BLOCK, permutations, remainder
from dubito_nn import Site

FALSE_ALARM = 1e-6  # of each test of a hypothesis; about a hundred are made here


def site(distribution: str = "bernoulli", drop_prob: float | None = 0.3) -> Site:
    return Site(
        index=0,
        operator="aten.native_dropout.default",
        distribution=distribution,  # type: ignore[arg-type]
        drop_prob=drop_prob if distribution == "bernoulli" else None,
        learned=False,
        shape=(50,),
        granularity="element",
        module_path="drop",
        batch_dim=0,
    )


@pytest.mark.parametrize("masks", ["shared", "independent"])
def test_every_block_has_one_uniform_number_in_each_stratum(masks: str) -> None:
    drawn = draw(
        site("uniform"),
        3,
        range(3 * BLOCK),
        (40,),
        masks=masks,  # type: ignore[arg-type]
        rows=range(5),
        kind="stratified",
    )
    strata = (drawn.reshape(3, BLOCK, -1) * BLOCK).floor().sort(dim=1).values
    assert torch.equal(strata, torch.arange(16.0)[None, :, None].expand_as(strata))


@pytest.mark.parametrize("drop_prob", [0.01, 0.1, 0.25, 0.3, 0.5, 0.97])
def test_a_unit_is_dropped_in_a_block_as_often_as_16_p_rounded_down_or_up(drop_prob: float) -> None:
    bits = draw(site(drop_prob=drop_prob), 1, range(4 * BLOCK), (500,), kind="stratified")
    dropped = BLOCK - bits.reshape(4, BLOCK, -1).sum(1)
    exact = BLOCK * drop_prob
    assert set(dropped.unique().tolist()) <= {np.floor(exact), np.ceil(exact)}
    spread = BLOCK * drop_prob * (1 - drop_prob)
    fraction = exact - np.floor(exact)
    assert remainder(site(drop_prob=drop_prob)) == pytest.approx(fraction * (1 - fraction) / spread)


@pytest.mark.parametrize("drop_prob", [0.1, 0.5])
def test_every_sample_alone_is_independent_bernoulli_over_units(drop_prob: float) -> None:
    """Per sample: the share kept, neighbours, units two apart, and words of four units."""
    bits = draw(site(drop_prob=drop_prob), 5, range(BLOCK + 3), (40_000,), kind="stratified")
    both = (1 - drop_prob) ** 2
    for sample in bits.numpy().astype(int):
        count = len(sample)
        assert stats.binomtest(int(sample.sum()), count, 1 - drop_prob).pvalue > FALSE_ALARM
        for lag in (1, 2):
            pairs = sample[: count // (2 * lag) * 2 * lag].reshape(-1, 2, lag)
            kept = int((pairs[:, 0] * pairs[:, 1]).sum())
            assert stats.binomtest(kept, pairs[:, 0].size, both).pvalue > FALSE_ALARM
        ones = sample.reshape(-1, 4).sum(1)
        expected = [comb(4, k) * (1 - drop_prob) ** k * drop_prob ** (4 - k) for k in range(5)]
        seen = np.bincount(ones, minlength=5)
        assert stats.chisquare(seen, np.array(expected) * len(ones)).pvalue > FALSE_ALARM


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_every_sample_alone_has_its_distribution(distribution: str) -> None:
    drawn = draw(site(distribution), 6, range(BLOCK), (5000,), kind="stratified").numpy()
    name = {"uniform": "uniform", "normal": "norm"}[distribution]
    for sample in drawn:
        assert stats.kstest(sample, name).pvalue > FALSE_ALARM


def test_orders_are_permutations_and_any_two_places_hold_any_two_strata() -> None:
    words = np.random.Philox(key=4).random_raw(48_000)
    order = permutations(words)
    assert (np.sort(order, axis=0) == np.arange(BLOCK)[:, None]).all()
    for one in range(BLOCK):
        for other in range(one):
            cells = np.bincount(order[one].astype(int) * BLOCK + order[other], minlength=256)
            seen = cells.reshape(BLOCK, BLOCK)[~np.eye(BLOCK, dtype=bool)]
            assert stats.chisquare(seen).pvalue > FALSE_ALARM


def test_all_orders_of_three_strata_are_equally_frequent() -> None:
    order = permutations(np.random.Philox(key=5).random_raw(100_000))
    places = np.argsort(order[[2, 9, 14]], axis=0)
    seen = np.unique(places.T @ [9, 3, 1], return_counts=True)[1]
    assert len(seen) == 6
    assert stats.chisquare(seen).pvalue > FALSE_ALARM


@pytest.mark.parametrize(
    ("distribution", "drop_prob"),
    [("uniform", None), ("normal", None), *(("bernoulli", p) for p in (0.01, 0.1, 0.3, 0.97))],
)
def test_the_mean_of_a_block_keeps_the_share_of_the_variance_that_is_stated(
    distribution: str, drop_prob: float | None
) -> None:
    """Of 40,000 units, whose variance is known to 1.5 % or better: five times that is allowed."""
    asked = site(distribution, drop_prob)
    drawn = draw(asked, 7, range(BLOCK), (40_000,), kind="stratified").double()
    p = drop_prob or 0.0
    one = {"uniform": 1 / 12, "normal": 1.0, "bernoulli": p * (1 - p)}[distribution]
    left = BLOCK * float(drawn.mean(0).var()) / one
    assert left == pytest.approx(remainder(asked), rel=0.075)


def test_large_sites_are_drawn_alike_when_they_are_too_large_to_be_remembered() -> None:
    size = (3_000_000,)
    whole = draw(site(), 8, range(2), size, kind="stratified")
    assert torch.equal(draw(site(), 8, range(1, 2), size, kind="stratified")[0], whole[1])
