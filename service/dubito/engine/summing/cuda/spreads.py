"""What is summed over the samples, place by place: of probabilities, or of any numbers.

Its job: mean, squares, and what a stratified draw needs of its blocks, merged with those of the
samples before by Chan's rule. Numbers are taken from the first of the chunk, so that equal ones
have no spread at all, and summed in float64; they are sorted in float32.

    offset    d_t = x_t - x_0,   mean = x_0 + Σ d / T,   M2 = Σ d² - (Σ d)² / T

x_0 is one of the samples, so that no more than a factor T is lost to cancellation.

Dimensions: T samples, K places of a program, blocks of 16 samples.
Source: Chan, Golub, LeVeque 1983.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dubito.engine.summing.cuda.formulas import exponential
from dubito.engine.summing.cuda.passes import VARYING, off, offset


@triton.jit
def _in_order(xs: tl.tuple) -> tl.tuple:
    """Sixteen tensors in ascending order at every place: Batcher's bitonic network."""
    for doubling in tl.static_range(1, 5):
        for halving in tl.static_range(doubling):
            ys: tl.tuple = ()
            for i in tl.static_range(16):
                other = xs[i ^ (1 << (doubling - 1 - halving))]
                if ((i >> (doubling - 1 - halving)) & 1) == ((i >> doubling) & 1):
                    ys += (tl.minimum(xs[i], other),)
                else:
                    ys += (tl.maximum(xs[i], other),)
            xs = ys
    return xs


@triton.jit
def _slopes(xs: tl.tuple, weights: tl.tensor) -> tl.tensor:
    """Weighted sum of sixteen samples in ascending order."""
    in_order = _in_order(xs)
    low = in_order[0] * tl.load(weights)
    high = in_order[15] * tl.load(weights + 15)
    for i in tl.static_range(1, 8):
        low += in_order[i] * tl.load(weights + i)
        high += in_order[15 - i] * tl.load(weights + 15 - i)
    return (low + high).to(tl.float64)


@triton.jit
def _merge(
    past: tl.tensor,
    state: tl.tensor,
    k: tl.tensor,
    is_place: tl.tensor,
    places: tl.tensor,
    before: tl.tensor,
    samples: tl.tensor,
    first: tl.tensor,
    total: tl.tensor,
    squares: tl.tensor,
    total_blocks: tl.tensor,
    squares_blocks: tl.tensor,
    slope: tl.tensor,
    blocks: tl.constexpr,
) -> None:
    """Add the sums of a chunk to those of the samples before, rows of `past`."""
    old = is_place & (before > 0)
    part, all_of_them = samples.to(tl.float64), (before + samples).to(tl.float64)
    mean = first.to(tl.float64) + total / part
    rest = squares - total * total / part
    rest = tl.where(rest < 0, 0.0, rest)
    mean_before = tl.load(past + k, old, 0.0)
    step = mean - mean_before
    weight = before.to(tl.float64) * part / all_of_them
    gained = tl.where(before > 0, step * step * weight, 0.0)
    rest += tl.load(past + places + k, old, 0.0) + gained
    merged = tl.where(before > 0, mean_before + step * (part / all_of_them), mean)
    tl.store(state + k, merged, is_place)
    tl.store(state + places + k, rest, is_place)
    if blocks:
        at = 2 * places + k
        tl.store(state + at, tl.load(past + at, old, 0.0) + slope, is_place)
        whole, ones = samples // 16, before // 16
        count = tl.maximum(whole, 1).to(tl.float64)
        between = squares_blocks - total_blocks * total_blocks / count
        between = tl.where(between < 0, 0.0, between)
        step = first.to(tl.float64) + total_blocks / count - mean_before
        weight = ones.to(tl.float64) * whole / tl.maximum(ones + whole, 1).to(tl.float64)
        gained = tl.where((ones > 0) & (whole > 0), step * step * weight, 0.0)
        at += places
        tl.store(state + at, tl.load(past + at, old, 0.0) + between + gained, is_place)


@triton.jit
def _probability(
    z: tl.tensor,
    largest: tl.tensor,
    factor: tl.tensor,
    is_there: tl.tensor,
    is_read: tl.tensor,
    inverse: tl.tensor,
) -> tl.tensor:
    """Probabilities of some places in float32, and 1 / S of their passes."""
    share = tl.load(factor, is_there, 0.0)
    d = off(tl.load(z, is_read, 0.0), tl.load(largest, is_there, 0.0), inverse)
    return exponential(d) * share, share


@triton.jit(do_not_specialize=VARYING)
def sum_probabilities(
    z: tl.tensor,
    largest: tl.tensor,
    factor: tl.tensor,
    best: tl.tensor,
    past: tl.tensor,
    state: tl.tensor,
    groups: tl.tensor,
    weights: tl.tensor,
    samples: tl.tensor,
    before: tl.tensor,
    sorted_blocks: tl.tensor,
    distributions: tl.tensor,
    positions: tl.tensor,
    classes: tl.tensor,
    by_sample: tl.tensor,
    by_row: tl.tensor,
    by_position: tl.tensor,
    by_class: tl.tensor,
    inverse: tl.tensor,
    binary: tl.constexpr,
    blocks: tl.constexpr,
    GROUP: tl.constexpr,
    PLACES: tl.constexpr,
    BLOCKS: tl.constexpr,
) -> None:
    """Sum the probabilities of some places over the samples of a chunk.

    Args:
        z: logits, and how they lie: as `sum_passes`.
        largest: (T, N) of each pass.
        factor: (T, N) of each pass.
        best: (T, N) of each pass.
        past: (5, N·C) of the samples before: mean, squares, slope, between, votes; of none,
            anything. It is not written to, since several threads may read a number.
        state: (5, N·C) of those and the chunk's.
        groups: (⌈T / GROUP⌉, N·C) Σ p over each group of samples.
        weights: normal scores of a block over their sum of squares; 0 beyond T.
        samples: T.
        before: samples that came before, a multiple of 16.
        sorted_blocks: of this chunk: whole ones, or the only one.
        distributions: N.
        positions: of a row.
        classes: C.
        by_sample: stride of t; the next ones of rows, positions and classes.
        by_row: see above.
        by_position: see above.
        by_class: see above.
        inverse: 1 / τ.
        binary: 1 where there is one logit z, which stands for (0, z); else 0.
        blocks: the draw is stratified.
        GROUP: samples of a group, at most 16.
        PLACES: of a program.
        BLOCKS: that it takes at once.
    """
    places = distributions * classes
    k = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    is_place = k < places
    n, c = k // classes, k % classes
    z += offset(n, c, positions, by_row, by_position, by_class, binary)
    is_read = is_place & (c >= binary)
    start, _ = _probability(z, largest + n, factor + n, is_place, is_read, inverse)
    n2, c2, first = n[None, :], c[None, :], start.to(tl.float64)[None, :]
    total = tl.zeros((PLACES,), tl.float64)
    squares, votes, slope = total, total, total
    total_blocks, squares_blocks = total, total
    for block in range(0, tl.cdiv(samples, 16), BLOCKS):
        number = block + tl.arange(0, BLOCKS)[:, None]
        sums = tl.zeros((BLOCKS, PLACES), tl.float64)
        squared, voted, grouped = sums, sums, sums
        xs: tl.tuple = ()
        for i in tl.static_range(16):
            t = number * 16 + i
            is_sample = (t < samples) & is_place[None, :]
            at = t * distributions + n2
            p, share = _probability(
                z[None, :] + t.to(tl.int64) * by_sample, largest + at, factor + at,
                is_sample, is_sample & is_read[None, :], inverse,
            )  # fmt: skip
            d = tl.where(is_sample, p.to(tl.float64) - first, 0.0)
            sums += d
            squared += d * d
            chosen = tl.load(best + at, is_sample, -1)
            voted += tl.where((chosen == c2) & (share == share), 1.0, 0.0)
            grouped += tl.where(is_sample, p, 0.0).to(tl.float64)
            if i % GROUP == GROUP - 1:
                group = t // GROUP
                is_group = (group * GROUP < samples) & is_place[None, :]
                tl.store(groups + group.to(tl.int64) * places + k[None, :], grouped, is_group)
                grouped = tl.zeros((BLOCKS, PLACES), tl.float64)
            if blocks:
                # 2 is above all of them: what lies beyond T goes to the end, where weights are 0
                xs += (tl.where(is_sample, d.to(tl.float32), 2.0),)
        total += tl.sum(sums, 0)
        squares += tl.sum(squared, 0)
        votes += tl.sum(voted, 0)
        if blocks:
            means = tl.where((number + 1) * 16 <= samples, sums / 16, 0.0)
            total_blocks += tl.sum(means, 0)
            squares_blocks += tl.sum(means * means, 0)
            slope += tl.sum(tl.where(number < sorted_blocks, _slopes(xs, weights), 0.0), 0)
    _merge(
        past, state, k, is_place, places, before, samples, start, total, squares,
        total_blocks, squares_blocks, slope, blocks,
    )  # fmt: skip
    at = 4 * places + k
    votes += tl.load(past + at, is_place & (before > 0), 0.0)
    tl.store(state + at, votes, is_place)


@triton.jit(do_not_specialize=VARYING)
def sum_numbers(
    x: tl.tensor,
    past: tl.tensor,
    state: tl.tensor,
    weights: tl.tensor,
    samples: tl.tensor,
    before: tl.tensor,
    sorted_blocks: tl.tensor,
    places: tl.tensor,
    blocks: tl.constexpr,
    PLACES: tl.constexpr,
    BLOCKS: tl.constexpr,
) -> None:
    """Sum numbers of some places over the samples of a chunk.

    Args:
        x: (T, places) in float64.
        past: (4, places) of the samples before: mean, squares, slope, between; without `blocks`
            the first two; of none, anything.
        state: (4, places) of those and the chunk's.
        weights: normal scores of a block over their sum of squares; 0 beyond T.
        samples: T.
        before: samples that came before, a multiple of 16.
        sorted_blocks: of this chunk: whole ones, or the only one.
        places: how many.
        blocks: the draw is stratified.
        PLACES: of a program.
        BLOCKS: that it takes at once.
    """
    k = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    is_place = k < places
    start = tl.load(x + k, is_place, 0.0)
    total = tl.zeros((PLACES,), tl.float64)
    squares, slope, total_blocks, squares_blocks = total, total, total, total
    for block in range(0, tl.cdiv(samples, 16), BLOCKS):
        number = block + tl.arange(0, BLOCKS)[:, None]
        sums = tl.zeros((BLOCKS, PLACES), tl.float64)
        squared, farthest = sums, sums
        ds: tl.tuple = ()
        for i in tl.static_range(16):
            t = number * 16 + i
            is_sample = (t < samples) & is_place[None, :]
            one = tl.load(x + t.to(tl.int64) * places + k[None, :], is_sample, 0.0)
            d = tl.where(is_sample, one - start[None, :], 0.0)
            sums += d
            squared += d * d
            if blocks:
                farthest = tl.maximum(farthest, tl.abs(d))
                ds += (d,)
        total += tl.sum(sums, 0)
        squares += tl.sum(squared, 0)
        if blocks:
            means = tl.where((number + 1) * 16 <= samples, sums / 16, 0.0)
            total_blocks += tl.sum(means, 0)
            squares_blocks += tl.sum(means * means, 0)
            unit = tl.where(farthest > 0, farthest, 1.0)  # float32 may not hold the numbers
            xs: tl.tuple = ()
            for i in tl.static_range(16):
                in_unit = (ds[i] / unit).to(tl.float32)
                xs += (tl.where(number * 16 + i < samples, in_unit, 2.0),)
            slopes = _slopes(xs, weights) * unit
            slope += tl.sum(tl.where(number < sorted_blocks, slopes, 0.0), 0)
    _merge(
        past, state, k, is_place, places, before, samples, start, total, squares,
        total_blocks, squares_blocks, slope, blocks,
    )  # fmt: skip
