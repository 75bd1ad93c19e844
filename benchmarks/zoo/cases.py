"""What a network of the zoo is tried with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """One network with small random weights.

    Args:
        network: as its library makes it.
        inputs: an example by name; the network takes it by keyword.
        terms: further arguments of `dubito_nn.export`.
    """

    network: nn.Module
    inputs: dict[str, Tensor]
    terms: dict[str, object] = field(default_factory=dict)


Build = Callable[[], Case]
