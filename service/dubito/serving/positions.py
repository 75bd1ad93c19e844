"""Columns of heads that say more than one thing of a row, as a reply has them.

A label is on or off, so its probability is one number: `mean` and its like are (B, L), that of
being on. A class at every position keeps all of them: (B, P, C).

Dimensions: B rows, L labels, P positions (one axis or more), C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dubito.columns import ClassNames, ClassSets, Column
from dubito.engine import Classification, Regression

BY_POSITION = (
    "position_predictive_entropy",
    "position_expected_entropy",
    "position_mutual_information",
    "position_mutual_information_corrected",
    "position_variation_ratio",
)
"""Columns with one figure per label or position; without the prefix they are those of the row."""


def shown(
    prediction: Classification | Regression, value: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Figures of classes as a reply has them: of labels those of being on.

    Args:
        prediction: whose figures they are.
        value: the classes on the last axis.
    """
    return np.ascontiguousarray(value[..., 1]) if _head(prediction) == "multilabel" else value


def labels(prediction: Classification) -> Column:
    """The most probable class of each row or position, or the labels that are on; null: none."""
    index, classes, is_known = prediction.label_index, prediction.classes, known(prediction)
    head = _head(prediction)
    if head == "multilabel":
        return ClassSets((index == 1) & is_known[:, None], is_known, classes)
    if head == "dense":
        return ClassNames(np.where(is_known, index, -1), classes)
    named = (*classes, None)
    return [named[place] for place in np.where(is_known, index, -1).tolist()]


def known(prediction: Classification) -> NDArray[np.bool_]:
    """Where the network did not overflow: rows, or the positions of a map; labels all or none."""
    axes = (-2, -1) if _head(prediction) == "multilabel" else -1
    is_known: NDArray[np.bool_] = np.asarray(np.isfinite(prediction.mean).all(axis=axes))
    return is_known


def shown_sets(prediction: Classification, is_member: NDArray[np.bool_]) -> ClassSets:
    """Prediction sets; of labels those that may be on."""
    if _head(prediction) == "multilabel":
        is_member = is_member[..., 1]
    return _sets(prediction, is_member)


def certain_sets(prediction: Classification, is_member: NDArray[np.bool_]) -> ClassSets:
    """The labels that must be on: whose set holds nothing else."""
    return _sets(prediction, is_member[..., 1] & ~is_member[..., 0])


def _sets(prediction: Classification, is_member: NDArray[np.bool_]) -> ClassSets:
    is_known = known(prediction)
    return ClassSets(is_member & is_known[..., None], is_known, prediction.classes)


def by_position(prediction: Classification) -> dict[str, Callable[[], Column]]:
    """The columns of `BY_POSITION`; none for one distribution per row."""
    each = prediction.positions
    if each is None:
        return {}
    return {
        "position_predictive_entropy": lambda: each.predictive_entropy,
        "position_expected_entropy": lambda: each.expected_entropy,
        "position_mutual_information": lambda: each.mutual_information,
        "position_mutual_information_corrected": lambda: each.mutual_information_corrected,
        "position_variation_ratio": lambda: each.variation_ratio,
    }


def _head(prediction: Classification | Regression) -> str | None:
    if isinstance(prediction, Regression) or prediction.positions is None:
        return None
    return prediction.positions.head
