"""Layers that add a term of their own to the training objective, and the sum of those terms.

A layer takes part by having a method `regularisation() -> Tensor`; nothing needs to be inherited.
The training loop looks for such modules once and adds up their terms in every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Regularised(Protocol):
    """A layer with a term of its own in the objective."""

    def regularisation(self) -> Tensor:
        """Return the term, a differentiable scalar in the unit of the loss: nats per row."""
        ...


def regularised_layers(network: nn.Module) -> tuple[Regularised, ...]:
    """Return the layers of a network that add a term, each once, however often it is used."""
    return tuple(module for module in network.modules() if isinstance(module, Regularised))


def total_regularisation(network: nn.Module) -> Tensor:
    """Return the sum of the terms of all regularised layers; 0 where there is none.

    Args:
        network: Its modules are walked, each once, however often it is used.
    """
    return sum_of_terms(regularised_layers(network))


def sum_of_terms(layers: Sequence[Regularised]) -> Tensor:
    """Return the sum of the terms of these layers; 0 of none.

    Args:
        layers: As `regularised_layers` finds them, once for many steps: the search looks through
            all attributes of all modules.
    """
    terms = [layer.regularisation() for layer in layers]
    return torch.stack(terms).sum() if terms else torch.zeros(())
