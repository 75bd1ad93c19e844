"""The jackknife's correction of the mutual information, of sums over groups of samples.

    1/T Σ_j r_j Σ_c p̄_c φ(x_jc),   φ(x) = (1 + x) log(1 + x) - x,
    x_jc = (m_j p̄_c - Σ_{t in j} p_tc) / (r_j p̄_c),   r_j = T - m_j

as in `compiled/tiles.py`: what cancels in the entropies is left out beforehand.

Dimensions: T samples, N distributions, C classes, G groups of m_j samples.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dubito.engine.summing.cuda.formulas import divergence
from dubito.engine.summing.cuda.passes import VARYING


@triton.jit(do_not_specialize=VARYING)
def sum_corrections(
    groups: tl.tensor,
    mean: tl.tensor,
    correction: tl.tensor,
    samples: tl.tensor,
    size: tl.tensor,
    distributions: tl.tensor,
    classes: tl.tensor,
    CLASSES: tl.constexpr,
    GROUPS: tl.constexpr,
) -> None:
    """Sum the correction over the groups and some classes of one distribution.

    Args:
        groups: (G, N·C) Σ p.
        mean: (N·C,) p̄.
        correction: (N, ⌈C / CLASSES⌉) of each tile of classes.
        samples: T, more than one group.
        size: of each group but the last, m_j.
        distributions: N.
        classes: C.
        CLASSES: of a tile.
        GROUPS: taken at once.
    """
    n, tile = tl.program_id(0), tl.program_id(1)
    c = tile * CLASSES + tl.arange(0, CLASSES)
    is_class = c < classes
    k = n * classes + c
    average = tl.load(mean + k, is_class, 0.0)
    is_possible = average > 1e-35
    inverse = tl.where(is_possible, 1.0 / tl.where(is_possible, average, 1.0), 0.0)
    total = tl.zeros((CLASSES,), tl.float64)
    for start in range(0, tl.cdiv(samples, size), GROUPS):
        j = start + tl.arange(0, GROUPS)
        members = tl.minimum(size, samples - j * size).to(tl.float64)[:, None]
        is_group = (j * size < samples)[:, None] & is_class[None, :]
        rest = samples - members
        at = j.to(tl.int64)[:, None] * distributions * classes + k[None, :]
        group = tl.load(groups + at, is_group, 0.0)
        x = (members * average[None, :] - group) * inverse[None, :] / rest
        part = rest * divergence(x.to(tl.float32)).to(tl.float64)
        total += tl.sum(tl.where(is_group, part, 0.0), 0)
    to = correction + n * tl.num_programs(1) + tile
    tl.store(to, tl.sum(total * average, 0) / samples)
