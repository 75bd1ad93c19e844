"""The sums of a classification, in compiled loops.

Its job: say where the logits of a chunk lie and what of them is wanted, and keep what the loops
sum up between chunks.

Dimensions: T samples, B rows, P positions or labels (one axis or none), C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from math import prod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy
from torch import Tensor

from dubito.engine.calling.columns import Column
from dubito.engine.summing.blocks import normal_scores
from dubito.engine.summing.compiled.class_loops import sum_classes
from dubito.engine.summing.compiled.class_state import (
    NO_GROUPS,
    ChunkOptions,
    LogitLayout,
    State,
    no_state,
)
from dubito.engine.summing.compiled.figure_loops import merge_sizes
from dubito.engine.summing.compiled.spread import by_name, rows_of
from dubito.engine.summing.compiled.threads import in_parts
from dubito.engine.summing.compiled.tiles import BLOCK, Totals
from dubito.engine.summing.figures import Draws
from dubito.engine.summing.jackknife import MAX_GROUPS, group_size, sizes_of
from dubito.engine.summing.logits import Logits

_MANY = 256  # classes, from which loops run over them
_NUMBERS = 1024  # of a pass of a tile, so that its passes stay in the cache
_MOST_LANES = 64


class CompiledClassSums:
    """What a classification reports is made of these.

    Args:
        logits: finds them in the declared outputs of some passes.
        left: what a stratified draw leaves; None for `iid`.
        most_groups: sums that the jackknife keeps.
        is_mean: the size of a row's logits is the mean over its positions; else the sum.
    """

    enough: ClassVar[int] = 2**22
    """Numbers of passes, from which they are summed without waiting for more."""
    step: ClassVar[int] = BLOCK

    def __init__(
        self,
        logits: Callable[[Tensor], Logits],
        left: float | None,
        most_groups: int = MAX_GROUPS,
        is_mean: bool = False,
    ) -> None:
        self.left = left
        self.count = 0
        self._logits, self._most_groups, self._is_mean = logits, most_groups, is_mean
        self._size = 1
        self._shape: tuple[int, ...] = ()
        self._state: State | None = None
        self._sizes = (np.zeros((0, 2)), np.zeros((0, 2)))

    def add(self, raw: Tensor, *, is_last: bool) -> None:
        """Take in the next samples, in order of t: whole blocks of 16, or the last.

        Args:
            raw: declared outputs, (T, B, ...).
            is_last: no more will come.
        """
        assert self.count % self.step == 0
        logits = self._logits(raw)
        z = logits.scaled
        samples, self._shape = z.shape[0], (*z.shape[1:-1], z.shape[-1] + logits.is_binary)
        z = positions_in_line(z)
        is_whole = is_last and not self.count
        if self._state is None:
            self._state = self._none()
            self._sizes = (np.zeros((self._shape[0], 2)), np.zeros((self._shape[0], 2)))
        layout = layout_of(tuple(z.shape), z.stride(), self._shape[-1])
        by_tile = len(self._shape) > 2
        sizes = np.zeros((samples, self._shape[0], layout.tiles if by_tile else 1, 2))
        state = self._state = self._with_room(self._state, samples, is_whole)._replace(
            sizes=sizes.reshape(samples, -1, 2)
        )
        chunk = ChunkOptions(
            before=self.count,
            group_size=self._size,
            inverse=np.float32(1 / logits.temperature),
            is_binary=logits.is_binary,
            sizes_of_lanes=not by_tile,
            has_blocks=self.left is not None,
            is_whole=is_whole,
            is_lean=state.votes.size == 0,
        )
        weights = normal_scores(min(samples, BLOCK))
        tiles = layout.tiles * (self._shape[0] if by_tile else 1)
        numbers = flat(z)
        in_parts(
            lambda part: sum_classes(numbers, layout, chunk, weights, state, part), tiles, z.numel()
        )
        if logits.sizes is not None:
            of_rows = np.ascontiguousarray(logits.sizes.numpy())
        else:
            of_rows = sizes.sum(2) if by_tile else sizes[:, :, 0]
            of_rows = of_rows / prod(self._shape[1:-1]) if self._is_mean else of_rows
        merge_sizes(of_rows, self.count, *self._sizes)
        self.count += samples

    def spread(self) -> dict[str, Column]:
        """Mean and variance of the outputs, by which rows stop early."""
        assert self._state is not None
        return by_name(self._state.spread, self._shape, self.left, self.count)

    def sums(self) -> dict[str, Column]:
        """Return the sums by name, rows first."""
        assert self._state is not None
        return {
            **self.spread(),
            "entropy": self._state.entropy.reshape(self._shape[:-1]),
            "votes": self._state.votes.reshape(self._shape),
            "sizes": self._sizes[0],
            "size_squares": self._sizes[1],
            "jackknife": self._jackknife().reshape(self._shape[:-1]),
        }

    def draws(self) -> Draws:
        """Return what the sums are of."""
        return Draws(self.count, self.left, self.count // BLOCK, self._size)

    def take(self, rows: Tensor) -> CompiledClassSums:
        """Return the sums of some rows."""
        assert self._state is not None
        part, state, count = copy(self), self._state, self._shape[0]
        taken = partial(rows_of, count=count, places=rows.numpy())
        part._shape = (len(rows), *self._shape[1:])
        part._sizes = (self._sizes[0][rows.numpy()], self._sizes[1][rows.numpy()])
        part._state = State(
            Totals(*map(taken, state.spread)),
            votes=taken(state.votes),
            entropy=taken(state.entropy),
            jackknife=taken(state.jackknife),
            groups=np.array([taken(group) for group in state.groups]),
            sizes=state.sizes,
            wins=state.wins,
            varies=state.varies,
        )
        return part

    def _none(self) -> State:
        """Sums of no samples."""
        return no_state(prod(self._shape[:-1]), self._shape[-1])

    def _with_room(self, state: State, samples: int, is_whole: bool) -> State:
        """The groups so far, joined where they have grown, and those of the samples to come."""
        before, self._size = self._size, group_size(self.count + samples, self._most_groups)
        if is_whole:
            return state._replace(groups=NO_GROUPS)
        groups, joined = state.groups, self._size // before
        if joined > 1 and len(groups):
            groups = np.add.reduceat(groups, range(0, len(groups), joined), axis=0)
        number = -(-(self.count + samples) // self._size)
        more = np.zeros((number - len(groups), state.votes.size))
        return state._replace(groups=np.concatenate([groups.reshape(-1, more.shape[1]), more]))

    def _jackknife(self) -> Column:
        """Its correction, of one chunk as the loops made it, else of the groups."""
        assert self._state is not None
        state = self._state
        if not len(state.groups):
            return state.jackknife
        mean_N, rest_G = state.spread.mean, self.count - sizes_of(self.count, self._size)
        total = np.zeros_like(mean_N)
        for group_N, rest in zip(state.groups, rest_G, strict=True):
            off_N = np.divide(
                (self.count - rest) * mean_N - group_N,
                rest * mean_N,
                out=np.zeros_like(mean_N),
                where=mean_N > 0,
            )
            risen_N = np.maximum(off_N, -1.0) + 1
            total += rest / self.count * mean_N * (xlogy(risen_N, risen_N) - off_N)
        correction: Column = total.reshape(-1, self._shape[-1]).sum(-1)
        return correction


def positions_in_line(z: Tensor) -> Tensor:
    """Logits whose positions have one axis or none."""
    return z.flatten(2, -2) if z.ndim > 3 else z


def layout_of(shape: tuple[int, ...], strides: tuple[int, ...], classes: int) -> LogitLayout:
    """Where logits lie whose positions have one axis or none.

    Args:
        shape: theirs.
        strides: in numbers.
        classes: C, with one that has no logit.
    """
    is_row = classes >= _MANY and strides[-1] == 1
    lanes = shape[-2]
    width = 1 if is_row else min(lanes, max(1, min(_MOST_LANES, _NUMBERS // classes)))
    tiles = -(-lanes // width)
    return LogitLayout(
        samples=shape[0],
        lanes=lanes,
        classes=classes,
        width=-(-lanes // tiles),
        tiles=tiles,
        is_row=is_row,
        strides=(strides[0], strides[1] if len(shape) > 3 else 0, strides[-2], strides[-1]),
    )


def flat(z: Tensor) -> NDArray[np.float32]:
    """The memory between the first and the last of some numbers."""
    if z.is_contiguous():
        whole: NDArray[np.float32] = z.view(-1).numpy()
        return whole
    last = sum(stride * (size - 1) for stride, size in zip(z.stride(), z.shape, strict=True))
    between: NDArray[np.float32] = z.as_strided((last + 1,), (1,)).numpy()
    return between
