"""Reference networks that use the layers of dropout."""

from dubito_nn.networks.cnn import CNN
from dubito_nn.networks.cosine import CosineHead
from dubito_nn.networks.mlp import MLP

__all__ = ["CNN", "MLP", "CosineHead"]
