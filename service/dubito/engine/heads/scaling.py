"""What a calibration does to the logits of every pass before their softmax.

Its job: one frozen object for each way to do it, applied pass by pass, so that everything said of
the passes (mean, variances, entropies, votes) is said of calibrated distributions. A temperature is
a plain number, and costs one division.

    temperature    z / τ
    Vector         w∘ℓ + b, with ℓ = log softmax(z), one w and one b per class
    Isotonic       log of a rising function of softmax(z), the same for all classes

Dimensions: T samples, B rows, C classes, along any axis.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import TypeAlias

import torch
from torch import Tensor

from dubito.engine.calling.arguments import is_above_0
from dubito.engine.kernels.constants import constant
from dubito.errors import InputError


@dataclass(frozen=True)
class Vector:
    """A factor and an offset for each class: w∘log softmax(z) + b.

    Logarithms of probabilities stand in for the logits, so that a number added to all logits of a
    pass, which says nothing, changes nothing.

    Args:
        weight: factor of each class, above 0.
        bias: offset of each class.

    Raises:
        InputError: numbers that are not finite, factors not above 0, or other lengths.

    Source: Guo et al. 2017, arXiv:1706.04599 (vector scaling).
    """

    weight: tuple[float, ...]
    bias: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse what is no scaling."""
        is_sound = len(self.weight) == len(self.bias) >= 2 and min(self.weight) > 0
        if not is_sound or not _are_finite((*self.weight, *self.bias)):
            raise InputError(
                "vector scaling expects a finite factor above 0 and a finite offset for each of 2 "
                f"or more classes, got {len(self.weight)} and {len(self.bias)} of them, or others: "
                "calibrate again"
            )

    def logits(self, logits: Tensor, dim: int) -> Tensor:
        """Numbers whose softmax along the classes are the calibrated probabilities."""
        weight, bias = (
            _along(constant(numbers, logits), logits, dim) for numbers in (self.weight, self.bias)
        )
        return weight * logits.log_softmax(dim) + bias


@dataclass(frozen=True)
class Isotonic:
    """One rising function for the probabilities of all classes, then a sum of 1.

    q_c ∝ (1 - 2ε) g(p_c) + ε p_c + ε / C,  ε = 1 / (n + 1),  p = softmax(z)

    g runs straight between its knots and is constant outside them. What is mixed in, the weight of
    one row more beside the n that g was fitted on, keeps probabilities off 0 and in their order:
    where g is flat, rows would tie.

    Args:
        inputs: probabilities at the knots, ascending.
        outputs: what they become, not falling, in [0, 1].
        num_rows: n.

    Raises:
        InputError: knots that are out of order or bounds, fewer than 2, or no rows.

    Source: Zadrozny and Elkan 2002, "Transforming classifier scores into accurate multiclass
    probability estimates"; one function for all classes, made strictly rising: Zhang, Kailkhura
    and Han 2020, arXiv:2003.07329.
    """

    inputs: tuple[float, ...]
    outputs: tuple[float, ...]
    num_rows: int

    def __post_init__(self) -> None:
        """Refuse what is no rising function."""
        is_sound = len(self.inputs) == len(self.outputs) >= 2 and self.num_rows >= 1
        is_sound = is_sound and _are_finite((*self.inputs, *self.outputs))
        is_sound = is_sound and all(low < high for low, high in pairwise(self.inputs))
        is_sound = is_sound and all(low <= high for low, high in pairwise(self.outputs))
        if not is_sound or self.outputs[0] < 0 or self.outputs[-1] > 1:
            raise InputError(
                "isotonic scaling expects 2 or more knots in ascending order with values in [0, 1] "
                "that do not fall, fitted on 1 row or more, got others: calibrate again"
            )

    def logits(self, logits: Tensor, dim: int) -> Tensor:
        """Numbers whose softmax along the classes are the calibrated probabilities."""
        probs = logits.softmax(dim)
        share = 1 / (self.num_rows + 1)
        mixed = (1 - 2 * share) * self._risen(probs) + share * probs + share / probs.shape[dim]
        return mixed.log()

    def _risen(self, probs: Tensor) -> Tensor:
        """g(p)."""
        inputs, outputs = constant(self.inputs, probs), constant(self.outputs, probs)
        right = torch.searchsorted(inputs, probs.contiguous()).clamp(1, len(inputs) - 1)
        left = right - 1
        part = (probs - inputs[left]) / (inputs[right] - inputs[left])
        return outputs[left] + part.clamp(0, 1) * (outputs[right] - outputs[left])


ClassMap: TypeAlias = Vector | Isotonic
Scaling: TypeAlias = float | ClassMap
"""A temperature, or more than that."""


def scaled(logits: Tensor, scaling: Scaling, dim: int = -1) -> Tensor:
    """Numbers whose softmax along an axis are the calibrated probabilities of every pass.

    Args:
        logits: whose softmax along that axis are the network's own.
        scaling: 1 changes nothing.
        dim: the axis of the classes.
    """
    if isinstance(scaling, Vector | Isotonic):
        return scaling.logits(logits, dim)
    return logits if scaling == 1 else logits / scaling


def check_scaling(scaling: object, num_classes: int) -> None:
    """Refuse what is no number above 0, and factors of other classes than the network's.

    Raises:
        InputError: naming the remedy.
    """
    if isinstance(scaling, Isotonic):
        return
    if isinstance(scaling, Vector):
        if len(scaling.weight) != num_classes:
            raise InputError(
                f"`temperature` expects a factor for each of {num_classes} classes, got "
                f"{len(scaling.weight)}: use the calibration of this version"
            )
        return
    if not is_above_0(scaling):
        shown = str(scaling)[:40]
        raise InputError(f"`temperature` expects a number above 0, got {shown}: 1 changes nothing")


def _along(numbers: Tensor, logits: Tensor, dim: int) -> Tensor:
    shape = [1] * logits.ndim
    shape[dim] = -1
    return numbers.view(shape)


def _are_finite(numbers: Iterable[float]) -> bool:
    return all(map(isfinite, numbers))
