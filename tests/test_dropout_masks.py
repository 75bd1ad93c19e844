"""Masks of the layers: their distribution, what shares a number, and what they keep."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from dubito_nn import dropout as d
from dubito_nn.training import seeded

FALSE_ALARM = 1e-6  # of every statistical test here


def _draw(layer: nn.Module, x: Tensor, seed: int = 0) -> Tensor:
    with seeded(seed), torch.no_grad():
        output: Tensor = layer.train()(x)
    return output


def _assert_binomial(dropped: Tensor, drop_prob: float) -> None:
    count = int(dropped.sum())
    assert stats.binomtest(count, dropped.numel(), drop_prob).pvalue > FALSE_ALARM


def _assert_mean(values: Tensor, expected: float) -> None:
    values = values.double()
    error = values.std() / values.numel() ** 0.5
    assert abs((values.mean() - expected) / error) < stats.norm.isf(FALSE_ALARM / 2)


ELEMENTS: dict[str, tuple[Callable[[float], nn.Module], tuple[int, ...]]] = {
    "standard": (d.Dropout, (4000, 10)),
    "original": (d.OriginalDropout, (4000, 10)),
    "spatial 1d": (d.SpatialDropout1d, (4000, 10, 3)),
    "spatial 2d": (d.SpatialDropout2d, (4000, 10, 2, 2)),
    "spatial 3d": (d.SpatialDropout3d, (4000, 10, 2, 1, 2)),
    "alpha": (d.AlphaDropout, (4000, 10)),
    "feature alpha": (d.FeatureAlphaDropout, (4000, 10, 2, 2)),
    "time-tied": (d.TimeTiedDropout, (4000, 3, 10)),
    "token": (d.TokenDropout, (4000, 10, 3)),
    "stochastic depth": (d.StochasticDepth, (40_000, 2, 3)),
}


def _linear(size: int) -> nn.Linear:
    """The identity."""
    layer = nn.Linear(size, size, bias=False)
    nn.init.eye_(layer.weight)
    return layer


def _one_number_each(name: str, output: Tensor) -> Tensor:
    """The output where every entry has a random number of its own."""
    if name.startswith(("spatial", "feature")):
        return output.flatten(2)[:, :, 0]
    if name == "time-tied":
        return output[:, 0]
    if name == "token":
        return output[:, :, 0]
    return output[:, 0, 0] if name == "stochastic depth" else output


@pytest.mark.parametrize("drop_prob", [0.1, 0.5])
@pytest.mark.parametrize("name", list(ELEMENTS))
def test_the_share_of_dropped_numbers_is_binomial(name: str, drop_prob: float) -> None:
    make, shape = ELEMENTS[name]
    output = _one_number_each(name, _draw(make(drop_prob), torch.ones(shape)))
    kept = output.max()
    assert output.unique().numel() == 2
    _assert_binomial(output < 0.5 * kept, drop_prob)


@pytest.mark.parametrize("drop_prob", [0.1, 0.5])
def test_the_share_of_dropped_weights_is_binomial(drop_prob: float) -> None:
    layer = nn.Linear(200, 200, bias=False)
    nn.init.ones_(layer.weight)
    weight = _draw(d.DropConnect(layer, drop_prob), torch.eye(200))  # one weight per entry
    _assert_binomial(weight == 0, drop_prob)
    per_row = _draw(d.DropConnect(layer, drop_prob, per="row"), torch.eye(200))
    _assert_binomial(per_row == 0, drop_prob)


KEEP_THE_MEAN = [
    d.Dropout(0.3),
    d.GaussianDropout(0.3),
    d.LearnedGaussianDropout(10),
    d.AlphaDropout(0.3),
    d.DropConnect(_linear(10), 0.3, per="row"),
    d.DropBlock1d(0.3, 1),
    d.SpatialDropout1d(0.3),
    d.TimeTiedDropout(0.3),
    d.TokenDropout(0.3),
    d.StochasticDepth(0.3),
]


@pytest.mark.parametrize("layer", KEEP_THE_MEAN, ids=lambda layer: type(layer).__name__)
def test_the_expectation_is_kept(layer: nn.Module) -> None:
    three_axes = isinstance(
        layer, d.DropBlock1d | d.SpatialDropout1d | d.TimeTiedDropout | d.TokenDropout
    )
    x = torch.ones(20_000, *((3, 10) if three_axes else (10,)))
    if isinstance(layer, d.AlphaDropout):
        with seeded(5):
            x = torch.randn(x.shape)
    difference = (_draw(layer, x) - x).flatten(1)[:, 0]  # one entry per row: independent
    _assert_mean(difference, 0.0)


@pytest.mark.parametrize("drop_prob", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("kind", [d.AlphaDropout, d.FeatureAlphaDropout])
def test_alpha_dropout_keeps_mean_and_variance(kind: type[nn.Module], drop_prob: float) -> None:
    with seeded(1):
        x = torch.randn(100_000, 1, dtype=torch.float64)
    y = _draw(kind(drop_prob), x)
    _assert_mean(y, 0.0)
    _assert_mean(y.square(), 1.0)


def test_alpha_dropout_is_that_of_torch_for_the_same_draws() -> None:
    x = torch.linspace(-1.0, 2.0, 50).reshape(5, 10)
    torch.testing.assert_close(_draw(d.AlphaDropout(0.4), x), _draw(nn.AlphaDropout(0.4), x))


@pytest.mark.parametrize("drop_prob", [0.1, 0.5])
def test_gaussian_noise_has_the_variance_of_dropout(drop_prob: float) -> None:
    noise = _draw(d.GaussianDropout(drop_prob), torch.ones(100_000, dtype=torch.float64)) - 1
    _assert_mean(noise.square(), drop_prob / (1 - drop_prob))
    scaled = noise / math.sqrt(drop_prob / (1 - drop_prob))
    assert stats.kstest(scaled.numpy(), "norm").pvalue > FALSE_ALARM


def test_learned_gaussian_noise_starts_with_the_variance_of_dropout() -> None:
    layer = d.LearnedGaussianDropout(1, drop_prob_init=0.3)
    assert layer.drop_prob.item() == pytest.approx(0.3)
    noise = _draw(layer, torch.ones(100_000, 1)) - 1
    _assert_mean(noise.square(), 0.3 / 0.7)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (d.SpatialDropout1d(0.5), (6, 4, 5)),
        (d.SpatialDropout2d(0.5), (6, 4, 3, 3)),
        (d.SpatialDropout3d(0.5), (6, 4, 2, 2, 2)),
        (d.FeatureAlphaDropout(0.5), (6, 4, 3, 3)),
        (d.ConcreteDropout1d(4, drop_prob_init=0.5), (6, 4, 5)),
    ],
)
def test_channels_go_whole_and_each_for_itself(layer: nn.Module, shape: tuple[int, ...]) -> None:
    output = _draw(layer, torch.ones(shape)).flatten(2)
    assert torch.equal(output, output[:, :, :1].expand_as(output))
    assert output[:, :, 0].unique(dim=0).shape[0] > 1
    assert output[:, :, 0].unique(dim=1).shape[1] > 1


def test_a_time_tied_mask_is_equal_over_time_and_differs_over_sequences() -> None:
    output = _draw(d.TimeTiedDropout(0.5), torch.ones(8, 7, 16))
    assert torch.equal(output, output[:, :1].expand_as(output))
    assert output[:, 0].unique(dim=0).shape[0] == 8


def test_token_dropout_takes_whole_vectors_each_occurrence_for_itself() -> None:
    output = _draw(d.TokenDropout(0.5), torch.ones(8, 16, 3))
    assert torch.equal(output, output[:, :, :1].expand_as(output))
    assert output[:, :, 0].unique(dim=0).shape[0] == 8


def test_stochastic_depth_drops_rows_or_the_whole_batch() -> None:
    per_row = _draw(d.StochasticDepth(0.5), torch.ones(64, 2, 3))
    assert torch.equal(per_row, per_row[:, :1, :1].expand_as(per_row))
    assert per_row.unique().tolist() == [0.0, 2.0]
    layer = d.StochasticDepth(0.5, per="batch")
    seen = {_draw(layer, torch.ones(64, 2), seed).unique().item() for seed in range(20)}
    assert seen == {0.0, 2.0}


@pytest.mark.parametrize("kind", [d.Dropout, d.OriginalDropout, d.SpatialDropout1d, d.TokenDropout])
def test_p_of_0_changes_nothing_and_p_of_1_leaves_nothing(kind: type[nn.Module]) -> None:
    x = torch.randn(3, 4, 5)
    assert torch.equal(_draw(kind(0.0), x), x)
    assert not _draw(kind(1.0), x).any()


def test_the_original_form_scales_at_test_time_what_it_kept_in_training() -> None:
    x = torch.randn(3, 4)
    assert torch.equal(d.OriginalDropout(0.3).eval()(x), x * 0.7)
    dropped = _draw(d.OriginalDropout(0.3), x)
    assert torch.equal(dropped[dropped != 0], x[dropped != 0])


def test_the_inverted_form_is_that_of_torch() -> None:
    x = torch.randn(3, 40)
    assert torch.equal(_draw(d.Dropout(0.3), x), _draw(nn.Dropout(0.3), x))


# DropBlock


def _squares(seeds: Tensor, size: int) -> Tensor:
    """Slow reference: the places that blocks with these top-left corners cover."""
    rows, columns = seeds.shape
    covered = torch.zeros(rows + size - 1, columns + size - 1)
    for i in range(rows):
        for j in range(columns):
            if seeds[i, j]:
                covered[i : i + size, j : j + size] = 1
    return covered


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_dropblock_drops_unions_of_whole_blocks_and_scales_by_the_count_of_the_row(
    size: int,
) -> None:
    x = torch.ones(8, 3, 6, 6)
    with seeded(2):
        layer = d.DropBlock2d(0.4, size)
        seeds = 1 - torch.bernoulli(
            torch.zeros(8, 3, 7 - size, 7 - size), 1 - layer.seed_prob((6, 6))
        )
    output = _draw(layer, x, 2)
    for row in range(8):
        mask = 1 - torch.stack([_squares(seeds[row, k], size) for k in range(3)])
        expected = mask * (mask.numel() / mask.sum().clamp_min(1))
        torch.testing.assert_close(output[row], expected)


def test_dropblock_of_size_1_is_standard_dropout_scaled_by_the_count() -> None:
    layer = d.DropBlock2d(0.3, 1)
    assert layer.seed_prob((5, 5)) == pytest.approx(0.3)
    output = _draw(layer, torch.ones(400, 2, 5, 5)).flatten(1)
    dropped = output == 0
    _assert_binomial(dropped, 0.3)
    # entries are independent: the counts per row are binomial, too
    counts = dropped.sum(1).numpy()
    expected = stats.binom(50, 0.3)
    spans = list(itertools.pairwise([0, *range(11, 20), 51]))
    observed = [((counts >= low) & (counts < high)).sum() for low, high in spans]
    share = [expected.cdf(high - 1) - expected.cdf(low - 1) for low, high in spans]
    assert stats.chisquare(observed, [400 * s for s in share]).pvalue > FALSE_ALARM


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(d.DropBlock2d(0.3, 4), (5000, 4, 4, 4)), (d.DropBlock1d(0.3, 4), (5000, 4, 4))],
)
def test_dropblock_of_full_size_is_spatial_dropout_scaled_by_the_count(
    layer: d.DropBlock2d | d.DropBlock1d, shape: tuple[int, ...]
) -> None:
    assert layer.seed_prob(shape[2:]) == pytest.approx(0.3)
    output = _draw(layer, torch.ones(shape)).flatten(2)
    assert torch.equal(output, output[:, :, :1].expand_as(output))
    _assert_binomial(output[:, :, 0] == 0, 0.3)


@pytest.mark.parametrize("size", [2, 3])
def test_an_inner_place_is_dropped_when_any_of_its_blocks_has_a_seed(size: int) -> None:
    layer = d.DropBlock2d(0.3, size)
    output = _draw(layer, torch.ones(20_000, 1, 7, 7))
    _assert_binomial(output[:, 0, 3, 3] == 0, 1 - (1 - layer.seed_prob((7, 7))) ** (size * size))


def test_dropblock_keeps_rows_apart() -> None:
    x = torch.ones(4, 2, 5, 5)
    other = torch.cat([torch.full_like(x[:1], 9.0), x[1:]])
    layer = d.DropBlock2d(0.3, 2)
    assert torch.equal(_draw(layer, x, 3)[1:], _draw(layer, other, 3)[1:])


# Words


def test_every_occurrence_of_a_dropped_word_goes() -> None:
    token_BL = torch.tensor([[1, 2, 1, 3, 1], [3, 3, 2, 1, 0]])
    embedding = nn.Embedding(4, 3)
    nn.init.ones_(embedding.weight)
    layer = d.WordTypeDropout(embedding, 0.5)
    differ = False
    for seed in range(20):
        kept_BL = _draw(layer, token_BL, seed)[:, :, 0]
        for row in range(2):
            for word in token_BL[row].unique():
                assert kept_BL[row][token_BL[row] == word].unique().numel() == 1
        differ |= bool(kept_BL[0, 1] != kept_BL[1, 2])  # word 2 in both rows
        batch = _draw(d.WordTypeDropout(embedding, 0.5, per="batch"), token_BL, seed)[:, :, 0]
        assert batch[0, 1] == batch[1, 2]
    assert differ


@pytest.mark.parametrize("per", ["row", "batch"])
def test_the_share_of_dropped_words_is_binomial(per: d.masks.Per) -> None:
    embedding = nn.Embedding(20_000, 1)
    nn.init.ones_(embedding.weight)
    output = _draw(d.WordTypeDropout(embedding, 0.2, per), torch.arange(20_000)[None])
    _assert_binomial(output == 0, 0.2)
    assert output.max().item() == pytest.approx(1.25)


def test_unknown_words_take_the_place_of_dropped_ones() -> None:
    token_BL = torch.randint(1, 9, (200, 100))
    output = _draw(d.UnknownWordDropout(0, 0.2), token_BL)
    assert output.dtype == torch.int64
    assert torch.equal(output[output != 0], token_BL[output != 0])
    _assert_binomial(output == 0, 0.2)


def test_a_dropped_position_leaves_the_content() -> None:
    layer = d.PositionalDropout(200, 3, 0.2)
    nn.init.ones_(layer.positions.weight)
    x = torch.randn(50, 100, 3)
    added = _draw(layer, x) - x
    torch.testing.assert_close(added, added[:, :, :1].expand_as(added), atol=1e-5, rtol=0)
    _assert_binomial(added[:, :, 0].abs() < 0.5, 0.2)
    torch.testing.assert_close(layer.eval()(x), x + 1)
