"""The drop probability p of a layer: a number that is checked whenever it is set."""

from __future__ import annotations

from numbers import Real
from typing import overload

from torch import nn


class Probability:
    """A class attribute that lets only probabilities in: 0 ≤ p ≤ 1, or p < 1 on request.

    The number lies in the layer's `vars()` under its own name, like any other attribute.

    Args:
        below_one: Whether p = 1 is refused, for variants that divide by 1-p and keep no zeros.

    Raises:
        ValueError: On setting a number out of range.
    """

    def __init__(self, *, below_one: bool = False) -> None:
        self._below_one = below_one

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Probability: ...

    @overload
    def __get__(self, instance: nn.Module, owner: type) -> float: ...

    def __get__(self, instance: nn.Module | None, owner: type) -> Probability | float:
        if instance is None:
            return self
        value: float = instance.__dict__[self._name]
        return value

    def __set__(self, instance: nn.Module, value: float) -> None:
        instance.__dict__[self._name] = checked(value, name=self._name, below_one=self._below_one)


def checked(value: float, *, name: str = "drop_prob", below_one: bool = False) -> float:
    """Return a probability as a float.

    Args:
        value: What to check.
        name: Of the argument, for the message.
        below_one: Whether 1 is refused.

    Raises:
        ValueError: It is no number in [0, 1], or not in [0, 1).
    """
    given: object = value
    is_number = isinstance(given, Real) and not isinstance(given, bool)
    if not is_number or not (0.0 <= value < 1.0 or (value == 1.0 and not below_one)):
        span = "[0, 1)" if below_one else "[0, 1]"
        raise ValueError(
            f"expected {name} in {span}, got {value!r}: it is the probability of dropping, "
            "0.5 drops every second one"
        )
    return float(value)
