"""What the loops over a classification take: where logits lie, what is wanted, and sums so far.

Dimensions: T samples of a chunk, O outer rows, L lanes, R lanes of a tile, C classes, G groups.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dubito.engine.summing.compiled.tiles import Doubles, Totals


class LogitLayout(NamedTuple):
    """Where the logits of a chunk lie: that of (t, o, l, c) at the sum of index times stride.

    Args:
        samples: T.
        lanes: L, rows, or positions of one row.
        classes: C.
        width: R; 1 where loops run over the classes.
        tiles: of one outer row.
        is_row: loops run over the classes.
        strides: of t, o, l and c, in numbers.
    """

    samples: int
    lanes: int
    classes: int
    width: int
    tiles: int
    is_row: bool
    strides: tuple[int, int, int, int]


class ChunkOptions(NamedTuple):
    """What is to be summed, and how.

    Args:
        before: samples that came before, a multiple of 16.
        group_size: samples of each of the jackknife's groups.
        inverse: 1 / temperature.
        is_binary: there is one logit z, which stands for (0, z).
        sizes_of_lanes: the size of logits is wanted of each lane; else of each tile.
        has_blocks: the draw is stratified.
        is_whole: no samples come before or after.
        is_lean: means, entropies and winners alone.
    """

    before: int
    group_size: int
    inverse: np.float32
    is_binary: bool
    sizes_of_lanes: bool
    has_blocks: bool
    is_whole: bool
    is_lean: bool


class State(NamedTuple):
    """Sums over the passes so far.

    Args:
        spread: (O·L·C,) of the probabilities.
        votes: (O·L·C,) how often each class was the most probable one.
        entropy: (O·L,) Σ_t H[p_t].
        jackknife: (O·L,) its correction, of a chunk that is whole.
        groups: (G, O·L·C) Σ p over each group, of one that is not.
        sizes: (T, N, 2) log Σ exp of the logits of a pass, and the largest; of each lane or tile,
            which are added to.
        wins: (O·L·C,) votes, where lean sums are made: half as large.
        varies: (O·L,) 1 where passes differ; lean sums alone.
    """

    spread: Totals
    votes: Doubles
    entropy: Doubles
    jackknife: Doubles
    groups: Doubles
    sizes: Doubles
    wins: NDArray[np.int32]
    varies: NDArray[np.uint8]
