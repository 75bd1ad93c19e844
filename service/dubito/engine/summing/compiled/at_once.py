"""The columns of a small call, whose passes are all there.

Its job: work out once for each shape what loops are told of it and where columns lie, so that a
call has only to look it up, and hands arrays from loop to loop that nobody has to name.

Dimensions: T samples, B rows, P positions or labels (one axis or none), C classes, N distributions.
"""

from __future__ import annotations

from functools import lru_cache
from math import nan, prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dubito.engine.calling.columns import Column, Columns
from dubito.engine.summing.blocks import factor_line, normal_scores
from dubito.engine.summing.compiled.class_loops import sum_classes
from dubito.engine.summing.compiled.class_state import (
    ChunkOptions,
    LogitLayout,
    State,
    no_state,
)
from dubito.engine.summing.compiled.classes import flat, layout_of, positions_in_line
from dubito.engine.summing.compiled.figure_loops import (
    ClassFigures,
    LeanFigures,
    Of,
    write_figures,
    write_lean_figures,
    write_number_figures,
    write_sizes,
)
from dubito.engine.summing.compiled.figures import BY_CLASS
from dubito.engine.summing.compiled.number_loops import sum_numbers
from dubito.engine.summing.compiled.spread import no_spread
from dubito.engine.summing.compiled.tiles import BLOCK
from dubito.engine.summing.jackknife import group_size
from dubito.engine.summing.logits import Logits

MOST = 2**18
"""Numbers of passes, from which what a call costs beside its loops is nothing, or cores share."""
_OF_ROWS = ("energy", "energy_spread", "max_logit")
_OF_NUMBERS = (*("mean", "variance", "epistemic_variance", "aleatoric_variance", "standard_error"),)


class FiguresWanted(NamedTuple):
    """What is to be said of passes.

    Args:
        left: what a stratified draw leaves; None for `iid`.
        most_groups: sums that the jackknife keeps.
        is_mean: the size of a row's logits is the mean over its positions; else the sum.
        is_lean: only what needs no spread over the passes.
    """

    left: float | None
    most_groups: int
    is_mean: bool
    is_lean: bool


class _ClassPlan(NamedTuple):
    """What a call needs to know of its shape.

    Args:
        layout: where logits lie.
        chunk: what is summed of them.
        weights: normal scores of a block over their sum of squares.
        tiles: the first, and the one after the last.
        of: what the sums are of.
        distributions: N.
        rows: B.
        sizes: shape of those of logits: of rows, or of the tiles of rows.
        share: by which the sums of the latter are multiplied.
        columns: name, place in the answer, and shape of each, if not as they lie there.
        numbers: of the answer.
    """

    layout: LogitLayout
    chunk: ChunkOptions
    weights: NDArray[np.float32]
    tiles: tuple[int, int]
    of: Of
    distributions: int
    rows: int
    sizes: tuple[int, int, int]
    share: float
    columns: tuple[tuple[str, slice, tuple[int, ...] | None], ...]
    numbers: int


def class_columns(logits: Logits, wanted: FiguresWanted) -> Columns | None:
    """The columns of a classification, by their names in a reply.

    Args:
        logits: of all passes.
        wanted: of them.

    Returns:
        None where they are too many, or their sizes were found elsewhere.
    """
    if logits.sizes is not None or logits.scaled.numel() > MOST:
        return None
    z, shape = positions_in_line(logits.scaled), tuple(logits.scaled.shape)
    plan = _class_plan(
        shape, tuple(z.shape), z.stride(), logits.is_binary, logits.temperature, wanted
    )
    sizes = np.zeros(plan.sizes)
    state = no_state(plan.distributions, plan.layout.classes, sizes, is_lean=wanted.is_lean)
    sum_classes(flat(z), plan.layout, plan.chunk, plan.weights, state, plan.tiles)
    answer = np.empty(plan.numbers)
    last = answer[-plan.rows * len(_OF_ROWS) :].reshape(len(_OF_ROWS), plan.rows)
    if wanted.is_lean:
        _write_lean(state, plan, answer)
    else:
        spread, votes, entropy, jackknife = state[:4]
        write_figures(spread, votes, entropy, jackknife, plan.of, answer)
    write_sizes(sizes, plan.share, last)
    return {
        name: answer[place] if size is None else answer[place].reshape(size)
        for name, place, size in plan.columns
    }


def _write_lean(state: State, plan: _ClassPlan, answer: Column) -> None:
    """Write the columns that need no spread over the passes."""
    numbers, rows = len(state.spread.mean), plan.distributions
    figures = np.split(answer[: numbers + 5 * rows], [numbers + rows * at for at in range(5)])
    figures[0][:] = state.spread.mean
    most = state.wins.reshape(rows, -1).max(-1).astype(np.float64)
    varies = state.varies.astype(np.float64)
    write_lean_figures(most, state.entropy, varies, plan.layout.samples, LeanFigures(*figures))


def number_columns(mean: Tensor, noise: Tensor, left: float | None) -> Columns:
    """The columns of a regression, by their names in a reply.

    Args:
        mean: (T, B, ...) of all passes, in float64.
        noise: their noise variances.
        left: what a stratified draw leaves; None for `iid`.
    """
    samples, shape = len(mean), mean.shape[1:]
    x = mean.reshape(samples, -1).contiguous().numpy()
    beside = noise.sum(0).reshape(-1).contiguous().numpy()
    spread, of = no_spread(len(beside)), _of(samples, left, 1)
    weights = normal_scores(min(samples, BLOCK))
    sum_numbers(x, 0, left is not None, weights, spread, (0, len(beside)))
    answer = np.empty((len(_OF_NUMBERS), len(beside)))
    write_number_figures(spread, beside, of, answer)
    return dict(zip(_OF_NUMBERS, answer.reshape(len(_OF_NUMBERS), *shape), strict=True))


@lru_cache(maxsize=1024)
def _of(samples: int, left: float | None, group_size: int) -> Of:
    """What sums are of, as loops take it."""
    lines = factor_line(samples), factor_line(group_size)
    return Of(samples, nan if left is None else left, samples // BLOCK, *lines)


@lru_cache(maxsize=1024)
def _class_plan(
    shape: tuple[int, ...],
    in_line: tuple[int, ...],
    strides: tuple[int, ...],
    is_binary: bool,
    temperature: float,
    wanted: FiguresWanted,
) -> _ClassPlan:
    """What loops are told of logits of a shape, whose positions lie on one axis or none."""
    classes, samples, has_positions = shape[-1] + is_binary, shape[0], len(shape) > 3
    layout = layout_of(in_line, strides, classes)
    chunk = ChunkOptions(
        before=0,
        group_size=group_size(samples, wanted.most_groups),
        inverse=np.float32(1 / temperature),
        is_binary=is_binary,
        sizes_of_lanes=not has_positions,
        has_blocks=wanted.left is not None,
        is_whole=True,
        is_lean=wanted.is_lean,
    )
    rows, tiles = shape[1], layout.tiles * (shape[1] if has_positions else 1)
    columns, first = list[tuple[str, slice, tuple[int, ...] | None]](), 0
    for name in (*(LeanFigures if wanted.is_lean else ClassFigures)._fields, *_OF_ROWS):
        size = shape[1:-1] if name not in _OF_ROWS else (rows,)
        size = (*size, classes) if name in BY_CLASS else size
        columns.append((name, slice(first, first + prod(size)), size if len(size) > 1 else None))
        first += prod(size)
    return _ClassPlan(
        layout,
        chunk,
        normal_scores(min(samples, BLOCK)),
        tiles=(0, tiles),
        of=_of(samples, wanted.left, chunk.group_size),
        distributions=prod(shape[1:-1]),
        rows=rows,
        sizes=(samples, tiles if has_positions else rows, 2),
        share=1 / layout.lanes if has_positions and wanted.is_mean else 1.0,
        columns=tuple(columns),
        numbers=first,
    )
