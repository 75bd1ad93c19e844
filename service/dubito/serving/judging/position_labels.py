"""The truths of rows with several labels or positions, as callers write them.

    multilabel   for each row the names of the labels that are on, or 0 or 1 for each label in order
    dense        for each row nested lists (or an array) of class names or indices, -1: unlabelled

Dimensions: B rows, L labels, P positions (one axis or more).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from dubito.calibration import truths
from dubito.errors import InputError
from dubito_nn import Manifest

_UNLABELLED = "-1"  # in an array of text, unless a class has that name


def read_position_labels(
    given: object, manifest: Manifest, num_rows: int, shape: tuple[int, ...]
) -> NDArray[np.int64]:
    """Class index of each label or position, (B, P) with one axis for all positions.

    Args:
        given: as it came.
        manifest: of the network.
        num_rows: B.
        shape: axes of positions that the network returns for these rows.

    Raises:
        InputError: another shape, an unknown name, or what is no class.
    """
    names = manifest.classes or ()
    if manifest.head == "multilabel":
        index = _of_labels(given, names)
        if len(index) != num_rows:
            raise InputError(
                f"`labels` expects one list for every row, {num_rows} in all, got {len(index)}: "
                "send as many as rows"
            )
        return truths.position_labels(index, (num_rows, len(names)), 2)
    return truths.position_labels(_of_positions(given, names), (num_rows, *shape), len(names))


def _of_labels(given: object, names: Sequence[str]) -> NDArray[np.int64]:
    expected = (
        "`labels` expects for every row the names of the labels that are on, or 0 or 1 for each of "
        f"the {len(names)} labels ({', '.join(names[:12])})"
    )
    if isinstance(given, np.ndarray):
        if given.ndim != 2 or given.dtype.kind not in "biu" or given.shape[1] != len(names):
            raise InputError(
                f"{expected}, got {given.dtype} of shape {given.shape}: send an array (rows, "
                f"{len(names)})"
            )
        return _on_or_off(given.astype(np.int64), expected)
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise InputError(f"{expected}, got {str(given)[:40]!r}: send a list of lists")
    places = {name: place for place, name in enumerate(names)}
    rows = [_row(value, row, places, expected) for row, value in enumerate(given)]
    return _on_or_off(np.array(rows, np.int64).reshape(-1, len(names)), expected)


def _row(value: object, row: int, places: Mapping[str, int], expected: str) -> list[int]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        if all(isinstance(one, str) and one in places for one in value):
            on = {places[str(one)] for one in value}
            return [int(place in on) for place in range(len(places))]
        if len(value) == len(places) and all(isinstance(one, int) for one in value):
            return [int(one) for one in value]
    raise InputError(f"{expected}, got {str(value)[:60]!r} in row {row}: correct that row")


def _on_or_off(index_BL: NDArray[np.int64], expected: str) -> NDArray[np.int64]:
    is_wrong = (index_BL != 0) & (index_BL != 1)
    if is_wrong.any():
        row = int(is_wrong.any(axis=1).argmax())
        wrong = int(index_BL[is_wrong][0])
        raise InputError(f"{expected}, got {wrong} in row {row}: correct that row")
    return index_BL


def _of_positions(given: object, names: Sequence[str]) -> NDArray[np.int64]:
    """Each on its own: text is a name, an integer an index, -1 is unlabelled."""
    expected = (
        f"`labels` expects for every position a name ({', '.join(names[:12])}), an index from 0 to "
        f"{len(names) - 1}, or -1 where nobody has labelled it"
    )
    if isinstance(given, np.ndarray) and given.dtype.kind in "iu":
        return _in_bounds(given, len(names), expected)
    array = _as_objects(given, expected)
    places = {_UNLABELLED: -1} | {name: at for at, name in enumerate(names)}
    index = np.empty(array.size, np.int64)
    for at, one in enumerate(array.ravel().tolist()):
        place = _index_of(one, places)
        if place is None or not -1 <= place < len(names):
            row = at // max(1, array.size // len(array))
            raise InputError(f"{expected}, got {str(one)[:40]!r} in row {row}: correct it")
        index[at] = place
    return index.reshape(array.shape)


def _index_of(one: object, places: Mapping[str, int]) -> int | None:
    if isinstance(one, str):
        return places.get(one)
    return None if isinstance(one, bool) or not isinstance(one, Integral) else int(one)


def _as_objects(given: object, expected: str) -> NDArray[np.object_]:
    try:
        is_ragged = np.asarray(given).ndim == 0
        array = np.array(given, dtype=object)
    except (ValueError, TypeError):
        is_ragged = True
    if is_ragged:
        raise InputError(f"{expected}, rows first, got ragged lists: send maps of one size")
    return array


def _in_bounds(array: NDArray[np.integer], num_classes: int, expected: str) -> NDArray[np.int64]:
    is_wrong = (array < -1) | (array >= num_classes) if array.size else np.zeros(0, bool)
    if is_wrong.any():
        row = int(is_wrong.reshape(len(array), -1).any(axis=1).argmax())
        raise InputError(f"{expected}, got {array[is_wrong][0]} in row {row}: correct it")
    return array.astype(np.int64)
