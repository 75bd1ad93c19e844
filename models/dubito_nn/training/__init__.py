"""Training with dropout: one loop, what goes into it, and what is read off the result.

seeding        randomness that ends where the block ends
losses         cross-entropy (smoothed), squared error, Gaussian, pinball
mixing         mixup, augmentations in turn
weights        which they are, and their L1 penalty
modes          with dropout and without
stopping       early stopping
loop           all of these, in order
likelihood     of held-out targets under T masked passes
search         p by that likelihood
precision      noise precision, weight decay, length-scale
reestimation   batch-norm statistics without dropout
gap            training against held-out rows, and the advice that follows
diagnose       sparsity, correlation, norms, single units
"""

from dubito_nn.dropout.max_norm import constrain_max_norm
from dubito_nn.training.diagnose import Activations, LayerDiagnosis, diagnose
from dubito_nn.training.gap import Advice, Gap, advise, measure_gap
from dubito_nn.training.likelihood import (
    Head,
    best_noise_precision,
    log_likelihood,
    sampled_outputs,
)
from dubito_nn.training.loop import Progress, TrainingResult, learned_drop_probs, train
from dubito_nn.training.losses import (
    Loss,
    Output,
    cross_entropy,
    gaussian_nll,
    pinball_loss,
    smoothed_cross_entropy,
    squared_error,
)
from dubito_nn.training.mixing import Augmentation, in_turn, mixup
from dubito_nn.training.modes import has_dropout, in_mode, mean_loss, outputs_of
from dubito_nn.training.precision import noise_precision, train_weight_decay, weight_decay
from dubito_nn.training.reestimation import reestimate_batch_norm, variance_shift
from dubito_nn.training.search import DropProbSearch, Trial, search_drop_prob
from dubito_nn.training.seeding import seeded
from dubito_nn.training.stopping import EarlyStopping
from dubito_nn.training.weights import l1_penalty

Search = DropProbSearch  # its public name from the first

__all__ = [
    "Activations",
    "Advice",
    "Augmentation",
    "DropProbSearch",
    "EarlyStopping",
    "Gap",
    "Head",
    "LayerDiagnosis",
    "Loss",
    "Output",
    "Progress",
    "Search",
    "TrainingResult",
    "Trial",
    "advise",
    "best_noise_precision",
    "constrain_max_norm",
    "cross_entropy",
    "diagnose",
    "gaussian_nll",
    "has_dropout",
    "in_mode",
    "in_turn",
    "l1_penalty",
    "learned_drop_probs",
    "log_likelihood",
    "mean_loss",
    "measure_gap",
    "mixup",
    "noise_precision",
    "outputs_of",
    "pinball_loss",
    "reestimate_batch_norm",
    "sampled_outputs",
    "search_drop_prob",
    "seeded",
    "smoothed_cross_entropy",
    "squared_error",
    "train",
    "train_weight_decay",
    "variance_shift",
    "weight_decay",
]
