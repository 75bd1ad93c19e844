"""Random numbers of rows: keyed by (seed, index), whatever the chunk in which a row comes.

Its job: a 64-bit word per row, by which ties are broken, and uniform and Gumbel numbers made of it.

    word = mix(mix(seed) + (index + 1) · γ)       splitmix64, one step per row

Dimensions: B rows.
Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Words = NDArray[np.uint64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_HALF_STEP = 2.0**-54  # half of the distance of two uniform numbers


def words(seed: int, indices_B: Indices) -> Words:
    """A word per row; equal scores are ordered by it, the larger first."""
    key = _mix(np.array([seed], dtype=np.uint64) + _GAMMA)
    return _mix(key + (indices_B.astype(np.uint64) + np.uint64(1)) * _GAMMA)


def uniforms(words_B: Words) -> NDArray[np.float64]:
    """Numbers in (0, 1), spread evenly: the upper 53 bits of the words."""
    return (words_B >> np.uint64(11)).astype(np.float64) * 2.0**-53 + _HALF_STEP


def gumbels(words_B: Words) -> NDArray[np.float64]:
    """Return standard Gumbel numbers, -log(-log u)."""
    return -np.log(-np.log(uniforms(words_B)))


def _mix(words_B: Words) -> Words:
    words_B = (words_B ^ (words_B >> np.uint64(30))) * _FIRST
    words_B = (words_B ^ (words_B >> np.uint64(27))) * _SECOND
    return words_B ^ (words_B >> np.uint64(31))
