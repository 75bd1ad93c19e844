"""All sums over the passes of a regression, strip by strip.

Its job: sum numbers in target units, which may be of any size, in float64. They are sorted in
float32, which loses nothing that the slope could show: each is taken from its first sample, in
units of its largest distance from it.

Dimensions: T samples of a chunk, N numbers of a pass.
"""

from __future__ import annotations

import math

import numpy as np

from dubito.engine.summing.compiled.compiling import in_order
from dubito.engine.summing.compiled.tiles import (
    BLOCK,
    STRIP,
    Doubles,
    Floats,
    TileSums,
    Totals,
    add_slopes,
    merge,
    new_tile,
)

F = np.float32


@in_order
def sum_numbers(
    x: Doubles,
    before: int,
    has_blocks: bool,
    weights: Floats,
    spread: Totals,
    part: tuple[int, int],
) -> None:
    """Add the sums of some numbers.

    Args:
        x: (T, N).
        before: samples that came before, a multiple of 16.
        has_blocks: whether the draw is stratified.
        weights: normal scores of a block over their sum of squares; 0 beyond T.
        spread: (N,) each, sums so far; of a chunk without samples before, anything.
        part: the first number, and the one after the last.
    """
    for first in range(part[0], part[1], STRIP):
        numbers = min(STRIP, part[1] - first)
        strip = x[:, first : first + numbers]
        tile, unit = new_tile(x.shape[0], numbers), np.zeros(numbers)
        _sum_strip(strip, tile, unit)
        slope, more_slope = spread.slope, tile.slope
        if has_blocks:
            _fill(strip, unit, tile.samples)
            add_slopes(tile, weights, before)
        for k in range(numbers):
            slope[first + k] += unit[k] * more_slope[k]
            more_slope[k] = 0  # which in target units may be out of its range
        merge(tile, before, (1, 1, numbers), spread, first)


@in_order
def _sum_strip(x: Doubles, tile: TileSums, unit: Doubles) -> None:
    """Mean, squares, and the means of blocks; and the largest distance from the first sample."""
    total, squares, means, between = tile.total, tile.squares, tile.means, tile.between
    samples, numbers = x.shape
    whole = samples // BLOCK
    for k in range(numbers):
        total[k] = squares[k] = means[k] = between[k] = 0
    for t in range(samples):
        block = tile.blocks[t // BLOCK] if t < BLOCK * whole else total
        if t % BLOCK == 0 and t < BLOCK * whole:
            block[:] = 0
        for k in range(numbers):
            off = x[t, k] - x[0, k]
            block[k] += off
            unit[k] = max(unit[k], abs(off))
    for n in range(whole):
        for k in range(numbers):
            means[k] += tile.blocks[n, k]
    for k in range(numbers):
        total[k] = x[0, k] + (total[k] + means[k]) / samples
        means[k] = x[0, k] + means[k] / max(1, BLOCK * whole)
        unit[k] = unit[k] if 0 < unit[k] < math.inf else 1.0
    for t in range(samples):
        for k in range(numbers):
            off = x[t, k] - total[k]
            squares[k] += off * off
    for n in range(whole):
        for k in range(numbers):
            off = tile.blocks[n, k] / BLOCK - (means[k] - x[0, k])
            between[k] += off * off


@in_order
def _fill(x: Doubles, unit: Doubles, samples: Floats) -> None:
    for t in range(x.shape[0]):
        for k in range(x.shape[1]):
            samples[t, k] = F((x[t, k] - x[0, k]) / unit[k])
