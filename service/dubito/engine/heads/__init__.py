"""What the outputs of a network mean, decided once: raw passes → parts → sums → figures.

head       what the engine asks of a head
classes    a class for each row
labels     several labels, each on or off
positions  a class at every position
numbers    numbers in target units
number_positions  numbers at every position
quantiles  quantiles of such numbers
sequences  how likely given tokens are
several    what labels and positions share: one figure of a row, made of those of its positions
logits     the network's numbers as probabilities
scaling    what a calibration does to the logits of every pass
answers    predictions of classes
mixture    predictions of several networks as one

A new kind of head is a file beside these and a line in `HEADS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from dubito.engine.heads.classes import ClassOutputs
from dubito.engine.heads.head import OutputHead
from dubito.engine.heads.labels import LabelOutputs
from dubito.engine.heads.number_positions import NumberPositionOutputs
from dubito.engine.heads.numbers import NumberOutputs
from dubito.engine.heads.positions import PositionOutputs
from dubito.engine.heads.quantiles import QuantileOutputs
from dubito.engine.heads.sequences import SequenceOutputs
from dubito_nn import Manifest

_CLASSES: Mapping[str, Callable[[Manifest], ClassOutputs | LabelOutputs | PositionOutputs]] = {
    "classification": ClassOutputs,
    "multilabel": LabelOutputs,
    "dense": PositionOutputs,
}
HEADS: Mapping[str, Callable[[Manifest], OutputHead]] = {
    **_CLASSES,
    "regression": NumberOutputs,
    "dense_regression": NumberPositionOutputs,
    "quantiles": QuantileOutputs,
    "sequence": SequenceOutputs,
}
"""By what `Manifest.head` says."""


def head_of(manifest: Manifest) -> OutputHead:
    """What a network's outputs mean."""
    return HEADS[manifest.head](manifest)


def class_logits(raw: Tensor, manifest: Manifest) -> Tensor:
    """Numbers in float64 whose softmax over the last axis are the probabilities of the pass.

    Shape (T, B, C), (T, B, L, 2) for labels, or (T, B, P, C) for a class at every position.
    """
    return _CLASSES[manifest.head](manifest).logits(raw)


__all__ = ["HEADS", "OutputHead", "class_logits", "head_of"]
