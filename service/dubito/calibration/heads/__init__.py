"""What the outputs of a network mean to a calibration, decided once: one file a kind.

head       what fits and reports ask of a head
served     what replies, decisions and monitoring ask of its predictions
classes    a class for each row
labels     several labels, each on or off
positions  a class at every position
numbers    numbers in target units
number_positions  numbers at every position
quantiles  quantiles of such numbers
sequences  how likely given tokens are: figures of passes, and nothing to fit
several    what labels and positions share
served_numbers  what all predictions in target units share
logits     what all heads of classes share

A new kind of head is a file beside these and a line in `HEADS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dubito.calibration.heads.classes import ClassHead
from dubito.calibration.heads.head import Head
from dubito.calibration.heads.labels import LabelHead
from dubito.calibration.heads.number_positions import NumberPositionHead
from dubito.calibration.heads.numbers import NumberHead
from dubito.calibration.heads.positions import PositionHead
from dubito.calibration.heads.quantiles import QuantileHead
from dubito.calibration.heads.sequences import SequenceHead
from dubito.calibration.heads.served import Request, Served
from dubito_nn import Manifest

if TYPE_CHECKING:
    from dubito.calibration.stored import Stored

HEADS: Mapping[str, type[Head]] = {
    "classification": ClassHead,
    "multilabel": LabelHead,
    "dense": PositionHead,
    "regression": NumberHead,
    "dense_regression": NumberPositionHead,
    "quantiles": QuantileHead,
    "sequence": SequenceHead,
}
"""By what `Manifest.head`, and `Stored.head`, says."""


def head_of(manifest: Manifest) -> Head:
    """What a network's outputs mean, raw."""
    return HEADS[manifest.head].of_manifest(manifest)


def head_of_record(record: Stored) -> Head:
    """What they mean as a calibration has it.

    Raises:
        InputError: fields that do not fit together.
    """
    return HEADS[record.head].of_record(record)


__all__ = ["HEADS", "Head", "Request", "Served", "head_of", "head_of_record"]
