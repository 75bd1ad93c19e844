"""Layers of dropout, one file per variant, and how a network chooses among them.

    units/                of activations: units, channels, blocks
    weights/              of weights, and noise that is learned for each
    sequences/            over time: states, words, tokens, positions
    stochastic_depth.py   of whole residual branches
    probability.py        p, checked whenever it is set
    masks.py              Bernoulli masks, and how they are applied
    schedules.py          how p grows over blocks, or over steps
    max_norm.py           the constraint that goes with dropout
    regularised.py        terms that layers add to the objective
    family.py             which layer a network takes for each place

Every layer has a `drop_prob`, rolls its dice in training mode alone, and can be exported.
"""

from dubito_nn.dropout.family import ConcreteFamily, DropoutFamily, StandardFamily
from dubito_nn.dropout.masks import apply_mask
from dubito_nn.dropout.max_norm import constrain_max_norm
from dubito_nn.dropout.regularised import Regularised, total_regularisation
from dubito_nn.dropout.schedules import LinearSchedule, linear_over_depth
from dubito_nn.dropout.sequences.embedding import (
    PositionalDropout,
    TokenDropout,
    UnknownWordDropout,
    WordTypeDropout,
)
from dubito_nn.dropout.sequences.recurrent import RecurrentDropoutGRU, RecurrentDropoutLSTM
from dubito_nn.dropout.sequences.variational import (
    TimeTiedDropout,
    VariationalGRU,
    VariationalLSTM,
)
from dubito_nn.dropout.stochastic_depth import StochasticDepth
from dubito_nn.dropout.units.alpha import AlphaDropout, FeatureAlphaDropout
from dubito_nn.dropout.units.concrete import (
    ConcreteDropout,
    ConcreteDropout1d,
    ConcreteDropout2d,
    concrete_regularisers,
)
from dubito_nn.dropout.units.dropblock import DropBlock1d, DropBlock2d
from dubito_nn.dropout.units.gaussian import GaussianDropout, LearnedGaussianDropout
from dubito_nn.dropout.units.spatial import SpatialDropout1d, SpatialDropout2d, SpatialDropout3d
from dubito_nn.dropout.units.standard import Dropout, OriginalDropout
from dubito_nn.dropout.weights.dropconnect import DropConnect, gaussian_expectation
from dubito_nn.dropout.weights.pruning import compression, pruned
from dubito_nn.dropout.weights.sparse import SparseConv2d, SparseLinear
from dubito_nn.dropout.weights.targeted import (
    TargetedActivationDropout,
    TargetedUnitDropout,
    TargetedWeightDropout,
)

__all__ = [
    "AlphaDropout",
    "ConcreteDropout",
    "ConcreteDropout1d",
    "ConcreteDropout2d",
    "ConcreteFamily",
    "DropBlock1d",
    "DropBlock2d",
    "DropConnect",
    "Dropout",
    "DropoutFamily",
    "FeatureAlphaDropout",
    "GaussianDropout",
    "LearnedGaussianDropout",
    "LinearSchedule",
    "OriginalDropout",
    "PositionalDropout",
    "RecurrentDropoutGRU",
    "RecurrentDropoutLSTM",
    "Regularised",
    "SparseConv2d",
    "SparseLinear",
    "SpatialDropout1d",
    "SpatialDropout2d",
    "SpatialDropout3d",
    "StandardFamily",
    "StochasticDepth",
    "TargetedActivationDropout",
    "TargetedUnitDropout",
    "TargetedWeightDropout",
    "TimeTiedDropout",
    "TokenDropout",
    "UnknownWordDropout",
    "VariationalGRU",
    "VariationalLSTM",
    "WordTypeDropout",
    "apply_mask",
    "compression",
    "concrete_regularisers",
    "constrain_max_norm",
    "gaussian_expectation",
    "linear_over_depth",
    "pruned",
    "total_regularisation",
]
