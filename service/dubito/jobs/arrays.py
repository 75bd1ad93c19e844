"""Named arrays as bytes and back, without pickle; the same arrays give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.generic]]


def to_bytes(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """A `.npz` file."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def from_bytes(content: bytes) -> Arrays:
    """What `to_bytes` wrote."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
