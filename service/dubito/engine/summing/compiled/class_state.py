"""What the loops over a classification take: where logits lie, what is wanted, memory and sums.

Dimensions: T samples of a chunk, O outer rows, L lanes, R lanes of a tile, C classes, G groups.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dubito.engine.summing.compiled.compiling import in_order
from dubito.engine.summing.compiled.tiles import Doubles, Floats, Totals

F = np.float32
NO_GROUPS = np.zeros((0, 1))
_NONE, _NO_SIZES = np.zeros(0), np.zeros((0, 1, 2))
_NO_WINS, _NO_FLAGS = np.zeros(0, np.int32), np.zeros(0, np.uint8)


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


def no_state(
    distributions: int, classes: int, sizes: Doubles = _NO_SIZES, *, is_lean: bool = False
) -> State:
    """Sums of no samples.

    Args:
        distributions: O·L.
        classes: C.
        sizes: of the logits, to be added to.
        is_lean: means, entropies and winners alone.
    """
    numbers, zeros = distributions * classes, np.zeros
    if is_lean:
        return State(
            Totals(zeros(numbers), _NONE, _NONE, _NONE),
            votes=_NONE,
            entropy=zeros(distributions),
            jackknife=_NONE,
            groups=NO_GROUPS,
            sizes=sizes,
            wins=zeros(numbers, np.int32),
            varies=zeros(distributions, np.uint8),
        )
    return State(
        Totals(zeros(numbers), zeros(numbers), zeros(numbers), zeros(numbers)),
        votes=zeros(numbers),
        entropy=zeros(distributions),
        jackknife=zeros(distributions),
        groups=NO_GROUPS,
        sizes=sizes,
        wins=_NO_WINS,
        varies=_NO_FLAGS,
    )


class Scratch(NamedTuple):
    """Memory for the passes of a tile, (N,) each, N = T·R.

    Args:
        logits: (C, N + 16), since lines a power of two apart share one place of the cache, or
            (1, C) of a row.
        off: d of one class, or (C,) of a row.
        largest: max_c z.
        total: S = Σ_c e.
        weighted: Σ_c e d.
        plain: Σ_c exp(z - max z), without a temperature; later 1 / S.
        best: the most probable class.
        entropy: of the pass.
        size: log Σ_c exp z.
    """

    logits: Floats
    off: Floats
    largest: Floats
    total: Doubles
    weighted: Doubles
    plain: Floats
    best: Floats
    entropy: Doubles
    size: Doubles


@in_order
def new_scratch(passes: int, classes: int, is_row: bool) -> Scratch:
    """Memory for the passes of a tile."""
    return Scratch(
        np.empty((1 if is_row else classes, classes if is_row else passes + 16), F),
        np.empty(classes if is_row else passes, F),
        np.empty(passes, F),
        np.empty(passes),
        np.empty(passes),
        np.empty(passes, F),
        np.empty(passes, F),
        np.empty(passes),
        np.empty(passes),
    )
