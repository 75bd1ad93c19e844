"""What is known in closed form about dropout, and a slow NumPy layer as the oracle of gradients."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dubito_nn import dropout as d
from dubito_nn.training import seeded

Array = NDArray[np.float64]
SIZE = 8


@pytest.fixture
def x() -> Tensor:
    with seeded(0):
        return torch.randn(5, SIZE, dtype=torch.float64)


def _linear(outputs: int) -> nn.Linear:
    with seeded(1):
        return nn.Linear(SIZE, outputs).double().requires_grad_(False)


def _masks(drop_prob: float) -> Iterator[tuple[Tensor, float]]:
    """All 2^n masks with their probabilities."""
    for bits in itertools.product((0.0, 1.0), repeat=SIZE):
        mask = torch.tensor([bits], dtype=torch.float64)
        kept = int(mask.sum())
        yield mask, (1 - drop_prob) ** kept * drop_prob ** (SIZE - kept)


@pytest.mark.parametrize("drop_prob", [0.2, 0.5])
def test_weight_scaling_of_a_linear_softmax_is_the_normalised_geometric_mean(
    x: Tensor, drop_prob: float
) -> None:
    # Baldi and Sadowski 2013, Understanding dropout.
    linear = _linear(4)
    log_mean = torch.zeros(5, 4, dtype=torch.float64)
    for mask, probability in _masks(drop_prob):
        log_mean += probability * linear(d.apply_mask(x, mask.expand_as(x))).log_softmax(1)
    scaled = nn.Sequential(d.OriginalDropout(drop_prob), linear).eval()(x).softmax(1)
    torch.testing.assert_close(scaled, log_mean.softmax(1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("drop_prob", [0.2, 0.5])
def test_for_a_linear_model_weight_scaling_is_the_exact_mean_in_both_forms(
    x: Tensor, drop_prob: float
) -> None:
    linear = _linear(1)
    for layer, scale in ((d.Dropout(drop_prob), drop_prob), (d.OriginalDropout(drop_prob), 0.0)):
        mean = sum(
            probability * linear(d.apply_mask(x, mask.expand_as(x), scale))
            for mask, probability in _masks(drop_prob)
        )
        torch.testing.assert_close(nn.Sequential(layer, linear).eval()(x), mean)


@pytest.mark.parametrize("drop_prob", [0.2, 0.5])
def test_the_expected_squared_loss_adds_p_over_1_minus_p_times_x2_w2(
    x: Tensor, drop_prob: float
) -> None:
    # Wager, Wang, Liang 2013, arXiv:1307.1493; Srivastava 2014, section 9.1.
    linear, target = _linear(1), torch.arange(5, dtype=torch.float64)[:, None]
    expected = sum(
        probability * (linear(d.apply_mask(x, mask.expand_as(x), drop_prob)) - target) ** 2
        for mask, probability in _masks(drop_prob)
    )
    penalty = drop_prob / (1 - drop_prob) * (x**2 * linear.weight**2).sum(1, keepdim=True)
    torch.testing.assert_close((linear(x) - target) ** 2 + penalty, expected)


@pytest.mark.parametrize("layer", [d.Dropout(0.3), d.GaussianDropout(0.3)])
def test_sampled_losses_have_that_expectation(x: Tensor, layer: nn.Module) -> None:
    linear, row = _linear(1), x[:1]
    with seeded(2):
        losses = linear(layer.train()(row.expand(100_000, SIZE)))[:, 0] ** 2
    expected = linear(row)[0, 0] ** 2 + 0.3 / 0.7 * (row**2 * linear.weight**2).sum()
    error = losses.std() / 100_000**0.5
    assert abs((losses.mean() - expected) / error) < 4.9  # false alarm 1e-6


class SlowNetwork:
    """W₂ (m₂ ∘ relu(W₁ (m₁ ∘ x) + b₁)) + b₂, one number at a time, and its gradients.

    The masks hold the factor 1/(1-p). The loss is Σ g y for a given g.
    """

    def __init__(self, weights: list[Array], biases: list[Array], masks: list[Array]) -> None:
        self.weights, self.biases, self.masks = weights, biases, masks

    def forward(self, x: Array) -> Array:
        self.inputs: list[Array] = []
        for layer, (weight, bias, mask) in enumerate(
            zip(self.weights, self.biases, self.masks, strict=True)
        ):
            masked = np.zeros_like(x)
            y = np.zeros((len(x), len(bias)))
            for row in range(len(x)):
                for k in range(x.shape[1]):
                    masked[row, k] = x[row, k] * mask[row, k]
                for o in range(len(bias)):
                    total = bias[o]
                    for k in range(x.shape[1]):
                        total += weight[o, k] * masked[row, k]
                    y[row, o] = max(total, 0.0) if layer == 0 else total
            self.inputs.append(masked)
            x = y
        self.hidden = self.inputs[1] / np.where(self.masks[1] > 0, self.masks[1], 1.0)
        return x

    def backward(self, g: Array) -> dict[str, Array]:
        gradients: dict[str, Array] = {}
        for layer in (1, 0):
            weight, mask, masked = self.weights[layer], self.masks[layer], self.inputs[layer]
            of_weight, of_bias = np.zeros_like(weight), np.zeros(len(weight))
            of_x = np.zeros_like(masked)
            for row in range(len(g)):
                for o in range(len(weight)):
                    of_bias[o] += g[row, o]
                    for k in range(weight.shape[1]):
                        of_weight[o, k] += g[row, o] * masked[row, k]
                        of_x[row, k] += g[row, o] * weight[o, k] * mask[row, k]
            gradients |= {f"weight {layer}": of_weight, f"bias {layer}": of_bias}
            g = of_x * (self.hidden > 0) if layer == 1 else of_x
        return gradients | {"x": g}


@pytest.mark.parametrize("kind", [d.Dropout, d.OriginalDropout, d.TimeTiedDropout])
def test_outputs_and_gradients_are_those_of_a_slow_numpy_network(
    x: Tensor, kind: type[d.Dropout]
) -> None:
    with seeded(3):
        first, second = nn.Linear(SIZE, 6).double(), nn.Linear(6, 2).double()
        g = torch.randn(5, 2, dtype=torch.float64)
    drops = [kind(0.4).train(), kind(0.4).train()]
    tied = kind is d.TimeTiedDropout  # the 5 rows are then 5 steps of one sequence

    def dropped(layer: nn.Module, value: Tensor) -> Tensor:
        result: Tensor = layer(value[None])[0] if tied else layer(value)
        return result

    with seeded(4):  # the masks: what the layers do to ones, under the same seed
        masks = [
            dropped(drop, torch.ones(5, size).double())
            for drop, size in zip(drops, (SIZE, 6), strict=True)
        ]
    x.requires_grad_()
    with seeded(4):
        y = second(dropped(drops[1], first(dropped(drops[0], x)).relu()))
    (g * y).sum().backward()
    slow = SlowNetwork(
        [first.weight.detach().numpy(), second.weight.detach().numpy()],
        [first.bias.detach().numpy(), second.bias.detach().numpy()],
        [mask.numpy() for mask in masks],
    )
    np.testing.assert_allclose(y.detach().numpy(), slow.forward(x.detach().numpy()), atol=1e-12)
    expected = slow.backward(g.numpy())
    got = {
        "x": x.grad,
        "weight 0": first.weight.grad,
        "bias 0": first.bias.grad,
        "weight 1": second.weight.grad,
        "bias 1": second.bias.grad,
    }
    for name, gradient in got.items():
        assert gradient is not None
        np.testing.assert_allclose(gradient.numpy(), expected[name], atol=1e-12, err_msg=name)


def test_dropconnect_is_a_slow_sum_over_kept_weights(x: Tensor) -> None:
    with seeded(5):
        layer = d.DropConnect(nn.Linear(SIZE, 3), 0.4, per="row").double().train()
        g = torch.randn(5, 3, dtype=torch.float64)
    with seeded(6):
        mask = torch.bernoulli(torch.zeros(5, 3, SIZE, dtype=torch.float64), 0.6).numpy() / 0.6
    with seeded(6):
        y = layer(x)
    (g * y).sum().backward()
    weight, bias = layer.layer.weight, layer.layer.bias
    assert bias is not None
    of_weight, expected = np.zeros((3, SIZE)), np.zeros((5, 3))
    for row, o in itertools.product(range(5), range(3)):
        expected[row, o] = bias[o].item()
        for k in range(SIZE):
            kept = mask[row, o, k] * x[row, k].item()
            expected[row, o] += weight[o, k].item() * kept
            of_weight[o, k] += g[row, o].item() * kept
    np.testing.assert_allclose(y.detach().numpy(), expected, atol=1e-12)
    assert weight.grad is not None
    np.testing.assert_allclose(weight.grad.numpy(), of_weight, atol=1e-12)
