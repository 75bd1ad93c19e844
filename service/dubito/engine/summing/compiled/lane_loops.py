"""The passes of a tile of few classes: loops run over rows and samples, class by class.

Its job: lay logits out (C, T·R), and make of them probabilities, laid out (T, C·R), votes, and what
is summed of each pass over its classes.

Dimensions: T samples of a chunk, R lanes of a tile, C classes.
"""

from __future__ import annotations

import numpy as np

from dubito.engine.summing.compiled.class_state import ChunkOptions, LogitLayout, Scratch
from dubito.engine.summing.compiled.compiling import in_order
from dubito.engine.summing.compiled.formulas import exponential, logarithm
from dubito.engine.summing.compiled.tiles import Floats, TileSums

F = np.float32
_NARROW = 4  # lanes, below which a loop over them costs more to enter than to run


@in_order
def read_lanes(
    z: Floats, start: int, lanes: int, layout: LogitLayout, chunk: ChunkOptions, scratch: Scratch
) -> None:
    """Lay logits out class by class; the last lane stands in for those that are missing."""
    width, classes = layout.width, layout.classes
    by_sample, _, by_lane, by_class = layout.strides
    skipped = 1 if chunk.is_binary else 0
    if skipped:
        scratch.logits[0] = F(0)
    if by_class == 1 and by_lane != 1:
        _read_rows(z, start, lanes, layout, skipped, scratch.logits)
        return
    for c in range(skipped, classes):
        for t in range(layout.samples):
            at = start + t * by_sample + (c - skipped) * by_class
            row = scratch.logits[c, t * width : (t + 1) * width]
            if by_lane == 1:
                source = z[at : at + lanes]
                for lane in range(lanes):
                    row[lane] = source[lane]
            else:
                for lane in range(lanes):
                    row[lane] = z[at + lane * by_lane]
            for lane in range(lanes, width):
                row[lane] = row[lanes - 1]


@in_order
def _read_rows(
    z: Floats, start: int, lanes: int, layout: LogitLayout, skipped: int, logits: Floats
) -> None:
    """The same of logits whose classes lie side by side."""
    by_sample, _, by_lane, _ = layout.strides
    given = layout.classes - skipped
    for t in range(layout.samples):
        for lane in range(layout.width):
            at = start + t * by_sample + min(lane, lanes - 1) * by_lane
            source, place = z[at : at + given], t * layout.width + lane
            for c in range(given):
                logits[skipped + c, place] = source[c]


@in_order
def softmax_lanes(chunk: ChunkOptions, scratch: Scratch) -> None:
    """Exponentials in place of the logits, and what is summed of each pass over its classes."""
    logits, off, largest, best = scratch.logits, scratch.off, scratch.largest, scratch.best
    total, weighted, plain = scratch.total, scratch.weighted, scratch.plain
    classes, passes = logits.shape[0], largest.shape[0]
    for i in range(passes):
        largest[i] = logits[0, i]
        best[i] = plain[i] = 0
    for i in range(passes):
        total[i] = weighted[i] = 0
    for c in range(1, classes):
        row = logits[c]
        for i in range(passes):
            is_more = row[i] > largest[i]
            largest[i] = row[i] if is_more else largest[i]
            best[i] = F(c) if is_more else best[i]
    is_scaled, inverse = chunk.inverse != 1, chunk.inverse
    for c in range(classes):
        row = logits[c]
        if is_scaled:
            for i in range(passes):
                plain[i] += exponential(row[i] - largest[i])
        for i in range(passes):
            distance = (row[i] - largest[i]) * inverse
            off[i] = F(-88) if distance < F(-88) else distance
            row[i] = exponential(off[i])
        for i in range(passes):
            power = np.float64(row[i])
            total[i] += power
            weighted[i] += power * np.float64(off[i])
    if is_scaled:
        for i in range(passes):
            scratch.size[i] = logarithm(plain[i])
    for i in range(passes):
        rounded, inverse_total = F(total[i]), 1.0 / total[i]
        log_total = logarithm(rounded) + (total[i] - rounded) * inverse_total
        scratch.size[i] = (scratch.size[i] if is_scaled else log_total) + largest[i]
        scratch.entropy[i] = log_total - weighted[i] * inverse_total
        plain[i] = F(inverse_total)


@in_order
def normalise_lanes(
    layout: LogitLayout, scratch: Scratch, tile: TileSums, votes: np.ndarray
) -> None:
    """Probabilities, laid out sample by sample, and votes."""
    width, inverse, logits = layout.width, scratch.plain, scratch.logits
    for t in range(layout.samples):
        if width < _NARROW:
            for lane in range(width):
                place, to = t * width + lane, tile.samples[t]
                for c in range(layout.classes):
                    to[c * width + lane] = logits[c, place] * inverse[place]
            continue
        part = inverse[t * width : (t + 1) * width]
        for c in range(layout.classes):
            source = logits[c, t * width : (t + 1) * width]
            to = tile.samples[t, c * width : (c + 1) * width]
            for lane in range(width):
                to[lane] = source[lane] * part[lane]
    for t in range(layout.samples):
        for lane in range(width):
            i = t * width + lane
            if scratch.total[i] == scratch.total[i]:  # a pass that overflowed votes for nothing
                votes[int(scratch.best[i]) * width + lane] += 1
