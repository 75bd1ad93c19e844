"""The draws: their distribution, and that they depend on (seed, site, t, place) alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from dubito.engine.calling.sampling import Draw
from dubito.engine.draws.masks import draw
from dubito.engine.draws.strata import remainder
from dubito_nn import Site

FALSE_ALARM = 1e-6


def site(distribution: str = "bernoulli", index: int = 0, drop_prob: float | None = 0.3) -> Site:
    return Site(
        index=index,
        operator="aten.native_dropout.default",
        distribution=distribution,  # type: ignore[arg-type]
        drop_prob=drop_prob if distribution == "bernoulli" else None,
        learned=False,
        shape=(50,),
        granularity="element",
        module_path="drop",
        batch_dim=0,
    )


@pytest.fixture(params=["iid", "stratified"])
def kind(request: pytest.FixtureRequest) -> Draw:
    return request.param


@pytest.mark.parametrize("drop_prob", [0.01, 0.1, 0.5, 0.9])
def test_bernoulli_draws_keep_with_the_stated_probability(drop_prob: float, kind: Draw) -> None:
    bits = draw(site(drop_prob=drop_prob), 1, range(200), (500,), kind=kind)
    kept = int(bits.sum())
    assert set(bits.unique().tolist()) <= {0.0, 1.0}
    assert stats.binomtest(kept, bits.numel(), 1 - drop_prob).pvalue > FALSE_ALARM


def test_a_draw_that_drops_a_block_keeps_with_its_own_probability(kind: Draw) -> None:
    block = replace(site(drop_prob=0.3), keep_prob=0.96)
    bits = draw(block, 1, range(200), (500,), kind=kind)
    assert stats.binomtest(int(bits.sum()), bits.numel(), 0.96).pvalue > FALSE_ALARM
    assert remainder(block) == pytest.approx(remainder(site(drop_prob=0.04)))


def test_bernoulli_draws_are_independent_over_units_and_samples() -> None:
    bits = draw(site(drop_prob=0.5), 2, range(400), (40,)).numpy()
    ones = bits.reshape(-1)
    for lag in (1, 40):  # the next unit, and the same unit of the next sample
        equal = int((ones[lag:] == ones[:-lag]).sum())
        assert stats.binomtest(equal, len(ones) - lag, 0.5).pvalue > FALSE_ALARM


def test_uniform_and_normal_draws_have_their_distributions(kind: Draw) -> None:
    uniform = draw(site("uniform"), 3, range(100), (100,), kind=kind).numpy().reshape(-1)
    normal = draw(site("normal"), 3, range(100), (100,), kind=kind).numpy().reshape(-1)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert stats.kstest(uniform, "uniform").pvalue > FALSE_ALARM
    assert stats.kstest(normal, "norm").pvalue > FALSE_ALARM


@pytest.mark.parametrize("distribution", ["bernoulli", "uniform", "normal"])
def test_the_first_32_of_64_samples_are_the_32(distribution: str, kind: Draw) -> None:
    few, many = (draw(site(distribution), 0, range(count), (7, 3), kind=kind) for count in (32, 64))
    assert torch.equal(few, many[:32])


@pytest.mark.parametrize("distribution", ["bernoulli", "uniform", "normal"])
@pytest.mark.parametrize("part", [range(4, 7), range(10, 20), range(15, 49), range(33, 34)])
def test_a_range_of_samples_is_part_of_the_whole(
    distribution: str, part: range, kind: Draw
) -> None:
    whole = draw(site(distribution), 0, range(50), (11,), kind=kind)
    got = draw(site(distribution), 0, part, (11,), kind=kind)
    assert torch.equal(got, whole[part.start : part.stop])


def test_a_range_of_rows_is_part_of_the_whole_for_independent_masks(kind: Draw) -> None:
    whole = draw(site(), 0, range(3), (5,), masks="independent", rows=range(9), kind=kind)
    part = draw(site(), 0, range(3), (5,), masks="independent", rows=range(3, 8), kind=kind)
    assert torch.equal(part, whole[:, 3:8])


def test_seed_site_sample_row_and_kind_each_change_the_draw(kind: Draw) -> None:
    size = (64,)
    base = draw(site(), 0, range(1), size, kind=kind)[0]
    rows = draw(site(), 0, range(1), size, masks="independent", rows=range(2), kind=kind)[0]
    others = [
        draw(site(), 1, range(1), size, kind=kind)[0],
        draw(site(index=1), 0, range(1), size, kind=kind)[0],
        draw(site(), 0, range(1, 2), size, kind=kind)[0],
        draw(site(), 0, range(16, 17), size, kind=kind)[0],
        rows[0],
        rows[1],
    ]
    everything = [base, *others]
    for position, one in enumerate(everything):
        assert not any(torch.equal(one, two) for two in everything[position + 1 :])


def test_the_dtype_does_not_change_the_draw(kind: Draw) -> None:
    for distribution in ("bernoulli", "uniform", "normal"):
        single, double = (
            draw(site(distribution), 5, range(20), (20,), kind=kind, dtype=dtype)
            for dtype in (torch.float32, torch.float64)
        )
        assert float((single.double() - double).abs().max()) < 1e-6


def test_draws_never_change_between_releases() -> None:
    bits = draw(site(drop_prob=0.5), 0, range(2), (16,)).numpy().astype(int)
    uniform = draw(site("uniform"), 7, range(1), (3,), dtype=torch.float64).numpy()[0]
    assert ["".join(map(str, row)) for row in bits] == GOLDEN_BITS
    even = draw(site(drop_prob=0.5), 0, range(2), (16,), kind="stratified").numpy().astype(int)
    assert ["".join(map(str, row)) for row in even] == GOLDEN_STRATIFIED_BITS
    np.testing.assert_allclose(uniform, GOLDEN_UNIFORM, rtol=0, atol=1e-15)


def test_the_largest_seed_is_drawn_with(kind: Draw) -> None:
    assert draw(site(), 2**63 - 1, range(1), (4,), kind=kind).shape == (1, 4)


GOLDEN_BITS = ["1110010011010100", "0111010011110101"]
GOLDEN_UNIFORM = [0.8720734548204873, 0.29536538151378355, 0.4200976785072422]

GOLDEN_STRATIFIED_BITS = ["0111101100111000", "0011100011101110"]
