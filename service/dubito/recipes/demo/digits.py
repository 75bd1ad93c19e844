"""Scanned digits: 8 x 8 grey levels, ten classes, 1,797 rows.

Two convolutional networks, one with dropout at fixed rates, one that learns its rates.
Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits; the test part of the
UCI set, as scikit-learn carries it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from dubito.recipes.demo.recipe import DatasetRows, Recipe, Splits
from dubito_nn.dropout import ConcreteFamily, StandardFamily
from dubito_nn.networks import CNN
from dubito_nn.training import cross_entropy

NUM_CLASSES = 10
NUM_TRAIN = 1000
NUM_CALIBRATION = 450
# The darkest of the 17 grey levels: inputs lie in [0, 1].
_DARKEST = 16.0


@cache
def digit_splits(seed: int = 0) -> Splits:
    """Return 1000, 450 and 347 rows with the classes in the same shares, drawn by the seed."""
    images, labels = load_digits(return_X_y=True)
    images = (images / _DARKEST).astype(np.float32)
    labels = labels.astype(np.int64)
    train, held_out, train_labels, held_out_labels = train_test_split(
        images, labels, train_size=NUM_TRAIN, stratify=labels, random_state=seed
    )
    calibration, test, calibration_labels, test_labels = train_test_split(
        held_out,
        held_out_labels,
        train_size=NUM_CALIBRATION,
        stratify=held_out_labels,
        random_state=seed,
    )
    return Splits(
        train=DatasetRows(train, train_labels),
        calibration=DatasetRows(calibration, calibration_labels),
        test=DatasetRows(test, test_labels),
    )


def _standard(rows: DatasetRows) -> nn.Module:
    return CNN(dropout=StandardFamily(drop_prob=0.4, spatial_drop_prob=0.2))


def _concrete(rows: DatasetRows) -> nn.Module:
    family = ConcreteFamily(num_rows=len(rows), length_scale=0.1)
    return CNN(dropout=family, cosine_scale=20.0)


_CLASSES = tuple(str(digit) for digit in range(NUM_CLASSES))

DIGITS = Recipe(
    name="digits",
    notes="Scanned digits, 64 grey levels from 0 (paper) to 1 (ink); convolutions with dropout.",
    task="classification",
    output="logits",
    splits=digit_splits,
    build=_standard,
    loss=cross_entropy,
    epochs=40,
    batch_size=50,
    learning_rate=2e-3,
    classes=_CLASSES,
)

DIGITS_CONCRETE = Recipe(
    name="digits-concrete",
    notes="Scanned digits, 64 grey levels from 0 (paper) to 1 (ink); dropout with learned rates.",
    task="classification",
    output="logits",
    splits=digit_splits,
    build=_concrete,
    loss=cross_entropy,
    epochs=60,
    batch_size=50,
    learning_rate=2e-3,
    classes=_CLASSES,
)
