"""Raw 64-bit words by key and counter, from numpy's Philox."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_PER_STEP = 4  # words that Philox makes per step of its counter


def raw_words(
    seed: int, site: int, stream: tuple[int, int, int], start: int, count: int
) -> NDArray[np.uint64]:
    """Words `start` to `start + count - 1` of one stream.

    Args:
        seed: first half of the key.
        site: second half of the key.
        stream: the upper three words of the counter.
        start: of the first word.
        count: of the words.
    """
    step, skipped = divmod(start, _PER_STEP)
    counter = np.array([step, *stream], dtype=np.uint64)
    key = np.array([seed, site], dtype=np.uint64)
    words: NDArray[np.uint64] = np.random.Philox(counter=counter, key=key).random_raw(
        skipped + count
    )
    return words[skipped:]
