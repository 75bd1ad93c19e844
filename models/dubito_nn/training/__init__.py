"""Training with dropout: one loop, what goes into it, and what is read off the result.

seeding        randomness that ends where the block ends
losses         cross-entropy (smoothed), squared error, Gaussian
mixing         mixup, augmentations in turn
constraints    L1, max-norm
modes          with dropout and without
stopping       early stopping
loop           all of these, in order
"""

from dubito_nn.training.constraints import constrain_max_norm, l1_penalty
from dubito_nn.training.loop import Progress, TrainingResult, learned_drop_probs, train
from dubito_nn.training.losses import (
    Loss,
    Output,
    cross_entropy,
    gaussian_nll,
    smoothed_cross_entropy,
    squared_error,
)
from dubito_nn.training.mixing import Augmentation, in_turn, mixup
from dubito_nn.training.modes import has_dropout, in_mode, mean_loss, outputs_of
from dubito_nn.training.seeding import seeded
from dubito_nn.training.stopping import EarlyStopping

__all__ = [
    "Augmentation",
    "EarlyStopping",
    "Loss",
    "Output",
    "Progress",
    "TrainingResult",
    "constrain_max_norm",
    "cross_entropy",
    "gaussian_nll",
    "has_dropout",
    "in_mode",
    "in_turn",
    "l1_penalty",
    "learned_drop_probs",
    "mean_loss",
    "mixup",
    "outputs_of",
    "seeded",
    "smoothed_cross_entropy",
    "squared_error",
    "train",
]
