"""Reference networks that use the layers of dropout.

mlp           flat rows; plain or learned dropout, one or two heads
selu          flat rows; self-normalising, alpha dropout
cnn           images; dropout of channels and units
resnet        images; stochastic depth, DropBlock
unet          images to a class per place; DropBlock
rnn           tokens; variational dropout, words dropped by type
transformer   tokens; dropout of embedding, attention, residual, feed-forward
cosine        a head that scores by angle
standardise   rows in their own units
"""

from dubito_nn.networks.cnn import CNN
from dubito_nn.networks.cosine import CosineHead
from dubito_nn.networks.mlp import MLP
from dubito_nn.networks.resnet import ResNet
from dubito_nn.networks.rnn import RNN
from dubito_nn.networks.selu import SELUNetwork
from dubito_nn.networks.standardise import Standardise
from dubito_nn.networks.transformer import Transformer, TransformerRates
from dubito_nn.networks.unet import PlaceProbabilities, UNet

__all__ = [
    "CNN",
    "MLP",
    "RNN",
    "CosineHead",
    "PlaceProbabilities",
    "ResNet",
    "SELUNetwork",
    "Standardise",
    "Transformer",
    "TransformerRates",
    "UNet",
]
