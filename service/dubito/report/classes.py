"""The figures of a classification, each a function of how often its rows count.

Dimensions: B rows, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dubito import ties
from dubito.report.rejection import aurc, e_aurc
from dubito.report.reliability import adaptive_ece, classwise_ece, confidence, ece
from dubito.report.statistics import Floats, Statistics, mean_of


def classification_statistics(
    mean_BC: Floats,
    label_B: NDArray[np.int64],
    sets_BC: NDArray[np.bool_] | None,
    nll_B: Floats | None = None,
) -> Statistics:
    """Accuracy, NLL, Brier, errors of calibration, AURC, and what there is to say of the sets.

    nll = -1/B Σ_b log p̄_by, in nats; infinite where one is 0
    brier = 1/B Σ_b Σ_c (p̄_bc - [c = y_b])², in [0, 2], for two classes as well

    `set_size` is the mean number of classes, `empty_sets` the share of sets without any.

    Args:
        mean_BC: mean probabilities.
        label_B: class index of each row.
        sets_BC: which classes each set holds; None before a calibration.
        nll_B: -log p̄_by, of the logits where p̄ underflows; None: of `mean_BC`.

    Source: Brier 1950, Monthly Weather Review 78:1-3.
    """
    rows = np.arange(len(label_B))
    probs_BC = mean_BC / mean_BC.sum(axis=-1, keepdims=True)
    _, is_right_B = confidence(mean_BC, label_B)
    if nll_B is None:
        with np.errstate(divide="ignore"):
            nll_B = -np.log(probs_BC[rows, label_B])
    # Σ_c (p_c - [c = y])² = Σ_c p_c² - 2 p_y + 1
    brier_B = (probs_BC**2).sum(axis=-1) - 2 * probs_BC[rows, label_B] + 1
    size_B = None if sets_BC is None else sets_BC.sum(axis=-1).astype(np.float64)
    return {
        "accuracy": mean_of(is_right_B),
        "nll": mean_of(nll_B),
        "brier": mean_of(brier_B),
        "ece": ece(mean_BC, label_B),
        "adaptive_ece": adaptive_ece(mean_BC, label_B),
        "classwise_ece": classwise_ece(probs_BC, label_B),
        "aurc": aurc(mean_BC, label_B),
        "e_aurc": e_aurc(mean_BC, label_B),
        "set_coverage": None
        if sets_BC is None
        else mean_of(sets_BC[rows, label_B].astype(np.float64)),
        "set_size": None if size_B is None else mean_of(size_B),
        "empty_sets": None if size_B is None else mean_of((size_B == 0).astype(np.float64)),
    }


def confusion(mean_BC: Floats, label_B: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    """How many rows of each class (first) are taken for each class."""
    num_classes = mean_BC.shape[-1]
    place_B = label_B * num_classes + ties.most_probable(mean_BC)
    counts = np.bincount(place_B, minlength=num_classes**2).reshape(num_classes, num_classes)
    return tuple(tuple(row) for row in counts.tolist())
