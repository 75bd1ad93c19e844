"""Reference networks that use the layers of dropout."""

from dubito_nn.networks.cnn import CNN
from dubito_nn.networks.cosine import CosineHead
from dubito_nn.networks.mlp import MLP
from dubito_nn.networks.standardise import Standardise

__all__ = ["CNN", "MLP", "CosineHead", "Standardise"]
