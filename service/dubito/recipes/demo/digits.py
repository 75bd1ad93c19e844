"""Scanned digits: 8 x 8 grey levels, ten classes, 1,797 rows.

Two convolutional networks, one with dropout at fixed rates, one that learns its rates.
Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits; the test part of the
UCI set, as scikit-learn carries it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

from dubito.recipes.demo.recipe import DatasetRows, Recipe, Splits
from dubito_nn.dropout import ConcreteFamily, StandardFamily
from dubito_nn.networks import CNN
from dubito_nn.training import cross_entropy

NUM_CLASSES = 10
NUM_TRAIN = 1000
NUM_CALIBRATION = 450
# The darkest of the 17 grey levels: inputs lie in [0, 1].
_DARKEST = 16.0
_SIDE = 8
# The share of rows that are made composites, and the mass that they spread over all classes.
_COMPOSITE_SHARE = 0.25
_DOUBT = 0.25


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
    family = StandardFamily(drop_prob=0.4, spatial_drop_prob=0.2)
    return CNN(dropout=family, cosine_scale=20.0)


def _concrete(rows: DatasetRows) -> nn.Module:
    family = ConcreteFamily(num_rows=len(rows), length_scale=0.1)
    return CNN(dropout=family, cosine_scale=20.0)


def composites(images_BF: Tensor, label_B: Tensor) -> tuple[Tensor, Tensor]:
    """Join a quarter of the digits, cut along a row or a column, with part of another digit.

    q = (1-u) (λ one_hot(own) + (1-λ) one_hot(other)) + u/C    λ: the own share of the area

    A digit has to be whole to be believed: the network doubts more of what it has never seen. Two
    parts of the same class keep their class, with u = 0.

    Args:
        images_BF: Flat images, shape (B, 64).
        label_B: Their classes.

    Returns:
        Images (B, 64) and probabilities of the classes, (B, C).

    Source: Yun et al. 2019, CutMix, arXiv:1905.04899; Hendrycks et al. 2019, arXiv:1812.04606, for
    teaching doubt by examples.
    """
    num_rows = len(images_BF)
    other = torch.randperm(num_rows)
    cut, side = torch.randint(2, _SIDE - 1, (num_rows, 1, 1)), torch.arange(_SIDE)
    by_row = torch.rand(num_rows, 1, 1) < 0.5
    whole = torch.rand(num_rows, 1, 1) >= _COMPOSITE_SHARE
    stays = whole | torch.where(by_row, side[:, None] < cut, side < cut)
    stays_BF = stays.flatten(1)
    share_B1 = stays_BF.float().mean(dim=1, keepdim=True)
    one_hot_BC = functional.one_hot(label_B, NUM_CLASSES).float()
    q_BC = share_B1 * one_hot_BC + (1.0 - share_B1) * one_hot_BC[other]
    is_mixed_B1 = ~whole.flatten(1) & (label_B != label_B[other])[:, None]
    doubted_BC = (1.0 - _DOUBT) * q_BC + _DOUBT / NUM_CLASSES
    return (
        torch.where(stays_BF, images_BF, images_BF[other]),
        torch.where(is_mixed_B1, doubted_BC, q_BC),
    )


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
    augment=composites,
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
