import math

import pytest
import torch
from scipy import stats
from sklearn.metrics import mean_pinball_loss
from torch import Tensor, nn

from dubito_nn.dropout import ConcreteDropout, ConcreteFamily, StandardFamily
from dubito_nn.networks import MLP
from dubito_nn.training import (
    Progress,
    cross_entropy,
    gaussian_nll,
    learned_drop_probs,
    measure_gap,
    pinball_loss,
    seeded,
    squared_error,
    train,
)


def _line(num_rows: int = 200) -> tuple[Tensor, Tensor]:
    """Rows of y = 2x + 1 + N(0, 0.5²)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(num_rows, 1, generator=generator) * 2.0 - 1.0
    return x, 2.0 * x + 1.0 + 0.5 * torch.randn(num_rows, 1, generator=generator)


def _network(family: StandardFamily | ConcreteFamily) -> MLP:
    with seeded(0):
        return MLP(1, (16,), 1, dropout=family, heteroscedastic=True)


def test_the_same_seed_gives_the_same_network() -> None:
    inputs, targets = _line()
    weights = []
    for seed in (1, 1, 2):
        network = _network(StandardFamily(0.2))
        train(network, inputs, targets, loss=gaussian_nll, epochs=2, seed=seed)
        weights.append(nn.utils.parameters_to_vector(network.parameters()))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_training_leaves_the_generator_of_torch_where_it_stood() -> None:
    inputs, targets = _line()
    before = torch.get_rng_state()
    train(_network(StandardFamily(0.2)), inputs, targets, loss=gaussian_nll, epochs=1, seed=7)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_leaves_the_network_in_eval_mode_and_the_rows_unchanged() -> None:
    inputs, targets = _line()
    copies = inputs.clone(), targets.clone()
    network = _network(StandardFamily(0.2))
    train(network, inputs, targets, loss=gaussian_nll, epochs=1)
    assert not any(module.training for module in network.modules())
    assert torch.equal(inputs, copies[0])
    assert torch.equal(targets, copies[1])


def test_a_linear_network_reaches_the_least_squares_solution() -> None:
    inputs, targets = _line()
    network = nn.Linear(1, 1)
    train(
        network, inputs, targets, loss=squared_error, epochs=300, batch_size=200, learning_rate=0.3
    )
    design = torch.cat([inputs, torch.ones_like(inputs)], dim=1)
    slope, intercept = torch.linalg.lstsq(design, targets).solution.flatten().tolist()
    assert network.weight.item() == pytest.approx(slope, abs=1e-2)
    assert network.bias.item() == pytest.approx(intercept, abs=1e-2)


def test_weight_decay_reaches_the_ridge_solution_and_spares_the_bias() -> None:
    inputs, targets = _line()
    network = nn.Linear(1, 1)
    train(
        network,
        inputs,
        targets,
        loss=squared_error,
        epochs=300,
        batch_size=200,
        learning_rate=0.3,
        weight_decay=1.0,
    )
    # Minimum of mean (y - wx - b)² + ½ w²: w = cov(x, y) / (var(x) + ½).
    x, y = inputs - inputs.mean(), targets - targets.mean()
    slope = ((x * y).mean() / (x.square().mean() + 0.5)).item()
    assert network.weight.item() == pytest.approx(slope, abs=1e-2)
    assert network.bias.item() == pytest.approx((targets - slope * inputs).mean().item(), abs=1e-2)


def test_two_heads_learn_the_noise() -> None:
    inputs, targets = _line(1000)
    network = _network(StandardFamily(0.0))
    train(network, inputs, targets, loss=gaussian_nll, epochs=40, learning_rate=0.02)
    _, log_variance = network(inputs)
    assert log_variance.exp().mean().item() == pytest.approx(0.25, rel=0.2)


def test_regularisers_of_the_layers_move_the_learned_probabilities() -> None:
    inputs, targets = _line()
    few, many = _network(ConcreteFamily(num_rows=20)), _network(ConcreteFamily(num_rows=10**6))
    for network in (few, many):
        train(network, inputs, targets, loss=gaussian_nll, epochs=30, learning_rate=0.02)
    assert learned_drop_probs(few).keys() == {"mean_dropout", "log_variance_dropout"}
    assert learned_drop_probs(few)["mean_dropout"] > learned_drop_probs(many)["mean_dropout"]


def test_progress_is_told_after_each_epoch_and_agrees_with_the_result() -> None:
    inputs, targets = _line()
    told: list[Progress] = []
    network = _network(ConcreteFamily(num_rows=200))
    result = train(network, inputs, targets, loss=gaussian_nll, epochs=3, progress=told.append)
    assert [p.epoch for p in told] == [1, 2, 3]
    assert all(p.epochs == 3 for p in told)
    assert tuple(p.loss for p in told) == result.losses
    assert told[-1].drop_probs == result.drop_probs == learned_drop_probs(network)


def test_a_single_step_is_a_training_too() -> None:
    inputs, targets = _line(4)
    result = train(_network(StandardFamily()), inputs, targets, loss=gaussian_nll, epochs=1)
    assert len(result.losses) == 1


def test_a_parameter_moves_by_the_factor_of_its_rate_in_the_first_step() -> None:
    # The first step of Adam has the length of the learning rate in every coordinate.
    inputs, targets = torch.ones(4, 2), torch.ones(4, 3)
    with seeded(0):
        network = nn.Linear(2, 3)
    weight, bias = network.weight.detach().clone(), network.bias.detach().clone()
    train(
        network,
        inputs,
        targets,
        loss=squared_error,
        epochs=1,
        learning_rate=1e-3,
        rate_factors={"bias": 10.0},
        schedule="constant",
    )
    assert (network.weight - weight).abs().allclose(torch.tensor(1e-3), rtol=1e-3)
    assert (network.bias - bias).abs().allclose(torch.tensor(1e-2), rtol=1e-3)


def test_the_factor_of_a_path_goes_before_that_of_a_name() -> None:
    inputs, targets = torch.ones(4, 2), torch.ones(4, 3)
    with seeded(0):
        network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    train(
        network,
        inputs,
        targets,
        loss=squared_error,
        epochs=1,
        learning_rate=1e-3,
        rate_factors={"bias": 2.0, "0.bias": 10.0},
        schedule="constant",
    )
    moved = [
        (now - then).abs().max().item()
        for now, then in zip(network.parameters(), before, strict=True)
    ]
    assert moved == pytest.approx([1e-3, 1e-2, 1e-3, 2e-3], rel=1e-2)


def test_a_faster_logit_brings_p_to_the_optimum_that_adam_at_the_common_rate_does_not_reach() -> (
    None
):
    # Loss 0 and no weight term: the entropy alone is left, lowest at p = 1/2, from 0.1 at the start
    inputs, targets = torch.ones(64, 1), torch.zeros(64, 1)
    found = []
    for factor in (1.0, 100.0):
        layer = ConcreteDropout(1, dropout_regulariser=1.0)
        train(
            layer,
            inputs,
            targets,
            loss=lambda output, _: 0.0 * output.sum(),
            epochs=200,
            schedule="constant",
            rate_factors={"p_logit": factor},
        )
        found.append(layer.drop_prob.item())
    assert found[0] < 0.13
    assert found[1] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("factors", "message"), [({"biass": 2.0}, r"got \['biass'\]"), ({"bias": 0.0}, "above 0")]
)
def test_rate_factors_of_no_parameter_or_out_of_range_are_refused(
    factors: dict[str, float], message: str
) -> None:
    inputs, targets = _line()
    with pytest.raises(ValueError, match=message):
        train(nn.Linear(1, 1), inputs, targets, loss=squared_error, epochs=1, rate_factors=factors)


def test_augmentation_changes_what_the_network_sees() -> None:
    seen: list[Tensor] = []

    def negate(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(x)
        return -x, y

    inputs, targets = _line()
    network = nn.Linear(1, 1)
    train(
        network,
        inputs,
        targets,
        loss=squared_error,
        epochs=300,
        batch_size=200,
        learning_rate=0.3,
        augment=negate,
    )
    assert len(seen) == 300
    assert network.weight.item() == pytest.approx(-2.0, abs=0.3)


def test_losses_agree_with_scipy() -> None:
    generator = torch.Generator().manual_seed(1)
    mean, log_variance, y = (
        torch.randn(5, 2, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    expected = -stats.norm.logpdf(y, mean, (0.5 * log_variance).exp()).sum(axis=1).mean()
    assert gaussian_nll((mean, log_variance), y).item() == pytest.approx(expected, rel=1e-12)
    assert squared_error(mean, y).item() == pytest.approx(((y - mean) ** 2).sum(1).mean().item())
    uniform = cross_entropy(torch.zeros(3, 4), torch.tensor([0, 1, 2]))
    assert uniform.item() == pytest.approx(math.log(4.0))


def test_losses_at_positions_are_those_of_every_position_as_a_row() -> None:
    mean, log_variance, y = torch.randn(3, 4, 2, 5, 6, dtype=torch.float64)

    def as_rows(maps: Tensor) -> Tensor:
        return maps.movedim(1, -1).flatten(0, -2)

    expected = squared_error(as_rows(mean), as_rows(y)).item()
    assert squared_error(mean, y).item() == pytest.approx(expected)
    expected = gaussian_nll((as_rows(mean), as_rows(log_variance)), as_rows(y)).item()
    assert gaussian_nll((mean, log_variance), y).item() == pytest.approx(expected)


LEVELS = (0.1, 0.5, 0.8)


def test_the_pinball_loss_is_that_of_scikit_learn_for_every_level() -> None:
    quantiles, y = torch.randn(20, 2, 3, dtype=torch.float64), torch.randn(20, 2)
    expected = sum(
        mean_pinball_loss(y[:, d], quantiles[:, d, q], alpha=level)
        for d in range(2)
        for q, level in enumerate(LEVELS)
    )
    assert pinball_loss(LEVELS)(quantiles, y).item() == pytest.approx(expected / 3)
    one = pinball_loss(LEVELS)(quantiles[:, 0], y[:, :1]).item()
    assert one == pytest.approx(pinball_loss(LEVELS)(quantiles[:, :1], y[:, :1]).item())


def test_the_constants_of_least_pinball_loss_are_the_quantiles() -> None:
    y, loss = torch.arange(1.0, 102.0)[:, None], pinball_loss(LEVELS)
    for place, quantile in enumerate((11.0, 51.0, 81.0)):

        def at(constant: Tensor, place: int = place) -> float:
            constants = torch.full((1, 3), 40.0)
            constants[0, place] = constant
            return loss(constants.expand(len(y), 3), y).item()

        assert min(y[:, 0], key=at).item() == quantile


@pytest.mark.parametrize(
    ("levels", "shape", "said"),
    [
        ((0.1, 0.9), (4, 2), "3 to 1000 levels"),
        (LEVELS, (4, 2), r"3 quantiles on the last axis .* \(4, 2\)"),
        (LEVELS, (4, 2, 3), r"output's shape \(B, D\), here \(4, 2\), got \(4, 1\)"),
    ],
)
def test_a_pinball_loss_of_other_quantiles_is_refused(
    levels: tuple[float, ...], shape: tuple[int, ...], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        pinball_loss(levels)(torch.zeros(shape), torch.zeros(4, 1))


def test_the_gradient_of_the_gaussian_loss_agrees_with_differences() -> None:
    pair = [torch.randn(4, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    target = torch.randn(4, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda m, s: gaussian_nll((m, s), target), pair)


def test_a_loss_for_the_other_kind_of_head_says_so() -> None:
    with pytest.raises(TypeError, match="second head"):
        gaussian_nll(torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(TypeError, match="use gaussian_nll"):
        squared_error((torch.zeros(2, 1), torch.zeros(2, 1)), torch.zeros(2, 1))


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    inputs, targets = _line()
    targets[0] = math.inf
    with pytest.raises(FloatingPointError, match="epoch 1"):
        train(nn.Linear(1, 1), inputs, targets, loss=squared_error, epochs=3)


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}])
def test_settings_out_of_range_are_refused(change: dict[str, int]) -> None:
    inputs, targets = _line()
    settings = {"epochs": 1, **change}
    with pytest.raises(ValueError, match="change the one out of range"):
        train(nn.Linear(1, 1), inputs, targets, loss=squared_error, **settings)  # type: ignore[arg-type]


def test_rows_without_a_target_are_refused() -> None:
    inputs, targets = _line()
    with pytest.raises(ValueError, match="one target per row"):
        train(nn.Linear(1, 1), inputs, targets[:-1], loss=squared_error, epochs=1)


def test_seeding_holds_inside_the_block_alone() -> None:
    before = torch.get_rng_state()
    with seeded(5):
        first = torch.rand(3)
    with seeded(5):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_a_gpu_leaves_its_generator_where_it_stood() -> None:
    inputs, targets = _line()
    before = torch.cuda.get_rng_state()
    network = _network(StandardFamily(0.2))
    result = train(network, inputs, targets, loss=gaussian_nll, epochs=2, device="cuda")
    assert math.isfinite(result.losses[-1])
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.parametrize("heteroscedastic", [False, True])
def test_targets_of_another_shape_than_the_output_are_refused(heteroscedastic: bool) -> None:
    # They would be broadcast to N x N, and the network would learn the mean of all targets.
    inputs, targets = _line(20)
    network = MLP(1, (4,), 1, heteroscedastic=heteroscedastic)
    loss = gaussian_nll if heteroscedastic else squared_error
    message = r"output's shape \(B, D\), here \(20, 1\), got \(20,\): use targets\[:, None\]"
    with pytest.raises(ValueError, match=message):
        train(network, inputs, targets[:, 0], loss=loss, epochs=1)
    rows = (inputs, targets[:, 0])
    with pytest.raises(ValueError, match=message):
        measure_gap(network, rows, rows, loss)


@pytest.mark.parametrize(
    "setting", ["learning_rate", "weight_decay", "l1"], ids=lambda name: f"{name} nan"
)
def test_a_setting_that_is_not_a_number_is_refused(setting: str) -> None:
    inputs, targets = _line(20)
    with pytest.raises(ValueError, match="change the one out of range"):
        train(
            _network(StandardFamily(0.2)),
            inputs,
            targets,
            loss=gaussian_nll,
            epochs=1,
            **{setting: math.nan},  # type: ignore[arg-type]
        )


@pytest.mark.parametrize("num_rows", [33, 17, 16, 1])
def test_a_network_with_batch_norm_trains_on_any_number_of_rows_but_one(num_rows: int) -> None:
    inputs, targets = _line(num_rows)
    network = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Dropout(0.1), nn.Linear(4, 1))
    if num_rows == 1:
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            train(network, inputs, targets, loss=squared_error, epochs=1, batch_size=16)
        return
    result = train(network, inputs, targets, loss=squared_error, epochs=2, batch_size=16)
    assert len(result.losses) == 2
