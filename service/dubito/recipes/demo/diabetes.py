"""Progression of diabetes a year on, from ten measurements: 442 rows, one real target.

A network with two heads, mean and log-variance, and learned drop probabilities. Rows are in the
units of the study; the network standardises them itself.
Source: Efron, Hastie, Johnstone, Tibshirani 2004, Least Angle Regression; as scikit-learn carries
it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import nn

from dubito.recipes.demo.recipe import DatasetRows, Recipe, Splits
from dubito_nn.dropout import ConcreteFamily
from dubito_nn.networks import MLP, Standardise
from dubito_nn.training import gaussian_nll

NUM_TRAIN = 242
NUM_CALIBRATION = 120


@cache
def diabetes_splits(seed: int = 0) -> Splits:
    """Return 242, 120 and 80 rows in the units of the study, drawn by the seed."""
    rows, progression = load_diabetes(return_X_y=True, scaled=False)
    rows, targets = rows.astype(np.float32), progression.astype(np.float64)[:, None]
    order = np.random.default_rng(seed).permutation(len(rows))
    train, calibration, test = np.split(order, [NUM_TRAIN, NUM_TRAIN + NUM_CALIBRATION])
    return Splits(
        train=DatasetRows(rows[train], targets[train]),
        calibration=DatasetRows(rows[calibration], targets[calibration]),
        test=DatasetRows(rows[test], targets[test]),
    )


def _two_heads(rows: DatasetRows) -> nn.Module:
    num_features = rows.inputs.shape[1]
    network = MLP(
        num_features,
        (64, 64),
        1,
        dropout=ConcreteFamily(num_rows=len(rows), length_scale=3.0),
        drop_inputs=True,
        heteroscedastic=True,
    )
    return nn.Sequential(Standardise(torch.from_numpy(rows.inputs)), network)


DIABETES = Recipe(
    name="diabetes",
    notes="Progression of diabetes after a year (25 to 346) from age, sex, body mass index, blood "
    "pressure and six serum values, in the units of the study; two heads, learned dropout.",
    task="regression",
    output="mean_and_log_variance",
    splits=diabetes_splits,
    build=_two_heads,
    loss=gaussian_nll,
    epochs=80,
    batch_size=32,
    learning_rate=3e-3,
)
