"""Layers of dropout, one file per variant, and how a network chooses among them."""

from dubito_nn.dropout.concrete import ConcreteDropout, ConcreteDropout2d, concrete_regularisers
from dubito_nn.dropout.family import ConcreteFamily, DropoutFamily, StandardFamily
from dubito_nn.dropout.regularised import Regularised, total_regularisation

__all__ = [
    "ConcreteDropout",
    "ConcreteDropout2d",
    "ConcreteFamily",
    "DropoutFamily",
    "Regularised",
    "StandardFamily",
    "concrete_regularisers",
    "total_regularisation",
]
