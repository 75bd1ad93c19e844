"""All sums over the passes of a classification, in one pass over the logits.

Its job: take a tile of rows through everything before the next one is touched, so that its passes
are read from memory once.

    lanes     few classes: the logits are laid out (C, T·R), so that loops run over rows and samples
    a row     many classes: R = 1, and loops run over the classes
    merging   sums of a chunk are added to those of the samples before by Chan's rule

Numbers are float32 within a tile and float64 from there on. Bits of a row depend on its samples
alone, and not on its neighbours: loops treat numbers one by one, or sum over one row.

    entropy of a pass   log S - 1/S Σ_c e_c d_c
                        d_c = (z_c - max z) / τ,  e_c = exp d_c,  S = Σ_c e_c

Dimensions: T samples of a chunk, O outer rows, L lanes, R lanes of a tile, C classes, K = C·R.
Source: Chan, Golub, LeVeque 1983.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dubito.engine.summing.compiled.class_state import (
    ChunkOptions,
    LogitLayout,
    Scratch,
    State,
    new_scratch,
)
from dubito.engine.summing.compiled.compiling import in_order, loop
from dubito.engine.summing.compiled.formulas import exponential
from dubito.engine.summing.compiled.lane_loops import (
    normalise_lanes,
    read_lanes,
    softmax_lanes,
)
from dubito.engine.summing.compiled.tiles import (
    Doubles,
    Floats,
    TileSums,
    add_group,
    add_slopes,
    average,
    correct,
    merge,
    new_tile,
    sum_up,
)

F, Place = np.float32, np.int32


@in_order
def sum_classes(
    z: Floats,
    layout: LogitLayout,
    chunk: ChunkOptions,
    weights: Floats,
    state: State,
    tiles: tuple[int, int],
) -> None:
    """Add the sums of some tiles.

    Args:
        z: logits.
        layout: where they lie.
        chunk: what is to be summed.
        weights: normal scores of a block over their sum of squares; 0 beyond T.
        state: sums so far; of a chunk without samples before, anything.
        tiles: the first, and the one after the last.
    """
    samples, classes, width = layout.samples, layout.classes, layout.width
    padded = (classes + 31) // 32 * 32 if layout.is_row else classes
    tile = new_tile(samples, padded * width)
    scratch = new_scratch(samples * width, padded, layout.is_row)
    votes = np.empty(padded * width, np.int32)
    for at in range(tiles[0], tiles[1]):
        outer, first = at // layout.tiles, at % layout.tiles * width
        lanes = min(width, layout.lanes - first)
        start = outer * layout.strides[1] + first * layout.strides[2]
        votes[:] = 0
        if layout.is_row:
            _read_row(z, start, layout, chunk, scratch, tile, votes)
        else:
            read_lanes(z, start, lanes, layout, chunk, scratch)
            softmax_lanes(chunk, scratch)
            normalise_lanes(layout, scratch, tile, votes)
        place = first if chunk.sizes_of_lanes else at
        _add_sizes(scratch, width, lanes, place, chunk.sizes_of_lanes, state.sizes)
        if chunk.is_lean:
            average(tile)
            _keep_means(
                tile,
                votes,
                scratch,
                (width, lanes, classes),
                outer * layout.lanes + first,
                chunk,
                state,
            )
            continue
        sum_up(tile)
        if chunk.has_blocks:
            add_slopes(tile, weights, chunk.before)
        row = outer * layout.lanes + first
        if chunk.is_whole:
            correct(tile, chunk.group_size)
        else:
            _keep_groups(tile, chunk, layout, row, lanes, state.groups)
        merge(tile, chunk.before, (width, lanes, classes), state.spread, row * classes)
        _add_rows(tile, votes, scratch, (width, lanes, classes), row, state)
        if chunk.is_whole:
            _write_correction(tile, (width, lanes, classes), row, state.jackknife)


@loop
def _read_row(
    z: Floats,
    start: int,
    layout: LogitLayout,
    chunk: ChunkOptions,
    scratch: Scratch,
    tile: TileSums,
    votes: np.ndarray,
) -> None:
    """Probabilities of one row of many classes, and votes."""
    classes, row, off = layout.classes, scratch.logits[0], scratch.off
    for t in range(layout.samples):
        at = start + t * layout.strides[0]
        source = z[at : at + classes]
        for c in range(classes):
            row[c] = source[c]
        row[classes:] = -np.inf
        largest = _largest(row, scratch.off)
        place = Place(classes)
        for c in range(classes):
            here = Place(c) if source[c] == largest else Place(classes)
            place = here if here < place else place
        p, total, weighted, plain = tile.samples[t], 0.0, 0.0, 0.0
        if chunk.inverse != 1:
            for c in range(row.shape[0]):
                p[c] = exponential(row[c] - largest)
            for c in range(row.shape[0]):
                plain += np.float64(p[c])
        for c in range(row.shape[0]):
            distance = (row[c] - largest) * chunk.inverse
            off[c] = F(-88) if distance < F(-88) else distance
            p[c] = exponential(off[c])
        for c in range(row.shape[0]):
            power = np.float64(p[c])
            total += power
            weighted += power * np.float64(off[c])
        if total == total and place < classes:
            votes[place] += 1
        inverse_total = F(1.0 / total)
        for c in range(p.shape[0]):
            p[c] *= inverse_total
        scratch.largest[t], scratch.total[t] = largest, total
        scratch.entropy[t] = math.log(total) - weighted / total
        scratch.size[t] = math.log(total if chunk.inverse == 1 else plain) + largest


@in_order
def _largest(row: Floats, half: Floats) -> Any:
    """The largest of a multiple of 32 numbers, nan aside, halving them while they are many."""
    numbers = row.shape[0]
    for i in range(numbers):
        half[i] = row[i]
    while numbers > 32:
        rest = (numbers // 2 + 31) // 32 * 32
        low, high = half[:rest], half[rest:numbers]
        for i in range(numbers - rest):
            low[i] = high[i] if high[i] > low[i] else low[i]
        numbers = rest
    largest = half[0]
    for i in range(1, numbers):
        largest = half[i] if half[i] > largest or largest != largest else largest
    return largest


@in_order
def _add_sizes(
    scratch: Scratch, width: int, lanes: int, place: int, is_each: bool, sizes: Doubles
) -> None:
    """Add log Σ exp and the largest logit of each pass; nan where it overflowed."""
    size, largest, total = scratch.size, scratch.largest, scratch.total
    for t in range(sizes.shape[0]):
        for lane in range(lanes):
            i, at = t * width + lane, place + lane if is_each else place
            sizes[t, at, 0] += size[i]
            sizes[t, at, 1] += largest[i] if total[i] == total[i] else np.nan


@in_order
def _keep_groups(
    tile: TileSums, chunk: ChunkOptions, layout: LogitLayout, row: int, lanes: int, groups: Doubles
) -> None:
    """Add samples to their groups."""
    classes, width, group, start = layout.classes, layout.width, tile.group, 0
    while start < layout.samples:
        place = (chunk.before + start) // chunk.group_size
        stop = min(layout.samples, (place + 1) * chunk.group_size - chunk.before)
        add_group(tile.samples, start, stop, group)
        for lane in range(lanes):
            total = groups[place, (row + lane) * classes : (row + lane + 1) * classes]
            for c in range(classes):
                total[c] += group[c * width + lane]
        start = stop


@in_order
def _add_rows(
    tile: TileSums,
    votes: np.ndarray,
    scratch: Scratch,
    sizes: tuple[int, int, int],
    row: int,
    state: State,
) -> None:
    """Add votes and entropies of lanes."""
    width, lanes, classes = sizes
    entropy, total, voted = scratch.entropy, state.entropy, state.votes
    samples = tile.samples.shape[0]
    for lane in range(lanes):
        for c in range(classes):
            voted[(row + lane) * classes + c] += votes[c * width + lane]
        for t in range(samples):
            total[row + lane] += entropy[t * width + lane]


@in_order
def _keep_means(
    tile: TileSums,
    votes: np.ndarray,
    scratch: Scratch,
    sizes: tuple[int, int, int],
    row: int,
    chunk: ChunkOptions,
    state: State,
) -> None:
    """Add means, votes and entropies of lanes, and write whether passes differ."""
    width, lanes, classes = sizes
    p, total, differs, mean = tile.samples, tile.total, tile.spare, state.spread.mean
    samples, before = p.shape[0], chunk.before
    share = samples / (before + samples)
    differs[:] = 0
    for t in range(1, samples):
        for k in range(differs.shape[0]):
            differs[k] = F(1) if p[t, k] != p[0, k] else differs[k]
    for lane in range(lanes):
        off_sum, different, start = 0.0, F(0), (row + lane) * classes
        for c in range(classes):
            k = c * width + lane
            off = total[k] - mean[start + c] if before else 0.0
            mean[start + c] = mean[start + c] + off * share if before else total[k]
            off_sum += abs(off)
            different = differs[k] if differs[k] > different else different
            state.wins[start + c] += votes[k]
        if off_sum != 0 or different != 0:
            state.varies[row + lane] = 1
        for t in range(samples):
            state.entropy[row + lane] += scratch.entropy[t * width + lane]


@in_order
def _write_correction(
    tile: TileSums, sizes: tuple[int, int, int], row: int, jackknife: Doubles
) -> None:
    width, lanes, classes = sizes
    spare, samples = tile.jackknife, tile.samples.shape[0]
    for lane in range(lanes):
        total = 0.0
        for c in range(classes):
            total += spare[c * width + lane]
        jackknife[row + lane] = total / samples
