"""One uniform number per row for randomised sets, the same whenever the row is asked about.

Its job: a number that depends on the seed and the row's own content and on nothing else: neither
on its place, nor on its batch-mates, nor on rounding in the network. Rows that are exchangeable
stay so, hence coverage holds; equal rows get equal sets.

Dimensions: B rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

_BITS = 53  # of a float64 in [0, 1)


def by_content(inputs: Mapping[str, NDArray[np.generic]], seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) per row, from a digest of the row under the seed.

    Args:
        inputs: rows first, by input name; of the types that the network takes.
        seed: that of the masks.
    """
    names = sorted(inputs)
    columns = [np.ascontiguousarray(inputs[name]) + 0 for name in names]  # no -0.0
    key = f"{seed}".encode()
    numbers = []
    for row in zip(*columns, strict=True):
        digest = blake2b(digest_size=8, key=key)
        for part in row:
            digest.update(np.asarray(part).tobytes())
        numbers.append(int.from_bytes(digest.digest()) >> (64 - _BITS))
    return np.array(numbers, dtype=np.float64) / 2.0**_BITS


def by_place(num_rows: int, seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) per row, from its place; where rows are known by their outputs alone.

    Args:
        num_rows: B.
        seed: that of the masks; independent of the splits that the same seed makes.
    """
    return np.random.Generator(np.random.Philox([seed, 1])).random(num_rows)
