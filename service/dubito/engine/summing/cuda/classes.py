"""The sums of a classification, as kernels.

Its job: say where the logits of a chunk lie, launch, and keep between chunks what was summed up.
Nothing is asked of the device, so that a call can be recorded.

    add     two kernels over the logits, and one over what they say of each pass
    sums    one kernel for the jackknife, and views

Dimensions: T samples, B rows, P positions or labels, C classes, N = B·P, G groups of samples.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from dubito.engine.draws.strata import BLOCK
from dubito.engine.summing.cuda.columns import ColumnSums, by_name, rows_of, scores, sorted_blocks
from dubito.engine.summing.cuda.corrections import sum_corrections
from dubito.engine.summing.cuda.groups import GroupSums
from dubito.engine.summing.cuda.launching import launch
from dubito.engine.summing.cuda.passes import sum_passes
from dubito.engine.summing.cuda.spreads import sum_probabilities
from dubito.engine.summing.cuda.tiles import Tiles, warps
from dubito.engine.summing.figures import Draws
from dubito.engine.summing.jackknife import MAX_GROUPS
from dubito.engine.summing.logits import Logits


@dataclass(frozen=True)
class _Layout:
    """Where the logits of a chunk lie.

    Args:
        z: (T, B, P, C), or with one logit (T, B, P, 1).
        classes: C.
        is_binary: there is one logit z, which stands for (0, z).
    """

    z: Tensor
    classes: int
    is_binary: bool

    @property
    def distributions(self) -> int:
        """N."""
        return self.z.shape[1] * self.z.shape[2]

    @property
    def sizes(self) -> tuple[int, ...]:
        """N, P, C and the strides, as the kernels take them."""
        return (self.distributions, self.z.shape[2], self.classes, *self.z.stride())


class LaunchedClassSums:
    """What a classification reports is made of these.

    Args:
        logits: finds them in the declared outputs of some passes.
        left: what a stratified draw leaves; None for `iid`.
        most_groups: sums that the jackknife keeps.
        is_mean: the size of a row's logits is the mean over its positions; else the sum.
        tiles: of a program.
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
        tiles: Tiles | None = None,
    ) -> None:
        self.left = left
        self.count = 0
        self._logits, self._is_mean, self._tiles = logits, is_mean, tiles or Tiles()
        self._shape: tuple[int, ...] = ()
        self._state: Tensor | None = None
        self._groups = GroupSums(most_groups)
        self._entropies, self._sizes = ColumnSums(None, tiles), ColumnSums(None, tiles)

    def add(self, raw: Tensor, *, is_last: bool) -> None:
        """Take in the next samples, in order of t: whole blocks of 16, or the last.

        Args:
            raw: declared outputs, (T, B, ...).
            is_last: no more will come.
        """
        logits = self._logits(raw)
        z = logits.scaled
        self._shape = (*z.shape[1:-1], z.shape[-1] + logits.is_binary)
        z = z.unsqueeze(2) if z.ndim == 3 else z.flatten(2, -2)
        layout = _Layout(z, self._shape[-1], logits.is_binary)
        of_passes = self._sum_chunk(layout, 1 / logits.temperature)
        if logits.sizes is None and z.shape[2] == 1:
            self._sizes.add(of_passes.flatten(1))  # with the entropies
        else:
            self._entropies.add(of_passes[..., 0])
            self._sizes.add(self._sizes_of_rows(logits, of_passes).flatten(1))
        self.count += len(z)

    def _sum_chunk(self, layout: _Layout, inverse: float) -> Tensor:
        """Sum what lies in a chunk; what is said of each pass, (T, N, 3)."""
        z, samples, places = layout.z, len(layout.z), prod(self._shape)
        passes = samples * layout.distributions
        state = z.new_empty((5, places), dtype=torch.float64)
        past = state if self._state is None else self._state
        largest, factor = z.new_empty((2, passes))
        best = z.new_empty(passes, dtype=torch.int32)
        of_passes = state.new_empty((samples, layout.distributions, 3))
        at_once, classes = self._tiles.of_passes(passes, layout.classes)
        launch(
            sum_passes, (-(-passes // at_once),), z,
            z, largest, factor, best, of_passes, samples, *layout.sizes, inverse,
            int(layout.is_binary), inverse != 1, at_once, classes,
        )  # fmt: skip
        width, blocks = self._tiles.of_samples(samples, places)
        has_blocks = self.left is not None
        group = self._groups.of_chunk(samples)
        groups = state.new_empty((-(-samples // group), places))
        launch(
            sum_probabilities, (-(-places // width),), z,
            z, largest, factor, best, past, state, groups, scores(samples, z), samples, self.count,
            sorted_blocks(samples, self.count), *layout.sizes, inverse,
            int(layout.is_binary), has_blocks, group, width, blocks,
            warps=warps(width * blocks),
        )  # fmt: skip
        self._state = state
        self._groups.add(groups, samples, group)
        return of_passes

    def spread(self) -> dict[str, Tensor]:
        """Mean and variance of the outputs, by which rows stop early."""
        assert self._state is not None
        return by_name(self._state[:4], self._shape, self.left, self.count)

    def sums(self) -> dict[str, Tensor]:
        """Return the sums by name, rows first."""
        assert self._state is not None
        rows, distributions = self._shape[0], prod(self._shape[:-1])
        if self._entropies.count:
            entropy = self._entropies.sums((distributions,))["mean"]
            sizes = self._sizes.sums((rows, 2))
        else:
            sizes = self._sizes.sums((rows, 3))
            entropy = sizes["mean"][:, 0]
        return {
            **self.spread(),
            "entropy": (entropy * self.count).reshape(self._shape[:-1]),
            "votes": self._state[4].reshape(self._shape),
            "sizes": sizes["mean"][:, -2:],
            "size_squares": sizes["squares"][:, -2:],
            "jackknife": self._jackknife().reshape(self._shape[:-1]),
        }

    def draws(self) -> Draws:
        """Return what the sums are of."""
        blocks = 0 if self.left is None else self.count // BLOCK
        return Draws(self.count, self.left, blocks, self._groups.size)

    def take(self, rows: Tensor) -> LaunchedClassSums:
        """Return the sums of some rows."""
        assert self._state is not None
        part, count = copy(self), self._shape[0]
        part._shape = (len(rows), *self._shape[1:])
        part._state = rows_of(self._state, rows, count)
        part._groups = self._groups.take(rows, count)
        if self._entropies.count:
            part._entropies = self._entropies.take(rows, count)
        part._sizes = self._sizes.take(rows, count)
        return part

    def _sizes_of_rows(self, logits: Logits, of_passes: Tensor) -> Tensor:
        """Log Σ exp of the logits of a pass of a row, and the largest, (T, B, 2)."""
        if logits.sizes is not None:
            return logits.sizes.double()
        shape = (len(of_passes), self._shape[0], -1, 2)
        sizes_TBP2 = of_passes[..., 1:].reshape(shape)
        return sizes_TBP2.mean(2) if self._is_mean else sizes_TBP2.sum(2)

    def _jackknife(self) -> Tensor:
        """Its correction, (N,)."""
        assert self._state is not None
        groups, size, classes = self._groups.sums, self._groups.size, self._shape[-1]
        assert groups is not None
        distributions = prod(self._shape[:-1])
        if len(groups) < 2:
            return groups.new_zeros(distributions)
        width, at_once = self._tiles.of_groups(len(groups), classes)
        tiles = -(-classes // width)
        correction = groups.new_empty((distributions, tiles))
        launch(
            sum_corrections, (distributions, tiles), groups,
            groups, self._state[0], correction, self.count, size, distributions, classes,
            width, at_once,
        )  # fmt: skip
        return correction.sum(-1) if tiles > 1 else correction
