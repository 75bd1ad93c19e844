"""Loops over one tile: everything that is summed of its numbers place by place.

Its job: mean, squares, blocks and the jackknife's correction of T samples of K numbers that lie in
the cache. Nothing here knows what a place is: a class of a row, or a number in target units.

    jackknife   1/T Σ_j r_j p̄ φ(x_j),   φ(x) = (1 + x) log(1 + x) - x,
                x_j = (m_j p̄ - Σ_{t in j} p_t) / (r_j p̄),   r_j = T - m_j

Summed over the classes this is G·H - Σ_j r_j/T·H_(j) - H without its cancellation: what is linear
in x adds up to 0 over the groups.

Dimensions: T samples of a chunk, K numbers of a tile, G groups of samples, groups of m_j samples.
Source: Knuth, The Art of Computer Programming 3, 5.3.4 (Green's network, which sorts 16 numbers).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dubito.engine.summing.compiled.compiling import in_order
from dubito.engine.summing.compiled.formulas import (
    NEAR,
    divergence,
    near_divergence,
    ordered,
    ordered2,
    ordered4,
)

F, U = np.float32, np.uintp
BLOCK = 16  # samples of a block of the stratified draw
STRIP = 256  # places that are sorted at once
_LINE = 64  # places whose correction is made at once, by a series where all are near
_LARGEST, _TINY = F(3e38), F(1e-35)
_LARGE = F(2**30)  # of squares, which would else leave the range of float32
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class TileSums(NamedTuple):
    """Samples of some numbers, and what is summed of them.

    Args:
        samples: (T, K).
        total: (K,) their mean.
        mean: (K,) the same, rounded.
        squares: (K,) Σ (p - p̄)².
        means: (K,) of the whole blocks.
        between: (K,) Σ (mean of a block - mean of these)².
        slope: (K,) covariance with the normal scores of each block, summed over the blocks.
        jackknife: (K,) its correction, T times.
        spare: (K,) memory.
        group: (K,) memory.
        blocks: (T // 16, K) sums over blocks.
        sorting: (16 · STRIP,) memory.
    """

    samples: Floats
    total: Doubles
    mean: Floats
    squares: Doubles
    means: Doubles
    between: Doubles
    slope: Floats
    jackknife: Floats
    spare: Floats
    group: Floats
    blocks: Doubles
    sorting: Floats


class Totals(NamedTuple):
    """Sums over all samples so far, of any numbers, as those of a tile.

    Args:
        mean: of all samples.
        squares: Σ (p - mean)².
        slope: covariance with the normal scores of each block, summed over the blocks.
        between: Σ (mean of a block - mean of these)².
    """

    mean: Doubles
    squares: Doubles
    slope: Doubles
    between: Doubles


@in_order
def new_tile(samples: int, numbers: int) -> TileSums:
    """Memory for a tile."""
    return TileSums(
        np.zeros((samples, numbers), F),
        np.empty(numbers),
        np.empty(numbers, F),
        np.empty(numbers),
        np.empty(numbers),
        np.empty(numbers),
        np.zeros(numbers, F),
        np.empty(numbers, F),
        np.empty(numbers, F),
        np.empty(numbers, F),
        np.empty((samples // BLOCK, numbers)),
        np.empty(BLOCK * STRIP, F),
    )


@in_order
def sum_up(tile: TileSums) -> None:
    """Mean and squares of samples, and the means of their blocks."""
    p, total, mean, spare = tile.samples, tile.total, tile.mean, tile.spare
    samples, numbers = p.shape
    average(tile)
    for k in range(numbers):
        mean[k] = F(total[k])
        spare[k] = 0
    for t in range(samples):
        row = p[t]
        for k in range(numbers):
            off = (row[k] - mean[k]) * _LARGE
            spare[k] += off * off
    for k in range(numbers):
        off = total[k] - mean[k]
        left = np.float64(spare[k]) / 2.0**60 - samples * off * off
        tile.squares[k] = 0.0 if left < 0 else left


@in_order
def average(tile: TileSums) -> None:
    """The mean of samples, and the means of their blocks."""
    p, total = tile.samples, tile.total
    samples, numbers = p.shape
    _sum_blocks(tile)
    for t in range(samples // BLOCK * BLOCK, samples):
        row = p[t]
        for k in range(numbers):
            total[k] += row[k]
    for k in range(numbers):
        total[k] /= samples


@in_order
def _sum_blocks(tile: TileSums) -> None:
    p, total, means = tile.samples, tile.total, tile.means
    samples, numbers = p.shape
    whole = samples // BLOCK
    total[:] = 0
    tile.between[:] = 0
    for n in range(whole):
        block = tile.blocks[n]
        block[:] = 0
        for i in range(BLOCK):
            row = p[BLOCK * n + i]
            for k in range(numbers):
                block[k] += row[k]
        for k in range(numbers):
            total[k] += block[k]
    if whole:
        for k in range(numbers):
            means[k] = total[k] / (BLOCK * whole)
    for n in range(whole):
        block = tile.blocks[n]
        for k in range(numbers):
            off = block[k] / BLOCK - means[k]
            tile.between[k] += off * off


@in_order
def add_slopes(tile: TileSums, weights: Floats, before: int) -> None:
    """The covariance of samples with the normal scores of each block.

    Args:
        tile: with its samples.
        weights: normal scores of a block over their sum of squares; 0 beyond T.
        before: samples that came before; fewer than a whole block count where these are all.
    """
    whole = tile.samples.shape[0] // BLOCK
    tile.slope[:] = 0
    if not whole and not before:
        _add_slopes(tile.samples, weights, tile.sorting, tile.slope)
    for n in range(whole):
        block = tile.samples[BLOCK * n : BLOCK * (n + 1)]
        _add_slopes(block, weights, tile.sorting, tile.slope)


@in_order
def correct(tile: TileSums, group_size: int) -> None:
    """The jackknife's correction of samples that are probabilities."""
    p, mean, inverse, total = tile.samples, tile.mean, tile.spare, tile.jackknife
    samples, numbers = p.shape
    for k in range(numbers):
        total[k] = 0
        inverse[k] = F(1) / mean[k] if mean[k] > _TINY else F(0)
    for first in range(0, samples, group_size):
        size = min(group_size, samples - first)
        if size == samples:
            return
        if size == 1:
            _correct_group(p[first], size, samples, mean, inverse, total, tile.sorting)
        else:
            add_group(p, first, first + size, tile.group)
            _correct_group(tile.group, size, samples, mean, inverse, total, tile.sorting)
    for k in range(numbers):
        total[k] *= mean[k]


@in_order
def _correct_group(
    group: Floats,
    size: int,
    samples: int,
    mean: Floats,
    inverse: Floats,
    total: Floats,
    off: Floats,
) -> None:
    factor, share, weight = F(size), F(1 / (samples - size)), F(samples - size)
    for first in range(0, mean.shape[0], _LINE):
        numbers = min(_LINE, mean.shape[0] - first)
        some, expected = group[first : first + numbers], mean[first : first + numbers]
        scale, to = inverse[first : first + numbers], total[first : first + numbers]
        far = np.int32(0)
        for k in range(numbers):
            off[k] = (factor * expected[k] - some[k]) * (scale[k] * share)
            far += np.int32(1) if abs(off[k]) >= NEAR else np.int32(0)
        if far:
            for k in range(numbers):
                to[k] += weight * divergence(off[k])
        else:
            for k in range(numbers):
                to[k] += weight * near_divergence(off[k])


@in_order
def add_group(p: Floats, first: int, last: int, group: Floats) -> None:
    """Sum samples of consecutive places."""
    group[:] = 0
    for t in range(first, last):
        row = p[t]
        for k in range(group.shape[0]):
            group[k] += row[k]


@in_order
def merge(
    tile: TileSums, before: int, sizes: tuple[int, int, int], spread: Totals, first: int
) -> None:
    """Add what a tile says to the sums of the samples before, by Chan's rule.

    Args:
        tile: summed up, of C · R numbers, lane by lane.
        before: samples before, a multiple of 16.
        sizes: R, how many of these lanes are to be added, and C.
        spread: that is brought up to date, C numbers for each lane after the other.
        first: place in it.
    """
    mean, squares = spread.mean, spread.squares
    slope, between = spread.slope, spread.between
    total, means = tile.total, tile.means
    more_squares, more_slope, more_between = tile.squares, tile.slope, tile.between
    width, lanes, classes = sizes
    samples = tile.samples.shape[0]
    whole = samples // BLOCK
    weight, share = before * samples / (before + samples), samples / (before + samples)
    blocks = before // BLOCK
    weight_blocks = blocks * whole / max(1, blocks + whole)
    for lane in range(lanes):
        for c in range(classes):
            k, at = c * width + lane, first + lane * classes + c
            squares[at] += more_squares[k]
            slope[at] += more_slope[k]
            between[at] += more_between[k]
            if before:
                off, off_blocks = total[k] - mean[at], means[k] - mean[at]
                squares[at] += off * off * weight
                mean[at] += off * share
                if whole:
                    between[at] += off_blocks * off_blocks * weight_blocks
            else:
                mean[at] = total[k]


@in_order
def _add_slopes(p: Floats, weights: Floats, s: Floats, slope: Floats) -> None:
    """Add the weighted sums of at most 16 samples in ascending order."""
    samples, numbers = p.shape
    for first in range(0, numbers, STRIP):
        width = min(STRIP, numbers - first)
        for i in range(BLOCK):
            to = s[i * STRIP : i * STRIP + width]
            if i < samples:
                source = p[i, first : first + width]
                for x in range(width):
                    to[x] = source[x]
            else:
                to[:] = _LARGEST  # sorted to the end, where the weights are 0
        _add_sorted(s, weights, slope[first : first + width], width)


@in_order
def _add_sorted(s: Floats, weights: Floats, total: Floats, width: int) -> None:
    """Sort 16 numbers at every place, and add their weighted sum."""
    for x in range(U(width)):  # unsigned, so that an index is not one from the end
        a, b, c, d = s[x], s[x + U(STRIP)], s[x + U(2 * STRIP)], s[x + U(3 * STRIP)]
        e, f, g, h = (
            s[x + U(4 * STRIP)],
            s[x + U(5 * STRIP)],
            s[x + U(6 * STRIP)],
            s[x + U(7 * STRIP)],
        )
        i, j, k, m = (
            s[x + U(8 * STRIP)],
            s[x + U(9 * STRIP)],
            s[x + U(10 * STRIP)],
            s[x + U(11 * STRIP)],
        )
        n, o, p, q = (
            s[x + U(12 * STRIP)],
            s[x + U(13 * STRIP)],
            s[x + U(14 * STRIP)],
            s[x + U(15 * STRIP)],
        )
        a, b, c, d, e, f, g, h = ordered4(a, b, c, d, e, f, g, h)
        i, j, k, m, n, o, p, q = ordered4(i, j, k, m, n, o, p, q)
        a, c, b, d, e, g, f, h = ordered4(a, c, b, d, e, g, f, h)
        i, k, j, m, n, p, o, q = ordered4(i, k, j, m, n, p, o, q)
        a, e, b, f, c, g, d, h = ordered4(a, e, b, f, c, g, d, h)
        i, n, j, o, k, p, m, q = ordered4(i, n, j, o, k, p, m, q)
        a, i, b, j, c, k, d, m = ordered4(a, i, b, j, c, k, d, m)
        e, n, f, o, g, p, h, q = ordered4(e, n, f, o, g, p, h, q)
        f, k, g, j, d, n, o, p = ordered4(f, k, g, j, d, n, o, p)
        e, i, h, m = ordered2(e, i, h, m)
        b, c = ordered(b, c)
        b, e, h, o, c, i, m, p = ordered4(b, e, h, o, c, i, m, p)
        c, e, f, g, j, k, m, o = ordered4(c, e, f, g, j, k, m, o)
        d, i, h, n = ordered2(d, i, h, n)
        g, i, k, n, d, f, h, j = ordered4(g, i, k, n, d, f, h, j)
        d, e, f, g, h, i, j, k = ordered4(d, e, f, g, h, i, j, k)
        m, n = ordered(m, n)
        g, h, i, j = ordered2(g, h, i, j)
        low = weights[0] * a + weights[1] * b + weights[2] * c + weights[3] * d
        low += weights[4] * e + weights[5] * f + weights[6] * g + weights[7] * h
        high = weights[8] * i + weights[9] * j + weights[10] * k + weights[11] * m
        high += weights[12] * n + weights[13] * o + weights[14] * p + weights[15] * q
        total[x] += low + high
