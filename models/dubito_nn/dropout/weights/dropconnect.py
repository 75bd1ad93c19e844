"""DropConnect: single weights are dropped, not units.

    sampling        u = ((W ∘ M) x) / (1-p) + b,  M ~ Bernoulli(1-p) for every weight
    evaluation      `mean`      y = a(W x + b)
                    `gaussian`  y = E[a(u)],  u ~ Normal(W x + b, p/(1-p) · (W∘W)(x∘x))

In the second, the sum over many weights is taken as normal, with the exact mean and variance, and
the expectation goes through the activation a, which is why the layer holds it. It is computed
without sampling: in closed form for ReLU, else by the trapezoidal rule. Biases are kept.

Dimensions: B rows, I inputs, O outputs.
Source: Wan, Zeiler, Zhang, LeCun, Fergus 2013, Regularization of neural networks using
DropConnect, ICML; algorithm 2 for the inference.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dubito_nn.dropout.masks import Per, check_per, inverted_mask
from dubito_nn.dropout.probability import Probability
from dubito_nn.dropout.weights.maps import LinearMap, check_map, mapped

# Of the trapezoidal rule, in standard deviations: 49 nodes from -6 to 6.
_STEP, _REACH = 0.25, 24


class DropConnect(nn.Module):
    """A linear or convolutional layer whose weights are dropped, and the activation behind it.

    y = a(((W ∘ M) x) / (1-p) + b).    the shapes of the layer

    Args:
        layer: Linear or convolutional; it is held as the child `layer`.
        drop_prob: p, in [0, 1).
        activation: a, element by element; None for the identity.
        per: `batch`: one mask for all rows of a call, as a thinned network has; `row`: one for
            every row, as in the paper; takes B times the memory of W, linear layers only.
        inference: What eval mode does: `mean` or `gaussian`. The same where a is the identity.

    Raises:
        ValueError: An argument is out of range, or the layer is of another kind.

    Source: Wan et al. 2013, ICML.
    """

    drop_prob = Probability(below_one=True)

    def __init__(
        self,
        layer: LinearMap,
        drop_prob: float = 0.5,
        *,
        activation: nn.Module | None = None,
        per: Per = "batch",
        inference: Literal["mean", "gaussian"] = "gaussian",
    ) -> None:
        super().__init__()
        self.layer = check_map(layer)
        self.drop_prob = drop_prob
        self.activation = activation
        self.per = check_per(per)
        if activation is not None and inference == "gaussian" and not _is_by_element(activation):
            raise ValueError(
                f"expected an activation that acts on every number alone, got "
                f"{type(activation).__name__}: put it behind the layer, or take inference='mean'"
            )
        if inference not in ("mean", "gaussian"):
            raise ValueError(f"expected inference `mean` or `gaussian`, got {inference!r}")
        if per == "row" and not isinstance(layer, nn.Linear):
            raise ValueError(
                f"expected a linear layer for per='row', got {type(layer).__name__}: "
                "a convolution has one mask for all rows, per='batch'"
            )
        self.inference = inference

    def forward(self, x: Tensor) -> Tensor:
        """Drop weights in training mode; in eval mode return the mean, in the way chosen."""
        layer, p = self.layer, self.drop_prob
        if self.training and p > 0.0:
            return self._activated(self._sampled(x))
        mean = layer(x)
        if self.activation is None or self.inference == "mean" or p == 0.0:
            return self._activated(mean)
        variance = mapped(layer, x.square(), layer.weight.square(), None) * (p / (1.0 - p))
        return gaussian_expectation(self.activation, mean, variance)

    def extra_repr(self) -> str:
        """Show p, what shares a mask, and the inference."""
        return f"drop_prob={self.drop_prob}, per={self.per!r}, inference={self.inference!r}"

    def _sampled(self, x: Tensor) -> Tensor:
        layer, weight = self.layer, self.layer.weight
        if self.per == "batch":
            mask = inverted_mask(weight, weight.shape, self.drop_prob)
            return mapped(layer, x, weight * mask, layer.bias)
        mask_BOI = inverted_mask(weight, (x.shape[0], *weight.shape), self.drop_prob)
        steps_BLI = x.reshape(x.shape[0], -1, x.shape[-1])
        u_BLO = torch.matmul(steps_BLI, (weight * mask_BOI).transpose(1, 2))
        u = u_BLO.reshape(*x.shape[:-1], weight.shape[0])
        return u if layer.bias is None else u + layer.bias

    def _activated(self, u: Tensor) -> Tensor:
        if self.activation is None:
            return u
        activated: Tensor = self.activation(u)
        return activated


def _is_by_element(activation: nn.Module) -> bool:
    """Whether a change of one number leaves what becomes of the others as it was."""
    numbers = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)
    changed = numbers.clone()
    changed[0, 0] += 0.5
    training = activation.training
    activation.eval()
    try:
        with torch.no_grad():
            before, after = activation(numbers), activation(changed)
    except RuntimeError:  # it takes another number of units, so that this cannot be tried
        return True
    finally:
        activation.train(training)
    same_shape: bool = before.shape == numbers.shape
    return same_shape and torch.equal(before.flatten()[1:], after.flatten()[1:])


def gaussian_expectation(activation: nn.Module, mean: Tensor, variance: Tensor) -> Tensor:
    """Return E[a(u)] for independent u ~ Normal(mean, variance), element by element.

    ReLU: μ Φ(μ/σ) + σ φ(μ/σ); else Σ_i φ(t_i) a(μ + σ t_i) / Σ_i φ(t_i), t_i = -6, -5.75, ..., 6.
    The rule converges exponentially for smooth a; at a kink its error is about 0.002 σ.

    Args:
        activation: a; must act on every element alone.
        mean: μ.
        variance: σ², of the same shape, at least 0.

    Source: Wan et al. 2013, algorithm 2, with quadrature in the place of draws.
    """
    deviation = variance.clamp_min(1e-20).sqrt()
    if isinstance(activation, nn.ReLU):
        ratio = mean / deviation
        at_zero = torch.exp(-0.5 * ratio.square()) / math.sqrt(2.0 * math.pi)
        positive = 0.5 * (1.0 + torch.erf(ratio / math.sqrt(2.0)))
        return functional.relu(mean * positive + deviation * at_zero)
    nodes = [_STEP * index for index in range(-_REACH, _REACH + 1)]
    densities = [math.exp(-0.5 * node * node) for node in nodes]
    total = torch.zeros_like(mean)
    for node, density in zip(nodes, densities, strict=True):
        total = total + activation(mean + node * deviation) * (density / sum(densities))
    return total
