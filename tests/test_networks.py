import pytest
import torch
from torch import nn

from dubito_nn.dropout import ConcreteDropout, ConcreteDropout2d, ConcreteFamily, StandardFamily
from dubito_nn.networks import CNN, MLP, CosineHead, Standardise
from dubito_nn.training import seeded


def _count(network: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in network.modules())


def test_an_mlp_drops_before_every_map_but_the_first() -> None:
    network = MLP(5, (16, 8), 3, dropout=StandardFamily(0.2))
    assert network(torch.randn(7, 5)).shape == (7, 3)
    assert _count(network, nn.Dropout) == 2
    assert _count(MLP(5, (16, 8), 3, drop_inputs=True), nn.Dropout) == 3


def test_a_heteroscedastic_mlp_returns_mean_and_log_variance() -> None:
    family = ConcreteFamily(num_rows=100)
    network = MLP(5, (16,), 2, dropout=family, drop_inputs=True, heteroscedastic=True)
    mean, log_variance = network(torch.randn(7, 5))
    assert mean.shape == log_variance.shape == (7, 2)
    assert _count(network, ConcreteDropout) == 3


def test_the_forward_pass_of_an_mlp_is_the_formula_written_out() -> None:
    network = MLP(3, (4,), 2).eval()
    linear = network.body[0]
    assert isinstance(linear, nn.Linear)
    x = torch.randn(5, 3)
    hidden = (x @ linear.weight.T + linear.bias).clamp_min(0.0)
    expected = hidden @ network.mean.weight.T + network.mean.bias
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("cosine_scale", [None, 10.0])
def test_a_cnn_takes_flat_rows_and_drops_channels_and_units(cosine_scale: float | None) -> None:
    network = CNN(cosine_scale=cosine_scale)
    assert network(torch.rand(5, 64)).shape == (5, 10)
    assert (_count(network, nn.Dropout2d), _count(network, nn.Dropout)) == (1, 2)


def test_a_concrete_cnn_learns_one_rate_per_place() -> None:
    network = CNN(dropout=ConcreteFamily(num_rows=1000))
    assert (_count(network, ConcreteDropout2d), _count(network, ConcreteDropout)) == (1, 2)


@pytest.mark.parametrize(
    "network", [CNN(), CNN(dropout=ConcreteFamily(100)), CNN(cosine_scale=5.0)]
)
def test_passes_vary_in_training_mode_and_agree_in_eval_mode(network: CNN) -> None:
    x = torch.rand(3, 64)
    with seeded(0):
        assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


def test_rows_do_not_interact() -> None:
    network, x = CNN(cosine_scale=5.0).eval(), torch.rand(6, 64)
    one_by_one = torch.cat([network(x[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(network(x), one_by_one)


def test_a_cosine_head_ignores_the_length_of_the_features() -> None:
    head, features = CosineHead(8, 3, scale=5.0), torch.randn(4, 8)
    torch.testing.assert_close(head(features), head(100.0 * features))
    assert head(features).abs().max() <= 5.0
    torch.testing.assert_close(head(head.weight).diagonal(), torch.full((3,), 5.0))


def test_a_cosine_head_answers_zero_features_with_finite_logits() -> None:
    assert torch.isfinite(CosineHead(8, 3)(torch.zeros(2, 8))).all()


def test_networks_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one hidden layer"):
        MLP(5, (), 2)
    with pytest.raises(ValueError, match="at least 2 x 2"):
        CNN((1, 1, 8))


def test_standardised_training_rows_have_mean_zero_and_deviation_one() -> None:
    rows = 3.0 + 10.0 * torch.randn(50, 4)
    layer = Standardise(rows)
    assert layer(rows).mean(0).abs().max() < 1e-5
    torch.testing.assert_close(layer(rows).std(0, correction=0), torch.ones(4))
    assert not list(layer.parameters())
    assert set(layer.state_dict()) == {"mean", "standard_deviation"}


def test_a_feature_that_does_not_vary_is_refused() -> None:
    rows = torch.randn(5, 3)
    rows[:, 1] = 2.0
    with pytest.raises(ValueError, match=r"constant ones at \[1\]"):
        Standardise(rows)


@pytest.mark.parametrize("value", [0.1, 14.62, -11.512925, 1e-30])
def test_a_constant_whose_deviation_rounds_above_zero_is_constant(value: float) -> None:
    rows = torch.full((1000, 1), value)
    with pytest.raises(ValueError, match=r"constant ones at \[0\]"):
        Standardise(rows)
    rows[0] *= 1 + 1e-5
    Standardise(rows)
