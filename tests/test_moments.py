"""Moment propagation against brute force over masks, large Monte Carlo runs, and its refusals."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.masks import over_all_masks
from torch import Tensor, nn
from torch.nn import functional

from dubito.engine import Classification, Engine, Regression, Sampling
from dubito.engine.answering.call import EngineCall
from dubito.engine.answering.passing import propagated
from dubito.engine.kernels.precision import running
from dubito.engine.moments import OutputMoments
from dubito.engine.moments.activations import ACTIVATIONS, activated, moments
from dubito.engine.moments.maxima import greater
from dubito.engine.moments.values import Spread
from dubito.errors import InputError
from dubito_nn import export
from dubito_nn.bundle import load_bundle
from dubito_nn.dropout import (
    ConcreteDropout,
    DropConnect,
    GaussianDropout,
    OriginalDropout,
    StochasticDepth,
    TimeTiedDropout,
)
from dubito_nn.manifest import Output

MOMENTS = Sampling(1, method="moments")


def output_moments(engine: Engine, inputs: Tensor) -> OutputMoments:
    """Mean and variance of the declared outputs, which the method `moments` goes by."""
    call = EngineCall(engine.read_inputs(inputs), engine.defaults)
    with running(engine.device):
        return OutputMoments.joined(list(propagated(engine, call)))


def engine_of(
    network: nn.Module, path: Path, *, features: int = 6, output: Output = "logits", **rest: object
) -> Engine:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(
            network,
            torch.randn(4, features),
            path / "network.dubito",
            task="regression" if "mean" in output else "classification",
            output=output,
            **rest,  # type: ignore[arg-type]
        )
    return Engine.load(path / "network.dubito")


def rows(count: int, features: int = 6) -> Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(5))


def check_exact(engine: Engine, inputs: Tensor, mean: Tensor, covariance: Tensor) -> None:
    got = output_moments(engine, inputs)
    np.testing.assert_allclose(got.mean, mean, atol=1e-5)
    deviation = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    np.testing.assert_allclose(got.variance.sqrt(), deviation, rtol=1e-3, atol=1e-6)
    if got.covariance is not None:
        np.testing.assert_allclose(got.covariance, covariance, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU, nn.SELU])
def test_one_hidden_layer_is_exact_in_mean_deviation_and_covariance(
    tmp_path: Path, activation: type[nn.Module]
) -> None:
    first, last = nn.Linear(6, 9), nn.Linear(9, 3)
    engine = engine_of(nn.Sequential(first, activation(), nn.Dropout(0.3), last), tmp_path)
    first.double(), last.double()
    hidden = activation()(first(rows(4).double()))
    mean, covariance = over_all_masks(lambda mask: last(hidden * mask / 0.7), 9, 0.3)
    assert output_moments(engine, rows(4)).covariance is not None
    check_exact(engine, rows(4), mean, covariance)


def test_a_function_behind_the_mask_is_exact_too(tmp_path: Path) -> None:
    first, last = nn.Linear(6, 8), nn.Linear(8, 3)
    for ending in (nn.ReLU(), nn.Sigmoid(), nn.LeakyReLU(0.2)):
        engine = engine_of(nn.Sequential(first, nn.Dropout(0.4), ending, last), tmp_path)
        one, two = (type(part)(*part.weight.T.shape).double() for part in (first, last))
        one.load_state_dict(first.state_dict())
        two.load_state_dict(last.state_dict())
        hidden = one(rows(3).double())
        exact = over_all_masks(lambda mask: two(ending(hidden * mask / 0.6)), 8, 0.4)  # noqa: B023
        check_exact(engine, rows(3), *exact)


def test_alpha_dropout_uses_its_mask_twice_and_is_exact(tmp_path: Path) -> None:
    first, last = nn.Linear(6, 8), nn.Linear(8, 3)
    engine = engine_of(nn.Sequential(first, nn.SELU(), nn.AlphaDropout(0.2), last), tmp_path)
    first.double(), last.double()
    hidden = functional.selu(first(rows(3).double()))
    floor = -1.7580993408473766
    scale = (0.8 * (1 + 0.2 * floor**2)) ** -0.5

    def run(mask: Tensor) -> Tensor:
        return last(scale * (hidden * mask + floor * (1 - mask)) - scale * 0.2 * floor)

    check_exact(engine, rows(3), *over_all_masks(run, 8, 0.2))


class Spatial(nn.Module):
    """Channels dropped, then a convolution or a flattened linear map."""

    def __init__(self, last: nn.Module, *, flatten: bool) -> None:
        super().__init__()
        self.flatten, self.last = flatten, last

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        maps = x.reshape(-1, 3, 4, 4)
        dropped = functional.dropout2d(maps, 0.3) if mask is None else maps * mask / 0.7
        return self.last(dropped.flatten(1) if self.flatten else dropped).flatten(1)


@pytest.mark.parametrize(
    ("last", "flatten"),
    [
        (nn.Conv2d(3, 2, 3, padding=1), False),
        (nn.Linear(48, 3), True),
        (nn.AvgPool2d(2), False),
        (nn.MaxPool2d(2), False),
        (nn.AdaptiveAvgPool2d(1), False),
    ],
)
def test_masks_of_channels_are_followed_through_the_next_map(
    tmp_path: Path, last: nn.Module, flatten: bool
) -> None:
    network = Spatial(last, flatten=flatten)
    engine = engine_of(network, tmp_path, features=48)
    network.double()
    inputs = rows(2, 48)
    exact = over_all_masks(lambda mask: network(inputs.double(), mask.reshape(1, 3, 1, 1)), 3, 0.3)
    check_exact(engine, inputs, *exact)


class Shortcut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch, self.drop = nn.Linear(6, 6), StochasticDepth(0.4)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x + self.drop(self.branch(x)))


class SeedsOfBlocks(nn.Module):
    """Draws with another number than the p that it states, as DropBlock does."""

    def __init__(self) -> None:
        super().__init__()
        self.p = 0.5

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.bernoulli(torch.full_like(x, 0.0), 0.8) if self.training else 0.8 * x


def test_a_mask_that_is_drawn_with_another_number_than_its_p_is_exact(tmp_path: Path) -> None:
    last = nn.Linear(6, 3)
    engine = engine_of(nn.Sequential(SeedsOfBlocks(), last), tmp_path)
    (site,) = load_bundle(tmp_path / "network.dubito").sites
    assert (site.drop_prob, site.keep_prob) == (0.5, 0.8)
    last.double()
    mean, covariance = over_all_masks(lambda mask: last(rows(4).double() * mask), 6, 0.2)
    check_exact(engine, rows(4), mean, covariance)


def test_a_path_that_is_dropped_as_one_is_exact(tmp_path: Path) -> None:
    network = Shortcut()
    engine = engine_of(network, tmp_path)
    network.double()
    x = rows(3).double()
    kept = network.drop.drop_prob
    assert kept == 0.4

    def run(mask: Tensor) -> Tensor:
        return network.last(x + network.branch(x) * mask / 0.6)

    mean, covariance = over_all_masks(run, 1, 0.4)
    got = output_moments(engine, rows(3))
    np.testing.assert_allclose(got.mean, mean, atol=1e-5)
    np.testing.assert_allclose(got.variance, covariance.diagonal(dim1=-2, dim2=-1), rtol=1e-3)


class MixedSteps(nn.Module):
    """A mask tied over time, and then a linear map along time: each line hangs on one number."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = TimeTiedDropout(0.3)
        self.over_time, self.last = nn.Linear(3, 4), nn.Linear(8, 3)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        steps = x.reshape(-1, 3, 2)
        steps = self.drop(steps) if mask is None else steps * mask / 0.7
        return self.last(self.over_time(steps.transpose(1, 2)).flatten(1))


def test_what_hangs_on_one_number_stays_so_through_linear_maps(tmp_path: Path) -> None:
    network = MixedSteps()
    engine = engine_of(network, tmp_path)
    network.double()
    exact = over_all_masks(lambda mask: network(rows(3).double(), mask.reshape(1, 1, 2)), 2, 0.3)
    check_exact(engine, rows(3), *exact)


def monte_carlo(engine: Engine, inputs: Tensor, num_samples: int) -> tuple[Tensor, Tensor]:
    raw = engine.sample(inputs, sampling=Sampling(num_samples, 3)).double()
    return raw.mean(0), raw.std(0)


@pytest.mark.parametrize(
    "dropout", [GaussianDropout(0.3), ConcreteDropout(16, drop_prob_init=0.2), OriginalDropout(0.3)]
)
def test_other_distributions_agree_with_many_samples(tmp_path: Path, dropout: nn.Module) -> None:
    network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), dropout, nn.Linear(16, 3))
    engine = engine_of(network, tmp_path)
    mean, deviation = monte_carlo(engine, rows(4), 20_000)
    got = output_moments(engine, rows(4))
    # of 12 figures, 4.5 standard errors: false alarms below 1 in 10,000
    assert ((got.mean - mean).abs() / (deviation / 20_000**0.5)).max() < 4.5
    np.testing.assert_allclose(got.variance.sqrt(), deviation, rtol=0.03)


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**31 - 1),
    width=st.sampled_from([24, 48]),
    drop_prob=st.sampled_from([0.1, 0.3, 0.5]),
    activation=st.sampled_from([nn.ReLU, nn.GELU, nn.Tanh]),
)
def test_two_hidden_layers_agree_with_many_samples_within_tolerance(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    width: int,
    drop_prob: float,
    activation: type[nn.Module],
) -> None:
    """The mean to 0.25 of a deviation, each deviation to 50 %, their average to 20 %.

    An approximation's errors have no bound: of many networks one has an output at 65 %, so the
    networks are the same in every run.
    """
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(6, width),
        activation(),
        nn.Dropout(drop_prob),
        nn.Linear(width, width),
        activation(),
        nn.Dropout(drop_prob),
        nn.Linear(width, 3),
    )
    engine = engine_of(network, tmp_path_factory.mktemp("two"))
    mean, deviation = monte_carlo(engine, rows(3), 4000)
    got = output_moments(engine, rows(3))
    assert ((got.mean - mean).abs() / deviation).max() < 0.25
    ratio = got.variance.sqrt() / deviation
    assert ratio.min() > 0.5
    assert ratio.max() < 1.5
    assert 0.8 < ratio.mean() < 1.2


def test_a_convolutional_network_agrees_with_many_samples_within_tolerance(tmp_path: Path) -> None:
    network = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(256, 32),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(32, 5),
    )
    engine = engine_of(network, tmp_path, features=64)
    mean, deviation = monte_carlo(engine, rows(4, 64), 4000)
    got = output_moments(engine, rows(4, 64))
    assert ((got.mean - mean).abs() / deviation).max() < 0.15
    np.testing.assert_allclose(got.variance.sqrt(), deviation, rtol=0.15)


FUNCTIONS: dict[str, tuple[object, ...]] = {op: () for op in ACTIVATIONS}
FUNCTIONS["aten.leaky_relu.default"] = (0.2,)


@pytest.mark.parametrize("op", sorted(FUNCTIONS))
def test_moments_of_functions_agree_with_integration(op: str) -> None:
    mean = torch.linspace(-3, 3, 13).repeat(4)
    deviation = torch.tensor([1e-3, 0.1, 1.0, 2.0]).repeat_interleave(13)
    x = Spread(mean, deviation.square(), frozenset())
    got = activated(op, x, FUNCTIONS[op], {})
    grid = torch.linspace(-9, 9, 200_001, dtype=torch.float64)
    weight = torch.exp(-grid.square() / 2)
    weight = weight / weight.sum()
    name = op.split(".")[1]
    function = getattr(torch.ops.aten, name).default
    values = function(mean.double()[:, None] + deviation.double()[:, None] * grid, *FUNCTIONS[op])
    exact = (values * weight).sum(-1)
    spread = ((values - exact[:, None]).square() * weight).sum(-1).sqrt()
    scale = 1 + exact.abs()
    assert ((got.mean - exact).abs() / scale).max() < 2e-3
    assert ((got.variance.sqrt() - spread).abs() / scale).max() < 1e-2
    slope, wide = (values * weight * grid).sum(-1) / deviation.double(), deviation > 0.01
    found = moments(op, x, FUNCTIONS[op], {})[2]
    assert ((found - slope).abs() / (1 + slope.abs()))[wide].max() < 1e-2


def test_the_larger_of_two_agrees_with_many_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    m1, m2 = torch.tensor([0.0, 1.0, -2.0, 30.0]), torch.tensor([0.5, 1.0, 2.0, 0.0])
    v1, v2 = torch.tensor([1.0, 0.04, 0.0, 1.0]), torch.tensor([2.0, 0.04, 0.0, 1.0])
    mean, variance = greater((m1, v1), (m2, v2))
    z = torch.randn(2, 400_000, 4, generator=generator)
    drawn = torch.maximum(m1 + v1.sqrt() * z[0], m2 + v2.sqrt() * z[1])
    np.testing.assert_allclose(mean, drawn.mean(0), atol=0.01)
    np.testing.assert_allclose(variance, drawn.var(0), atol=0.02)
    assert (mean[2], variance[2]) == (2.0, 0.0)


def deep(ending: nn.Module | None = None, outputs: int = 3) -> nn.Module:
    parts = [nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.4), nn.Linear(12, 12), nn.ReLU()]
    return nn.Sequential(*parts, nn.Dropout(0.4), nn.Linear(12, outputs), ending or nn.Identity())


@pytest.fixture(scope="module")
def deep_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("deep")
    engine_of(deep(), folder)
    return folder / "network.dubito"


@pytest.fixture(scope="module")
def engine(deep_path: Path) -> Engine:
    return Engine.load(deep_path)


def test_columns_are_near_those_of_many_samples_and_add_up(engine: Engine) -> None:
    got = engine.predict(rows(20), sampling=MOMENTS)
    many = engine.predict(rows(20), sampling=Sampling(10_000))
    assert isinstance(got, Classification)
    assert isinstance(many, Classification)
    np.testing.assert_allclose(got.mean, many.mean, atol=0.01)
    np.testing.assert_allclose(got.mean.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(got.variance, many.variance, atol=2e-3)
    np.testing.assert_allclose(got.expected_entropy, many.expected_entropy, atol=0.01)
    np.testing.assert_allclose(got.mutual_information, many.mutual_information, atol=0.005)
    np.testing.assert_allclose(got.variation_ratio, many.variation_ratio, atol=0.1)
    np.testing.assert_allclose(got.energy, many.energy, atol=0.02)
    np.testing.assert_array_equal(
        got.predictive_entropy, got.expected_entropy + got.mutual_information
    )
    assert not got.standard_error.any()
    assert (got.num_samples_used == 1).all()


def test_a_temperature_divides_the_logits(engine: Engine) -> None:
    got = engine.predict(rows(5), sampling=MOMENTS, temperature=2.5)
    nodes = engine.sample(rows(5), sampling=MOMENTS)
    np.testing.assert_allclose(got.mean, (nodes / 2.5).softmax(-1).mean(0), atol=1e-6)


def test_a_row_whose_variance_overflows_is_not_certain(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 3))
    inputs = rows(3)
    inputs[1] = 1e20
    found = engine_of(network, tmp_path).predict(inputs, sampling=Sampling(1, method="moments"))
    assert isinstance(found, Classification)
    for column in (found.mean, found.predictive_entropy, found.mutual_information):
        assert np.isnan(column[1]).all()
        assert np.isfinite(column[[0, 2]]).all()


def test_the_nodes_have_the_moments_of_the_outputs(engine: Engine) -> None:
    nodes, found = engine.sample(rows(5), sampling=MOMENTS), output_moments(engine, rows(5))
    np.testing.assert_allclose(nodes.mean(0), found.mean, atol=1e-7)
    off = nodes - nodes.mean(0)
    covariance = torch.einsum("nbc,nbd->bcd", off, off) / len(nodes)
    assert found.covariance is not None
    np.testing.assert_allclose(covariance, found.covariance, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("output", ["log_probs", "probs", "sigmoid_logits"])
def test_every_declared_output_becomes_probabilities(tmp_path: Path, output: Output) -> None:
    ending = {"log_probs": nn.LogSoftmax(-1), "probs": nn.Softmax(-1)}.get(output)
    outputs = 1 if output == "sigmoid_logits" else 3
    engine = engine_of(deep(ending, outputs), tmp_path, output=output)
    got = engine.predict(rows(6), sampling=MOMENTS)
    many = engine.predict(rows(6), sampling=Sampling(10_000))
    np.testing.assert_allclose(got.mean, many.mean, atol=0.01)
    samples = engine.sample(rows(6), sampling=MOMENTS)
    assert tuple(samples.shape) == (256, 6, outputs)
    if output == "probs":
        np.testing.assert_allclose(samples.mean(0), got.mean, atol=1e-6)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Dropout(0.3))
        self.mean, self.log_variance = nn.Linear(9, 2), nn.Linear(9, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x)
        return self.mean(hidden), self.log_variance(hidden)


def test_regression_is_in_target_units_with_log_normal_noise(tmp_path: Path) -> None:
    engine = engine_of(Pair(), tmp_path, output="mean_and_log_variance", target_scale=(100.0, 20.0))
    got = engine.predict(rows(5), sampling=MOMENTS)
    many = engine.predict(rows(5), sampling=Sampling(20_000))
    assert isinstance(got, Regression)
    assert isinstance(many, Regression)
    np.testing.assert_allclose(got.mean, many.mean, atol=0.15)
    np.testing.assert_allclose(got.epistemic_variance, many.epistemic_variance, rtol=0.06)
    np.testing.assert_allclose(got.aleatoric_variance, many.aleatoric_variance, rtol=0.02)
    np.testing.assert_array_equal(got.variance, got.epistemic_variance + got.aleatoric_variance)
    kept = engine.predict(rows(5), sampling=MOMENTS, keep_samples=True)
    assert isinstance(kept, Regression)
    assert kept.samples is not None
    np.testing.assert_allclose(kept.samples.mean(0), got.mean, atol=1e-4)
    np.testing.assert_allclose(kept.samples.var(0), got.epistemic_variance, rtol=1e-4)


def test_a_single_output_of_a_regression_is_closed(tmp_path: Path) -> None:
    engine = engine_of(deep(outputs=2), tmp_path, output="mean")
    got, found = engine.predict(rows(4), sampling=MOMENTS), output_moments(engine, rows(4))
    np.testing.assert_allclose(got.mean, found.mean)
    np.testing.assert_allclose(got.variance, found.variance)


def test_rows_together_equal_rows_alone_and_blocks_change_nothing(
    engine: Engine, deep_path: Path
) -> None:
    together = engine.predict(rows(6), sampling=MOMENTS)
    narrow = Engine.load(deep_path, memory_budget_bytes=200_000)
    np.testing.assert_allclose(narrow.predict(rows(6), sampling=MOMENTS).mean, together.mean)
    for row in range(6):
        alone = engine.predict(rows(6)[row : row + 1], sampling=MOMENTS)
        np.testing.assert_allclose(alone.mean[0], together.mean[row], atol=1e-5)
    tiny = Engine.load(deep_path, memory_budget_bytes=10_000)
    with pytest.raises(InputError, match="with its moments: raise memory_budget_bytes"):
        tiny.predict(rows(1), sampling=MOMENTS)


def test_a_check_before_each_block_can_end_it(engine: Engine) -> None:
    def stop() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        engine.predict(rows(1), sampling=MOMENTS, check=stop)
    assert torch.is_grad_enabled()


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(6, 6), nn.Dropout(0.3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop(self.first(x))
        return self.last(hidden + functional.relu(hidden))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(2, 1, dropout=0.3, batch_first=True)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.reshape(-1, 3, 2)
        return self.last(self.attend(steps, steps, steps)[0].flatten(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop, self.first, self.last = TimeTiedDropout(0.3), nn.Linear(2, 4), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.first(self.drop(x.reshape(-1, 3, 2)))
        return self.last(functional.relu(steps).flatten(1))


class Repeated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.reshape(-1, 3, 2)
        mask = functional.dropout(steps[:, :1] * 2, 0.3)
        return self.last((steps * mask).flatten(1))


class Entangled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop, self.last = nn.Dropout(0.3), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop(x)
        return self.last(torch.cat([hidden, hidden.exp()], 1))


class StepsFirst(nn.Module):
    """Time steps on the first axis, masks tied over them."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.first, self.last = TimeTiedDropout(0.3), nn.Linear(2, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.drop(x.reshape(-1, 3, 2)).transpose(0, 1)
        return self.last(functional.relu(self.first(steps)).mean(0))


def weights_dropped() -> nn.Module:
    return nn.Sequential(DropConnect(nn.Linear(6, 6), 0.3), nn.ReLU(), nn.Linear(6, 3))


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.3), nn.LayerNorm(6), nn.Linear(6, 3))


def spatial_twice() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (2, 3, 1)),
        nn.Dropout2d(0.3),
        nn.Conv2d(2, 2, (3, 1), padding=(1, 0)),
        nn.ReLU(),
        nn.Conv2d(2, 2, (3, 1)),
        nn.Flatten(),
        nn.Linear(2, 3),
    )


REFUSED: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "a skip connection": (Skip, ["aten.add.Tensor", "`drop`", "same draws"]),
    "attention": (Attention, ["`attend"]),
    "masks tied over time": (Tied, ["aten.linear.default", "module `last`", "`drop`", "share"]),
    "rows on the second axis": (StepsFirst, ["aten.transpose.int", "`drop`", "first axis"]),
    "a random value that is repeated": (Repeated, ["aten.mul.Tensor", "repeated"]),
    "parts of the same draws": (Entangled, ["aten.linear.default", "`drop`", "joined"]),
    "dropped weights": (weights_dropped, ["`0`", "weights are dropped"]),
    "a norm": (normalised, ["aten.layer_norm.default", "module `2`", "`1`", "no rule"]),
    "channels mixed twice": (spatial_twice, ["aten.conv2d.default", "module `4`", "`1`", "share"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_walk_would_get_wrong_it_refuses_by_operator_and_module(
    tmp_path: Path, name: str
) -> None:
    build, words = REFUSED[name]
    engine = engine_of(build(), tmp_path)
    for count in (1, 2):
        reason = engine.propagating.walk.refusal(engine.read_inputs(rows(count)))
        for word in ["`moments`", *words, "use method `mc`"]:
            assert word in str(reason), str(reason)
