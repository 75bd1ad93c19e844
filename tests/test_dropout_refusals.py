"""Bad input to the layers is refused with what was expected, what came, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dubito_nn import ExportError, export
from dubito_nn import dropout as d
from dubito_nn.training import EarlyStopping

WITH_P: dict[str, Callable[[float], nn.Module]] = {
    "Dropout": d.Dropout,
    "OriginalDropout": d.OriginalDropout,
    "SpatialDropout1d": d.SpatialDropout1d,
    "SpatialDropout2d": d.SpatialDropout2d,
    "SpatialDropout3d": d.SpatialDropout3d,
    "DropBlock1d": d.DropBlock1d,
    "DropBlock2d": d.DropBlock2d,
    "GaussianDropout": d.GaussianDropout,
    "AlphaDropout": d.AlphaDropout,
    "FeatureAlphaDropout": d.FeatureAlphaDropout,
    "TimeTiedDropout": d.TimeTiedDropout,
    "TokenDropout": d.TokenDropout,
    "StochasticDepth": d.StochasticDepth,
    "DropConnect": lambda p: d.DropConnect(nn.Linear(2, 2), p),
    "TargetedWeightDropout": lambda p: d.TargetedWeightDropout(nn.Linear(2, 2), 0.5, p),
    "TargetedUnitDropout": lambda p: d.TargetedUnitDropout(nn.Linear(2, 2), 0.5, p),
    "TargetedActivationDropout": lambda p: d.TargetedActivationDropout(0.5, p),
    "VariationalLSTM": lambda p: d.VariationalLSTM(2, 2, p),
    "VariationalGRU": lambda p: d.VariationalGRU(2, 2, p),
    "RecurrentDropoutLSTM": lambda p: d.RecurrentDropoutLSTM(2, 2, p),
    "RecurrentDropoutGRU": lambda p: d.RecurrentDropoutGRU(2, 2, p),
    "WordTypeDropout": lambda p: d.WordTypeDropout(nn.Embedding(3, 2), p),
    "UnknownWordDropout": lambda p: d.UnknownWordDropout(0, p),
    "PositionalDropout": lambda p: d.PositionalDropout(3, 2, p),
}
LEARNED: dict[str, Callable[[float], nn.Module]] = {
    "ConcreteDropout": lambda p: d.ConcreteDropout(2, drop_prob_init=p),
    "ConcreteDropout1d": lambda p: d.ConcreteDropout1d(2, drop_prob_init=p),
    "ConcreteDropout2d": lambda p: d.ConcreteDropout2d(2, drop_prob_init=p),
    "LearnedGaussianDropout": lambda p: d.LearnedGaussianDropout(2, drop_prob_init=p),
}
BELOW_ONE = ["GaussianDropout", "AlphaDropout", "FeatureAlphaDropout", "DropConnect"]


def test_no_layer_with_a_p_is_left_out() -> None:
    layers = {name for name in d.__all__ if name.endswith(("Dropout", "1d", "2d", "3d", "Depth"))}
    known = {"SparseConv2d", *WITH_P, *LEARNED}
    assert layers <= known, "put a layer into `WITH_P`, or `LEARNED` where its p is learned"


@pytest.mark.parametrize("drop_prob", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("name", [*WITH_P, *LEARNED])
def test_a_p_outside_0_to_1_is_refused(name: str, drop_prob: float) -> None:
    with pytest.raises(ValueError, match=r"expected .*drop_prob.* got .*" + str(drop_prob)):
        (WITH_P | LEARNED)[name](drop_prob)


@pytest.mark.parametrize("name", list(WITH_P))
def test_a_p_outside_0_to_1_cannot_be_set_later(name: str) -> None:
    layer = WITH_P[name](0.2)
    assert layer.drop_prob == 0.2
    with pytest.raises(ValueError, match=r"expected drop_prob in \[0, 1.* got 1.5: .*"):
        layer.drop_prob = 1.5  # type: ignore[assignment]
    assert layer.drop_prob == 0.2


@pytest.mark.parametrize("name", BELOW_ONE)
def test_a_p_of_1_is_refused_where_nothing_would_be_left(name: str) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\), got 1"):
        WITH_P[name](1.0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [(d.DropBlock1d(0.1, 5), (2, 3, 4)), (d.DropBlock2d(0.1, 5), (2, 3, 8, 4))],
)
def test_a_block_larger_than_the_map_is_refused_in_both_modes(
    layer: nn.Module, shape: tuple[int, ...], training: bool
) -> None:
    with pytest.raises(ValueError, match=r"at least 5 along every axis.*lower block_size=5"):
        layer.train(training)(torch.ones(shape))


@pytest.mark.parametrize("shape", [(3,), (2, 3, 1), (2, 2), (3, 3)])
def test_a_mask_of_the_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected a mask with 2 axes .*got \("):
        d.apply_mask(torch.ones(2, 3), torch.ones(shape))


def test_a_mask_may_share_its_numbers() -> None:
    x, mask = torch.ones(2, 3), torch.tensor([[1.0, 0.0, 1.0]])
    assert d.apply_mask(x, mask, 0.5).tolist() == [[2.0, 0.0, 2.0]] * 2
    with pytest.raises(ValueError, match=r"drop_prob in \[0, 1\), got 1"):
        d.apply_mask(x, mask, 1.0)


WORDS = torch.zeros(2, 3, 4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (d.SpatialDropout1d(), torch.ones(2, 3)),
        (d.SpatialDropout2d(), torch.ones(2, 3, 4)),
        (d.SpatialDropout3d(), torch.ones(2, 3, 4, 4)),
        (d.DropBlock1d(0.1, 1), torch.ones(2, 3)),
        (d.DropBlock2d(0.1, 1), torch.ones(2, 3, 4)),
        (d.TimeTiedDropout(), torch.ones(2, 3)),
        (d.TokenDropout(), torch.ones(2, 3)),
        (d.PositionalDropout(4, 3), torch.ones(2, 3)),
        (d.WordTypeDropout(nn.Embedding(3, 2)), WORDS),
        (d.UnknownWordDropout(0), WORDS),
        (d.VariationalLSTM(3, 2), torch.ones(2, 3)),
        (d.VariationalGRU(3, 2), torch.ones(2, 3)),
        (d.RecurrentDropoutLSTM(3, 2), torch.ones(2, 3)),
        (d.RecurrentDropoutGRU(3, 2), torch.ones(2, 3)),
    ],
    ids=lambda part: type(part).__name__ if isinstance(part, nn.Module) else "",
)
def test_an_input_with_the_wrong_number_of_axes_is_refused_in_both_modes(
    layer: nn.Module, x: Tensor
) -> None:
    for training in (True, False):
        with pytest.raises(ValueError, match=r"expected an input of shape \(rows, .*got \(2, 3"):
            layer.train(training)(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: d.StochasticDepth(0.1, per="image"), "`row` or `batch`, got 'image'"),  # type: ignore[arg-type]
        (lambda: d.DropConnect(nn.ReLU(), 0.1), "expected one of .*Linear.*got ReLU"),  # type: ignore[arg-type]
        (lambda: d.DropConnect(nn.Conv2d(1, 1, 1), 0.1, per="row"), "linear layer for per='row'"),
        (lambda: d.DropConnect(nn.Linear(1, 1), inference="sum"), "`mean` or `gaussian`"),  # type: ignore[arg-type]
        (lambda: d.DropBlock2d(0.1, 0), "block_size of at least 1, got 0"),
        (lambda: d.RecurrentDropoutLSTM(1, 1, on="cell"), "`update` or `state`, got 'cell'"),  # type: ignore[arg-type]
        (lambda: d.TargetedWeightDropout(nn.Linear(1, 1), 1.5), r"targeted_share in \[0, 1\]"),
        (lambda: d.UnknownWordDropout(-1), "unknown_index of at least 0, got -1"),
        (lambda: d.SparseLinear(1, 1, divergence_weight=-1.0), "divergence_weight of at least 0"),
        (lambda: d.LearnedGaussianDropout(0), "at least 1 feature"),
        (lambda: d.concrete_regularisers(1, 1.0, noise_precision=0.0), "positive noise_precision"),
        (lambda: d.constrain_max_norm(nn.Linear(1, 1), 0.0), "limit above 0, got 0"),
        (lambda: d.linear_over_depth(0.2, 0), "num_blocks of at least 1"),
        (lambda: d.linear_over_depth(1.2, 3), r"final in \[0, 1\], got 1.2"),
        (lambda: d.LinearSchedule(nn.Linear(1, 1), 5, (d.DropBlock2d,)), r"\['DropBlock2d'\]"),
        (lambda: d.pruned(nn.Linear(1, 1)), "SparseLinear or SparseConv2d layers, got none"),
        (lambda: d.FeatureAlphaDropout()(torch.ones(3)), "use AlphaDropout for single units"),
        (lambda: d.PositionalDropout(2, 3)(torch.ones(1, 3, 3)), "at most 2 steps, got 3"),
    ],
)
def test_arguments_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_sparse_network_without_a_survivor_is_not_pruned() -> None:
    layer = d.SparseLinear(3, 2)
    nn.init.constant_(layer.log_variance, 9.0)
    with pytest.raises(ValueError, match=r"a weight below log α = 3\.0 in every layer, got none"):
        d.pruned(nn.Sequential(layer))


def test_a_network_without_any_dropout_cannot_be_exported(tmp_path: Path) -> None:
    for network in (nn.Linear(3, 2), nn.Sequential(d.Dropout(0.0), nn.Linear(3, 2))):
        with pytest.raises(ExportError, match="no random operation"):
            export(
                network,
                torch.randn(4, 3),
                tmp_path / "none.dubito",
                task="classification",
                output="logits",
            )


# Schedules


def test_p_grows_linearly_over_depth() -> None:
    assert d.linear_over_depth(0.4, 4) == pytest.approx((0.1, 0.2, 0.3, 0.4))


def test_a_schedule_raises_p_from_0_to_its_value_and_no_further() -> None:
    block, other = d.DropBlock2d(0.4, 2), d.Dropout(0.3)
    schedule = d.LinearSchedule(nn.Sequential(block, other), 4, (d.DropBlock2d,))
    seen = [block.drop_prob]
    for _ in range(6):
        schedule.step()
        seen.append(block.drop_prob)
    assert seen == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert other.drop_prob == 0.3


def test_regularisers_of_a_squared_error_are_those_of_a_likelihood_times_two_over_tau() -> None:
    weight, dropout = d.concrete_regularisers(100, 0.1)
    assert d.concrete_regularisers(100, 0.1, noise_precision=4.0) == (
        pytest.approx(weight / 2),
        pytest.approx(dropout / 2),
    )
    # the authors' factors: l² / (τ N) and 2 / (τ N)
    assert d.concrete_regularisers(50, 0.1, noise_precision=1.0) == (
        pytest.approx(0.01 / 50),
        pytest.approx(2 / 50),
    )


NAN = float("nan")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: d.Dropout(True), r"in \[0, 1\], got True"),
        (lambda: d.Dropout("0.5"), r"in \[0, 1\], got '0.5'"),  # type: ignore[arg-type]
        (lambda: d.StochasticDepth(None), r"in \[0, 1\], got None"),  # type: ignore[arg-type]
        (lambda: d.DropBlock2d(0.1, 2.5), "whole block_size.*got 2.5"),  # type: ignore[arg-type]
        (lambda: d.DropBlock1d(0.1, True), "whole block_size.*got True"),
        (lambda: d.ConcreteDropout(4, temperature=NAN), "positive temperature, got nan"),
        (lambda: d.ConcreteDropout(4, weight_regulariser=NAN), "regularisers of at least 0"),
        (lambda: d.concrete_regularisers(100, NAN), "positive length_scale"),
        (lambda: d.ConcreteDropout(4)(torch.zeros(2, 5)), r"expected 4 features, got 5"),
        (lambda: d.ConcreteDropout2d(4)(torch.zeros(2, 4)), "rows, channels, height"),
        (
            lambda: d.ConcreteDropout1d(4, following=nn.Conv2d(4, 2, 1)),  # type: ignore[arg-type]
            "of the kind Conv1d, got Conv2d",
        ),
        (lambda: d.SparseLinear(2, 2, threshold=NAN), "threshold of log α, got nan"),
        (lambda: d.WordTypeDropout(nn.Linear(2, 2)), "expected an nn.Embedding, got Linear"),  # type: ignore[arg-type]
        (
            lambda: d.DropConnect(nn.Linear(2, 2), activation=nn.Softmax(1)),
            "acts on every number alone, got Softmax",
        ),
        (lambda: EarlyStopping(3, NAN), "min_improvement of at least 0"),
    ],
)
def test_arguments_that_were_taken_for_others_are_refused(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_numbers_of_numpy_are_probabilities() -> None:
    assert d.Dropout(np.float32(0.5)).drop_prob == 0.5  # type: ignore[arg-type]
