"""Dropout of weights: DropConnect's inference, targeted dropout, sparse variational, max-norm."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy import integrate, stats
from torch import Tensor, nn

from dubito_nn import dropout as d
from dubito_nn.training import seeded, squared_error, train

FALSE_ALARM = 1e-6  # of every statistical test here


def _draw(layer: nn.Module, x: Tensor, seed: int = 0) -> Tensor:
    with seeded(seed), torch.no_grad():
        output: Tensor = layer.train()(x)
    return output


def _within(values: Tensor, expected: Tensor) -> None:
    """Means over the first axis, with the false alarm of the whole comparison."""
    error = values.std(0) / len(values) ** 0.5
    limit = stats.norm.isf(FALSE_ALARM / 2 / expected.numel())
    assert ((values.mean(0) - expected).abs() <= limit * error + 1e-9).all()


# DropConnect


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.Sigmoid()])
def test_gaussian_expectations_agree_with_numerical_integrals(activation: nn.Module) -> None:
    for mean, variance in [(0.0, 1.0), (-1.2, 0.3), (2.0, 4.0), (0.5, 1e-4)]:
        deviation = math.sqrt(variance)

        def density(u: float, mean: float = mean, deviation: float = deviation) -> float:
            value: float = activation(torch.tensor(u, dtype=torch.float64)).item()
            return value * float(stats.norm.pdf(u, mean, deviation))

        expected, _ = integrate.quad(
            density, mean - 9 * deviation, mean + 9 * deviation, points=[0.0, mean], limit=200
        )
        got = d.gaussian_expectation(
            activation,
            torch.tensor([mean], dtype=torch.float64),
            torch.tensor([variance], dtype=torch.float64),
        )
        assert got.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("per", ["row", "batch"])
def test_the_sum_of_dropped_weights_has_the_moments_that_inference_uses(
    per: d.masks.Per,
) -> None:
    with seeded(0):
        layer = d.DropConnect(nn.Linear(30, 4), 0.4, per=per).double()
        x = torch.randn(1, 30, dtype=torch.float64)
    if per == "row":
        samples = _draw(layer, x.expand(20_000, 30))
    else:
        samples = torch.cat([_draw(layer, x, seed) for seed in range(3000)])
    linear = layer.layer
    mean = linear(x)[0].detach()
    variance = ((linear.weight**2) @ (x[0] ** 2) * 0.4 / 0.6).detach()
    _within(samples, mean)
    _within((samples - mean) ** 2, variance)


def test_moment_matching_is_nearer_to_sampling_than_weight_scaling() -> None:
    with seeded(0):
        linear, x = nn.Linear(200, 20), torch.randn(1, 200)
    layer = d.DropConnect(linear, 0.5, activation=nn.ReLU(), per="row")
    sampled = _draw(layer, x.expand(20_000, 200)).mean(0)
    layer.eval()
    matched = layer(x)[0]
    layer.inference = "mean"
    scaled = layer(x)[0]
    assert (matched - sampled).abs().max() < 0.02
    assert (scaled - sampled).abs().max() > 0.1


def test_masks_of_rows_differ_and_one_of_a_batch_is_shared() -> None:
    linear, x = nn.Linear(20, 3), torch.ones(4, 20)
    per_row = _draw(d.DropConnect(linear, 0.5, per="row"), x)
    assert per_row.unique(dim=0).shape[0] == 4
    per_batch = _draw(d.DropConnect(linear, 0.5), x)
    torch.testing.assert_close(per_batch, per_batch[:1].expand_as(per_batch))


def test_a_mask_per_row_holds_for_all_steps_of_the_row() -> None:
    output = _draw(d.DropConnect(nn.Linear(20, 3), 0.5, per="row"), torch.ones(4, 5, 20))
    assert output.shape == (4, 5, 3)
    torch.testing.assert_close(output, output[:, :1].expand_as(output))


# Targeted


def _candidates_by_loop(weight: Tensor, share: float) -> Tensor:
    chosen = torch.zeros_like(weight)
    for unit, row in enumerate(weight):
        order = sorted(range(len(row)), key=lambda k: abs(row[k].item()))
        chosen[unit, order[: int(share * len(row))]] = 1
    return chosen


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_targeted_weights_are_the_smallest_that_come_into_each_unit(share: float) -> None:
    layer = d.TargetedWeightDropout(nn.Linear(8, 6), share, 1.0)
    expected = _candidates_by_loop(layer.layer.weight, share)
    assert torch.equal(layer.candidates(), expected)
    x = torch.randn(3, 8)
    torch.testing.assert_close(
        _draw(layer, x),
        nn.functional.linear(x, layer.layer.weight * (1 - expected), layer.layer.bias),
    )


def test_targeted_weights_are_dropped_only_among_the_lowest_and_binomially() -> None:
    linear = nn.Linear(200, 200, bias=False)
    layer = d.TargetedWeightDropout(linear, 0.5, 0.3)
    used = _draw(layer, torch.eye(200)).T  # the weights as used
    chosen = layer.candidates().bool()
    torch.testing.assert_close(used[~chosen], linear.weight[~chosen].detach())
    dropped = int((used[chosen] == 0).sum())
    assert stats.binomtest(dropped, int(chosen.sum()), 0.3).pvalue > FALSE_ALARM


@pytest.mark.parametrize("inner", [nn.Linear(5, 8), nn.Conv2d(2, 8, 3)], ids=["units", "channels"])
def test_targeted_units_are_those_with_the_shortest_weights(inner: nn.Linear | nn.Conv2d) -> None:
    layer = d.TargetedUnitDropout(inner, 0.5, 0.5)
    norms = inner.weight.detach().flatten(1).norm(dim=1)
    chosen = layer.candidates().bool()
    assert chosen.sum() == 4
    assert norms[chosen].max() < norms[~chosen].min()
    shape = (500, 5) if isinstance(inner, nn.Linear) else (500, 2, 3, 3)
    x = torch.randn(shape)
    assert inner.bias is not None
    full, got = inner(x).detach().flatten(1), _draw(layer, x).flatten(1)
    torch.testing.assert_close(got[:, ~chosen], full[:, ~chosen])
    dropped = got[:, chosen] == inner.bias[chosen]
    assert stats.binomtest(int(dropped.sum()), dropped.numel(), 0.5).pvalue > FALSE_ALARM
    assert dropped.unique(dim=0).shape[0] == 16  # every row draws for itself


def test_targeted_activations_are_the_weakest_of_each_row() -> None:
    layer, x = d.TargetedActivationDropout(0.25, 0.4), torch.randn(2000, 4, 5)
    output = _draw(layer, x).flatten(1)
    flat = x.flatten(1)
    weakest = flat.abs() <= flat.abs().kthvalue(5, dim=1, keepdim=True).values
    assert torch.equal(layer.candidates(x).flatten(1).bool(), weakest)
    assert torch.equal(output[~weakest], flat[~weakest])
    dropped = output[weakest] == 0
    assert stats.binomtest(int(dropped.sum()), dropped.numel(), 0.4).pvalue > FALSE_ALARM


def test_of_equal_activations_no_more_than_the_share_is_dropped() -> None:
    output = _draw(d.TargetedActivationDropout(0.5, 1.0), torch.ones(3, 10))
    assert (output == 0).sum(1).tolist() == [5, 5, 5]


@pytest.mark.parametrize("kind", [d.TargetedWeightDropout, d.TargetedUnitDropout])
def test_pruning_takes_the_candidates_out_for_good(
    kind: type[d.TargetedWeightDropout] | type[d.TargetedUnitDropout],
) -> None:
    layer, x = kind(nn.Linear(8, 6), 0.5, 1.0), torch.randn(3, 8)
    dropped, candidates = _draw(layer, x), layer.candidates()
    assert layer.prune() == int(candidates.sum())
    torch.testing.assert_close(layer.eval()(x), dropped)


# Sparse variational


@pytest.fixture
def noisy() -> d.SparseLinear:
    with seeded(0):
        layer = d.SparseLinear(30, 4).double()
        nn.init.uniform_(layer.log_variance, -6.0, -1.0)
    return layer


@pytest.mark.parametrize("per", ["row", "batch"])
def test_noise_on_outputs_has_the_moments_of_noise_on_weights(
    noisy: d.SparseLinear, per: d.masks.Per
) -> None:
    noisy.per = per
    with seeded(1):
        x = torch.randn(1, 30, dtype=torch.float64)
    if per == "row":
        samples = _draw(noisy, x.expand(20_000, 30))
    else:
        samples = torch.cat([_draw(noisy, x, seed) for seed in range(3000)])
    mean = noisy.layer(x)[0].detach()
    variance = (noisy.log_variance.exp() @ x[0] ** 2).detach()
    _within(samples, mean)
    _within((samples - mean) ** 2, variance)


def test_alpha_and_the_probability_follow_from_mean_and_noise() -> None:
    layer = d.SparseLinear(1, 1)
    with torch.no_grad():
        layer.layer.weight.fill_(0.5)
        layer.log_variance.fill_(math.log(0.25 * 0.25 / 0.75))
    assert layer.log_alpha.exp().item() == pytest.approx(0.25 / 0.75, rel=1e-5)
    assert layer.drop_prob.item() == pytest.approx(0.25, rel=1e-5)
    assert layer.drop_prob.requires_grad


def test_the_divergence_agrees_with_its_integral_up_to_a_constant() -> None:
    # KL(N(θ, αθ²) | log-uniform) = -½ log α + E log|1 + √α ε| + constant; Molchanov 2017, eq. 13.
    def exact(log_alpha: float) -> float:
        root = math.exp(log_alpha / 2)

        def term(e: float) -> float:
            return math.log(abs(1 + root * e)) * float(stats.norm.pdf(e))

        kink = -1 / root
        inner = sorted({-9.0, min(max(kink, -9.0), 9.0), 9.0})
        total = sum(integrate.quad(term, a, b)[0] for a, b in itertools.pairwise(inner))
        return total - log_alpha / 2

    def approximate(log_alpha: float) -> float:
        layer = d.SparseLinear(1, 1, divergence_weight=1.0).double()
        with torch.no_grad():
            layer.layer.weight.fill_(1.0)
            layer.log_variance.fill_(log_alpha)
        return layer.regularisation().item()

    points = [-6.0, -3.0, -1.0, 0.0, 1.0, 3.0]
    offsets = [approximate(point) - exact(point) for point in points]
    assert max(offsets) - min(offsets) < 0.02


def test_a_network_learns_which_weights_it_needs_and_is_pruned_to_those() -> None:
    with seeded(0):
        x = torch.randn(400, 10)
        y = x[:, :1] * 2.0 + 0.05 * torch.randn(400, 1)
        network = nn.Sequential(d.SparseLinear(10, 12), nn.Tanh(), d.SparseLinear(12, 1))
    for layer in network:
        if isinstance(layer, d.SparseLinear):
            layer.divergence_weight = 0.01
    train(network, x, y, loss=squared_error, epochs=60, batch_size=50, learning_rate=0.02)
    smaller = d.pruned(network)
    first, last = smaller[0], smaller[2]
    assert isinstance(first, d.SparseLinear)
    assert isinstance(last, d.SparseLinear)
    assert first.layer.out_features < 12
    assert d.compression(network) > 4
    torch.testing.assert_close(smaller(x), network(x))
    assert ((smaller(x) - y) ** 2).mean() < 0.1 * y.var()
    assert d.compression(nn.Linear(2, 2)) == 1.0


def _drown(layer: d.SparseLinear | d.SparseConv2d, inputs: list[int]) -> None:
    """Make all weights that read these inputs hopeless."""
    with torch.no_grad():
        layer.log_variance[:, inputs] = 5.0


def test_units_that_nothing_reads_go_and_the_function_stays() -> None:
    with seeded(0):
        network = nn.Sequential(
            d.SparseConv2d(1, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            d.SparseConv2d(4, 3, 3),
            nn.Flatten(),
            d.SparseLinear(12, 5),
            nn.Tanh(),
            d.SparseLinear(5, 2),
        )
    second, third, last = network[3], network[5], network[7]
    assert isinstance(second, d.SparseConv2d)
    assert isinstance(third, d.SparseLinear)
    assert isinstance(last, d.SparseLinear)
    _drown(second, [1])
    _drown(third, [4, 5, 6, 7])  # the second channel's 2 x 2 places
    _drown(last, [0, 4])
    smaller = d.pruned(network.eval())
    shapes = [tuple(p.shape) for name, p in smaller.named_parameters() if name.endswith("weight")]
    assert shapes == [(3, 1, 3, 3), (2, 3, 3, 3), (3, 8), (2, 3)]
    x = torch.randn(6, 1, 8, 8)
    torch.testing.assert_close(smaller(x), network(x))


def test_pruned_weights_have_no_noise_left(noisy: d.SparseLinear) -> None:
    with torch.no_grad():
        noisy.log_variance.fill_(5.0)
        noisy.log_variance[0, 0] = -20.0
    noisy.prune()
    x = torch.ones(1, 30, dtype=torch.float64)
    assert noisy.is_kept.sum() == 1
    torch.testing.assert_close(_draw(noisy, x, 1), _draw(noisy, x, 2), atol=1e-2, rtol=0)
    assert noisy.drop_prob < 0.5  # of the weight that is left


# Max-norm


@pytest.mark.parametrize("layer", [nn.Linear(10, 6), nn.Conv2d(3, 6, 3)])
def test_no_unit_is_longer_than_the_limit_and_shorter_ones_are_left(
    layer: nn.Linear | nn.Conv2d,
) -> None:
    with torch.no_grad():
        layer.weight[:3] *= 100.0
        before = layer.weight.clone()
    bias = layer.bias.detach().clone() if layer.bias is not None else None
    limit = before.flatten(1).norm(dim=1)[3:].max().item() + 0.1
    assert d.constrain_max_norm(nn.Sequential(layer), limit) == 3
    after = layer.weight.detach()
    torch.testing.assert_close(after.flatten(1).norm(dim=1)[:3], torch.full((3,), limit))
    assert torch.equal(after[3:], before[3:])
    torch.testing.assert_close(
        nn.functional.cosine_similarity(after.flatten(1), before.flatten(1)), torch.ones(6)
    )
    assert bias is not None
    assert torch.equal(layer.bias, bias)  # type: ignore[arg-type]
    assert d.constrain_max_norm(layer, limit * 1.001) == 0
