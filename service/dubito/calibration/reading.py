"""Truths as callers write them, to class indices or targets.

    one class    for each row a class name or index
    labels       for each row the names of the labels that are on, or 0 or 1 for each label in order
    positions    for each row nested lists (or an array) of class names or indices, -1: unlabelled
    numbers      for each row a number for each output, or one number where there is one output
    at positions nested lists (or an array), the outputs last, null or NaN: not measured

Dimensions: B rows, L labels, P positions (one axis or more), D outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dubito.calibration import truths
from dubito.errors import InputError
from dubito.labels import SETTLE, Classes, LabelsAre, integer
from dubito_nn import Manifest


@dataclass(frozen=True)
class Written:
    """The truths of some rows, as they came.

    Args:
        manifest: of the network.
        num_rows: B.
        position_shape: finds the axes of positions that the network returns for these rows.
        labels: class names or indices.
        targets: numbers.
        labels_are: what integers among the labels are; of several labels, `indices` are 0 or 1.
    """

    manifest: Manifest
    num_rows: int
    position_shape: Callable[[], tuple[int, ...]] = tuple
    labels: object = None
    targets: object = None
    labels_are: LabelsAre | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; none for numbers."""
        return self.manifest.classes or ()

    def only_labels(self) -> object:
        """Return the labels as they came.

        Raises:
            InputError: there are none, or targets as well.
        """
        self._check("labels", self.labels, "targets", self.targets)
        return self.labels

    def only_targets(self) -> object:
        """Return the targets as they came.

        Raises:
            InputError: there are none, or something of labels as well.
        """
        self._check("targets", self.targets, "labels", self.labels)
        if self.labels_are is not None:
            raise InputError("`labels_are` belongs to labels, got targets: leave it out")
        return self.targets

    def _check(self, wanted: str, value: object, unwanted: str, other: object) -> None:
        if value is None or other is not None:
            raise InputError(
                f"labelled rows of a {self.manifest.head} head: expected `{wanted}`, got "
                f"{'none' if value is None else f'`{unwanted}` as well'}: send `{wanted}` alone"
            )


def read_classes(written: Written) -> NDArray[np.int64]:
    """Class index of each row, (B,).

    Raises:
        InputError: a wrong count, or what is no class.
    """
    labels, classes = written.only_labels(), Classes(written.classes, written.labels_are)
    values = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InputError("`labels` expects a list of class names or class indices")
    index = [classes.index(value, "`labels`", f" in row {row}") for row, value in enumerate(values)]
    index_B = np.array(index, dtype=np.int64)
    return truths.labels(index_B, written.num_rows, written.manifest.num_outputs)


def read_labels(written: Written) -> NDArray[np.int64]:
    """Which labels of each row are on: 0 or 1, (B, L).

    Raises:
        InputError: another shape, an unknown name, or what is no label.
    """
    names = written.classes
    index = _of_labels(written.only_labels(), Classes(names, written.labels_are))
    if len(index) != written.num_rows:
        raise InputError(
            f"`labels` expects one list for every row, {written.num_rows} in all, got "
            f"{len(index)}: send as many as rows"
        )
    return truths.position_labels(index, (written.num_rows, len(names)), 2)


def read_positions(written: Written) -> NDArray[np.int64]:
    """Class index of each position, (B, P) with one axis for all positions; -1: unlabelled.

    Raises:
        InputError: another shape, an unknown name, or what is no class.
    """
    labels, names = written.only_labels(), written.classes
    index = _of_positions(labels, Classes(names, written.labels_are, may_be_unlabelled=True))
    shape = (written.num_rows, *written.position_shape())
    return truths.position_labels(index, shape, len(names))


def read_targets(written: Written) -> NDArray[np.float64]:
    """Return the targets as float64, (B, D).

    Raises:
        InputError: another shape, or a number that is not finite.
    """
    targets, num_outputs = written.only_targets(), written.manifest.num_outputs
    try:
        return truths.targets(cast(ArrayLike, targets), written.num_rows, num_outputs)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"`targets` expects rows of {num_outputs} numbers, got ragged ones or no "
            "numbers: send one list of the same length per row"
        ) from error


def read_some_targets(written: Written) -> NDArray[np.float64]:
    """Return the targets as float64, (B, D); those of a row with null or NaN are all NaN.

    Raises:
        InputError: another shape, or an infinite number.
    """
    shape = (written.num_rows, written.manifest.num_outputs)
    target = np.asarray(_measured(written.only_targets()))
    is_missing = np.isnan(target) if target.dtype.kind == "f" else np.zeros(target.shape, bool)
    known_BD = truths.targets(np.where(is_missing, 0, target), *shape)
    return np.where(is_missing.reshape(shape).any(axis=1, keepdims=True), np.nan, known_BD)


def read_position_targets(written: Written) -> NDArray[np.float64]:
    """Targets of positions, (B, P, D) with one axis for all positions; NaN: not measured.

    The outputs are last, as in what is predicted. Where there is one, their axis may be left out,
    or stand where the network has it, which changes no order.

    Raises:
        InputError: another shape, what is no number, or a row in which nothing was measured.
    """
    targets, manifest = written.only_targets(), written.manifest
    positions, num_outputs = written.position_shape(), manifest.num_outputs
    shape = (written.num_rows, *positions, num_outputs)
    target = _measured(targets)
    layout = list(shape[:-1])
    layout.insert(manifest.channel_axis or 0, num_outputs)
    if num_outputs == 1 and target.shape == tuple(layout):
        target = target.reshape(shape)
    return truths.position_targets(target, shape)


def _measured(targets: object) -> NDArray[np.generic]:
    """Numbers as they came; null is NaN."""
    if isinstance(targets, np.ndarray):
        return targets
    numbers = _as_objects(targets, "`targets` expects a number for every position and output")
    flat = numbers.ravel().tolist()
    if not all(number is None or type(number) in (int, float) for number in flat):
        wrong = next(
            value for value in flat if value is not None and type(value) not in (int, float)
        )
        raise InputError(
            "`targets` expects numbers, or null where nothing was measured, got "
            f"{str(wrong)[:40]!r}: correct it"
        )
    try:
        return numbers.astype(np.float64)
    except OverflowError as error:
        raise InputError(
            "`targets` expects numbers of 64 bits, got a larger one: correct it"
        ) from error


def _of_labels(labels: object, classes: Classes) -> NDArray[np.int64]:
    names = classes.names
    expected = (
        "`labels` expects for every row the names of the labels that are on, or 0 or 1 for each of "
        f"the {len(names)} labels ({', '.join(names[:12])})"
    )
    if _are_flags(labels, classes):
        return np.asarray(labels, dtype=np.int64)
    values = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InputError(f"{expected}, got {str(values)[:40]!r}: send a list of lists")
    rows = [_row(value, row, classes, expected) for row, value in enumerate(values)]
    return np.array(rows, np.int64).reshape(-1, len(names))


def _are_flags(labels: object, classes: Classes) -> bool:
    """Whether it is an array of 0 and 1 for each label, which can be no names: of large ones."""
    can_be_names = classes.labels_are == "names" or len(classes.names) < 3
    return (
        not can_be_names
        and isinstance(labels, np.ndarray)
        and labels.dtype.kind in "iu"
        and labels.shape[1:] == (len(classes.names),)
        and bool(((labels == 0) | (labels == 1)).all())
    )


def _row(value: object, row: int, classes: Classes, expected: str) -> list[int]:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    flags = _flags(cast(Sequence[object], value), row, classes) if is_list else None
    if flags is None:
        raise InputError(f"{expected}, got {str(value)[:60]!r} in row {row}: correct that row")
    return flags


def _flags(value: Sequence[object], row: int, classes: Classes) -> list[int] | None:
    """0 or 1 for each label; None where a row says neither that nor names."""
    may_be_integers = classes.labels_are == "names"
    if all(
        isinstance(label, str) or (may_be_integers and not isinstance(label, bool))
        for label in value
    ):
        on = {classes.find(label, "`labels`", f" in row {row}") for label in value}
        return None if None in on else [int(index in on) for index in range(len(classes.names))]
    is_each = len(value) == len(classes.names) and all(
        isinstance(label, int | np.integer) and label in (0, 1) for label in value
    )
    flags = [int(cast(int, label)) for label in value] if is_each else None
    _refuse_other_names(value, flags, row, classes)
    return flags


def _refuse_other_names(
    value: Sequence[object], flags: list[int] | None, row: int, classes: Classes
) -> None:
    """Refuse integers, each there once, that are labels as names, and others as 0 and 1."""
    if classes.labels_are is not None or len(set(map(str, value))) < len(value):
        return
    numbers = [integer(label) for label in value]
    named = [[] if number is None else classes.named(number) for number in numbers]
    on = {index for indices in named for index in indices}
    if all(named) and flags != [int(index in on) for index in range(len(classes.names))]:
        raise InputError(
            "`labels` expects names, or 0 or 1 for each label, got integers that are names of "
            f"labels, {str(value)[:60]}, in row {row}: {SETTLE}"
        )


def _of_positions(labels: object, classes: Classes) -> NDArray[np.int64]:
    """Each on its own: text is a name, an integer an index, -1 is unlabelled."""
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "iu":
        array: NDArray[np.generic] = labels
        values, first, inverse = np.unique(array, return_index=True, return_inverse=True)
    else:
        array = _as_objects(labels, f"`labels` expects for every position {classes.expected}")
        values, first, inverse = array.ravel(), np.arange(array.size), np.arange(array.size)
    per_row = max(1, math.prod(array.shape[1:]))
    rows = (first // per_row).tolist()
    index = [
        classes.index(label, "`labels`", f" in row {row}")
        for label, row in zip(values.tolist(), rows, strict=True)
    ]
    return np.array(index, np.int64)[inverse].reshape(array.shape)


def _as_objects(labels: object, expected: str) -> NDArray[np.object_]:
    try:
        is_ragged = np.asarray(labels).ndim == 0
        array = np.array(labels, dtype=object)
    except (ValueError, TypeError):
        is_ragged = True
    if is_ragged:
        raise InputError(f"{expected}, rows first, got ragged lists: send maps of one size")
    return array
