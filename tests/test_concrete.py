import copy
import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from dubito_nn.dropout import (
    ConcreteDropout,
    ConcreteDropout2d,
    ConcreteFamily,
    Regularised,
    StandardFamily,
    concrete_regularisers,
    total_regularisation,
)
from dubito_nn.training import seeded


def _draw(layer: nn.Module, x: Tensor, seed: int = 0) -> Tensor:
    with seeded(seed), torch.no_grad():
        output: Tensor = layer(x)
    return output


def _kept_mean(drop_prob: float, temperature: float) -> float:
    """Mean of 1-z by the midpoint rule over u, in float64."""
    u = (torch.arange(2_000_000, dtype=torch.float64) + 0.5) / 2_000_000
    logit = math.log(drop_prob / (1.0 - drop_prob))
    return torch.sigmoid(-(logit + torch.logit(u)) / temperature).mean().item()


def test_eval_mode_returns_the_input_itself() -> None:
    x = torch.randn(4, 8)
    assert ConcreteDropout(8).eval()(x) is x


def test_the_same_seed_gives_the_same_mask_and_another_seed_another() -> None:
    layer, x = ConcreteDropout(8), torch.ones(4, 8)
    assert torch.equal(_draw(layer, x, 1), _draw(layer, x, 1))
    assert not torch.equal(_draw(layer, x, 1), _draw(layer, x, 2))


@pytest.mark.parametrize("drop_prob", [0.05, 0.3, 0.5])
def test_the_share_of_units_that_are_more_dropped_than_kept_is_binomial(drop_prob: float) -> None:
    # z > 1/2 exactly when logit(u) > -logit(p): probability p. False alarm 1e-6 per case.
    layer, num_units = ConcreteDropout(1, drop_prob_init=drop_prob), 100_000
    kept = _draw(layer, torch.ones(num_units, 1)) * (1.0 - drop_prob)
    dropped = int((kept < 0.5).sum())
    assert stats.binomtest(dropped, num_units, drop_prob).pvalue > 1e-6


@pytest.mark.parametrize(("drop_prob", "temperature"), [(0.1, 0.1), (0.4, 0.1), (0.2, 2.0 / 3.0)])
def test_the_mean_of_the_relaxed_mask_agrees_with_quadrature(
    drop_prob: float, temperature: float
) -> None:
    layer = ConcreteDropout(1, drop_prob_init=drop_prob, temperature=temperature)
    kept = _draw(layer, torch.ones(200_000, 1)).double() * (1.0 - drop_prob)
    error = (kept.mean() - _kept_mean(drop_prob, temperature)) / (kept.std() / 200_000**0.5)
    assert abs(error.item()) < 4.9  # false alarm 1e-6 per case


def test_a_cold_relaxation_keeps_the_mean_of_the_input() -> None:
    assert _kept_mean(0.1, 0.1) == pytest.approx(0.9, abs=2e-3)
    assert _kept_mean(0.5, 0.1) == pytest.approx(0.5, abs=1e-9)


def test_the_spatial_form_has_one_mask_per_row_and_channel() -> None:
    scale = _draw(ConcreteDropout2d(3, drop_prob_init=0.5), torch.ones(5, 3, 4, 4))
    assert torch.equal(scale, scale[:, :, :1, :1].expand_as(scale))
    assert scale[:, :, 0, 0].unique().numel() == 15


@pytest.mark.parametrize("layer", [ConcreteDropout(6), ConcreteDropout2d(2)])
def test_gradients_of_input_and_p_agree_with_differences(
    layer: ConcreteDropout | ConcreteDropout2d,
) -> None:
    layer.double()
    shape = (2, 6) if isinstance(layer, ConcreteDropout) else (2, 2, 2, 2)

    def replay(x: Tensor, p_logit: Tensor) -> Tensor:
        with seeded(3):
            output: Tensor = torch.func.functional_call(layer, {"p_logit": p_logit}, (x,))
        return output

    x = torch.linspace(-1.0, 1.0, math.prod(shape), dtype=torch.float64).reshape(shape)
    p_logit = torch.tensor(-0.4, dtype=torch.float64)
    assert torch.autograd.gradcheck(replay, (x.requires_grad_(), p_logit.requires_grad_()))


def test_regularisation_agrees_with_the_formula_written_out() -> None:
    linear = nn.Linear(3, 2)
    layer = ConcreteDropout(
        3, following=linear, drop_prob_init=0.2, weight_regulariser=0.7, dropout_regulariser=0.3
    )
    squares = sum(w * w for row in linear.weight.tolist() for w in row)
    expected = 0.7 * squares / 0.8 + 0.3 * 3 * (0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    assert layer.regularisation().item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_without_weights_the_regulariser_pulls_p_to_one_half() -> None:
    layer = ConcreteDropout(3, drop_prob_init=0.2, dropout_regulariser=1.0)
    layer.regularisation().backward()
    # d/dlogit of p log p + (1-p) log(1-p) is p (1-p) logit(p), below 0 for p < 1/2.
    assert layer.p_logit.grad is not None
    expected = 3 * 0.2 * 0.8 * math.log(0.25)
    assert layer.p_logit.grad.item() == pytest.approx(expected, rel=1e-5)


def test_the_bound_layer_is_neither_a_child_nor_lost_in_a_copy() -> None:
    linear = nn.Linear(3, 2)
    layer = ConcreteDropout(3, following=linear, weight_regulariser=1.0)
    network = nn.Sequential(layer, linear)
    assert list(layer.state_dict()) == ["p_logit"]
    twin = copy.deepcopy(network)
    with torch.no_grad():
        twin[1].weight.zero_()
    assert total_regularisation(twin).item() == 0.0
    assert total_regularisation(network).item() > 0.0


def test_total_regularisation_sums_over_nested_layers_once_each() -> None:
    layer = ConcreteDropout(4, dropout_regulariser=1.0)
    network = nn.Sequential(
        layer, nn.Sequential(ConcreteDropout(4, dropout_regulariser=1.0), layer)
    )
    assert isinstance(layer, Regularised)
    assert torch.allclose(total_regularisation(network), 2 * layer.regularisation())
    assert total_regularisation(nn.Linear(2, 2)).item() == 0.0


def test_families_make_the_layer_for_each_place() -> None:
    linear, convolution = nn.Linear(6, 2), nn.Conv2d(4, 2, 3)
    standard = StandardFamily(drop_prob=0.5, spatial_drop_prob=0.2)
    assert isinstance(standard.dense(linear), nn.Dropout)
    assert isinstance(standard.spatial(convolution), nn.Dropout2d)
    concrete = ConcreteFamily(num_rows=100, length_scale=0.1, drop_prob_init=0.3)
    dense, spatial = concrete.dense(linear), concrete.spatial(convolution)
    assert isinstance(dense, ConcreteDropout)
    assert isinstance(spatial, ConcreteDropout2d)
    assert (dense.num_features, spatial.num_features) == (6, 4)
    assert dense.drop_prob.item() == pytest.approx(0.3)
    assert (dense.weight_regulariser, dense.dropout_regulariser) == concrete_regularisers(100, 0.1)


def test_regularisers_fall_with_the_number_of_rows() -> None:
    assert concrete_regularisers(100, 0.1) == (pytest.approx(5e-5), pytest.approx(0.01))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"drop_prob_init": 0.0}, "between 0 and 1"),
        ({"drop_prob_init": 1.5}, "between 0 and 1"),
        ({"temperature": 0.0}, "positive temperature"),
        ({"weight_regulariser": -1.0}, "at least 0"),
        ({"num_features": 0}, "at least 1 feature"),
        ({"following": nn.Linear(5, 2)}, "4 inputs, got 5"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConcreteDropout(**{"num_features": 4, **arguments})  # type: ignore[arg-type]


def test_regularisers_of_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="num_rows of at least 1"):
        concrete_regularisers(0, 1.0)
