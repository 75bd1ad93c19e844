"""The truths of rows with several labels or positions, as callers write them.

    multilabel   for each row the names of the labels that are on, or 0 or 1 for each label in order
    dense        for each row nested lists (or an array) of class names or indices, -1: unlabelled

Dimensions: B rows, L labels, P positions (one axis or more).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dubito.calibration import truths
from dubito.errors import InputError
from dubito_nn import Manifest


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


def _of_positions(given: object, names: Sequence[str]) -> NDArray[np.generic]:
    try:
        array = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise InputError(
            "`labels` expects a class for every position, rows first, got ragged lists: send maps "
            "of one size, with -1 where nobody has labelled a position"
        ) from error
    if array.dtype.kind != "U":
        return array
    places = {name: place for place, name in enumerate(names)}
    known, place = np.unique(array, return_inverse=True)
    unknown = [str(name) for name in known if str(name) not in places]
    if unknown:
        raise InputError(
            f"`labels` expects names ({', '.join(names[:12])}) or indices from 0 to "
            f"{len(names) - 1}, got {unknown[0][:40]!r}: correct it"
        )
    index = np.array([places[str(name)] for name in known], np.int64)
    return index[place].reshape(array.shape)
