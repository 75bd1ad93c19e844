"""Layers that add a term of their own to the training objective, and the sum of those terms.

A layer takes part by having a method `regularisation() -> Tensor`; nothing needs to be inherited.
The training loop walks the modules of a network and adds up what it finds.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Regularised(Protocol):
    """A layer with a term of its own in the objective."""

    def regularisation(self) -> Tensor:
        """Return the term, a differentiable scalar in the unit of the loss: nats per row."""
        ...


def total_regularisation(network: nn.Module) -> Tensor:
    """Return the sum of the terms of all regularised layers; 0 where there is none.

    Args:
        network: Its modules are walked, each once, however often it is used.
    """
    terms = [
        module.regularisation() for module in network.modules() if isinstance(module, Regularised)
    ]
    return torch.stack(terms).sum() if terms else torch.zeros(())
