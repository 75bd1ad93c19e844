"""What is summed of each pass over its classes.

    d_c = (z_c - max z) / τ,   e_c = exp d_c,   S = Σ_c e_c,   H = log S - 1/S Σ_c e_c d_c

Its job: read logits as they lie, several passes a program. The probabilities themselves are not
written: `spreads` makes them once more of the logits and two numbers of each pass.

Dimensions: T samples, N distributions (rows times positions), C classes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dubito.engine.summing.cuda.formulas import exponential

VARYING = (
    *("samples", "before", "sorted_blocks", "distributions", "places", "size"),
    *("by_sample", "by_row", "by_position"),
)
"""Arguments for whose values kernels are not compiled anew."""


@triton.jit
def offset(
    n: tl.tensor,
    c: tl.tensor,
    positions: tl.tensor,
    by_row: tl.tensor,
    by_position: tl.tensor,
    by_class: tl.tensor,
    binary: tl.constexpr,
) -> tl.tensor:
    """Where logits of the first sample lie; with `binary` one logit z stands for (0, z)."""
    at = (n // positions).to(tl.int64) * by_row + (n % positions).to(tl.int64) * by_position
    return at + (c - binary).to(tl.int64) * by_class


@triton.jit
def off(z: tl.tensor, largest: tl.tensor, inverse: tl.tensor) -> tl.tensor:
    """(z - max z) / τ, not below -88, where its exponential is 0; nan stays nan."""
    distance = (z - largest) * inverse
    return tl.where(distance < -88.0, -88.0, distance)


@triton.jit(do_not_specialize=VARYING)
def sum_passes(
    z: tl.tensor,
    largest: tl.tensor,
    factor: tl.tensor,
    best: tl.tensor,
    of_passes: tl.tensor,
    samples: tl.tensor,
    distributions: tl.tensor,
    positions: tl.tensor,
    classes: tl.tensor,
    by_sample: tl.tensor,
    by_row: tl.tensor,
    by_position: tl.tensor,
    by_class: tl.tensor,
    inverse: tl.tensor,
    binary: tl.constexpr,
    scaled: tl.constexpr,
    PASSES: tl.constexpr,
    CLASSES: tl.constexpr,
) -> None:
    """Sum some passes over their classes.

    Args:
        z: logits.
        largest: (T, N) max_c z.
        factor: (T, N) 1 / S; nan of a pass that overflowed.
        best: (T, N) the most probable class.
        of_passes: (T, N, 3) entropy, log Σ_c exp z and max_c z, in float64.
        samples: T.
        distributions: N.
        positions: of a row.
        classes: C.
        by_sample: stride of t; the next ones of rows, positions and classes.
        by_row: see above.
        by_position: see above.
        by_class: see above.
        inverse: 1 / τ.
        binary: 1 where there is one logit z, which stands for (0, z); else 0.
        scaled: the temperature is not 1.
        PASSES: of a program.
        CLASSES: of a tile.
    """
    i = tl.program_id(0) * PASSES + tl.arange(0, PASSES)
    t, n = i // distributions, i % distributions
    is_pass = t < samples
    row = (t.to(tl.int64) * by_sample)[:, None]
    m = tl.full((PASSES,), float("-inf"), tl.float32)
    first = tl.zeros((PASSES,), tl.int32)
    for start in range(0, classes, CLASSES):
        c = start + tl.arange(0, CLASSES)[None, :]
        is_there = is_pass[:, None] & (c < classes)
        at = row + offset(n[:, None], c, positions, by_row, by_position, by_class, binary)
        x = tl.load(z + at, is_there & (c >= binary), 0.0)
        known = tl.where(is_there & (x == x), x, float("-inf"))
        highest = tl.max(known, 1)
        place = tl.min(tl.where(known == highest[:, None], c, classes), 1)
        first = tl.where(highest > m, place, first)
        m = tl.where(highest > m, highest, m)
    m = tl.where(is_pass, m, 0.0)
    total = tl.zeros((PASSES,), tl.float64)
    weighted = tl.zeros((PASSES,), tl.float64)
    plain = tl.zeros((PASSES,), tl.float64)
    for start in range(0, classes, CLASSES):
        c = start + tl.arange(0, CLASSES)[None, :]
        is_there = is_pass[:, None] & (c < classes)
        at = row + offset(n[:, None], c, positions, by_row, by_position, by_class, binary)
        x = tl.load(z + at, is_there & (c >= binary), 0.0)
        d = off(x, m[:, None], inverse)
        e = tl.where(is_there, exponential(d), 0.0).to(tl.float64)
        total += tl.sum(e, 1)
        weighted += tl.sum(e * d.to(tl.float64), 1)
        if scaled:
            power = tl.where(is_there, exponential(x - m[:, None]), 0.0)
            plain += tl.sum(power.to(tl.float64), 1)
    total = tl.where(is_pass, total, 1.0)
    log_total = tl.log(total)
    size = log_total
    if scaled:
        size = tl.log(tl.where(is_pass, plain, 1.0))
    nothing = total - total  # nan of a pass that overflowed
    tl.store(largest + i, m, is_pass)
    tl.store(factor + i, (1.0 / total).to(tl.float32), is_pass)
    tl.store(best + i, first, is_pass)
    to = of_passes + i.to(tl.int64) * 3
    tl.store(to, log_total - weighted / total, is_pass)
    tl.store(to + 1, size + m, is_pass)
    tl.store(to + 2, m + nothing, is_pass)
