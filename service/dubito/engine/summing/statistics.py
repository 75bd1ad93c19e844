"""All sums over the passes, in operators on whole arrays: the reference.

Its job: take chunks of passes in order of t and keep sums that do not grow with T, in float64, on
the device; what they say is made of them on the host (`figures.py`). The sums of some rows can be
taken out and go on alone, which is how rows that are done leave a batch. On a processor compiled
loops say the same (`compiled/`).

Dimensions: T samples, B rows, C classes, D outputs.

    moments     mean and M2 = Σ (x - mean)²                      welford.py
    blocks      under a stratified draw: what its error needs    blocks.py
    entropies   Σ_t H[p_t] and p̄
    sizes       mean and M2 of log Σ_c exp(z_tc) and of max_c z_tc
    jackknife   Σ p over each of at most 64 groups of samples    jackknife.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from dubito.engine.calling.columns import Column
from dubito.engine.draws.strata import BLOCK
from dubito.engine.summing.blocks import Blocks
from dubito.engine.summing.figures import Draws
from dubito.engine.summing.jackknife import MAX_GROUPS, Groups
from dubito.engine.summing.welford import RunningMean

Parts = Callable[[Tensor], Iterator[tuple[Tensor, Tensor]]]
"""Finds what is summed in the declared outputs of some passes, of some after the others."""


class RunningSums(Protocol):
    """All sums over the passes of some rows."""

    enough: ClassVar[int]
    """Numbers of passes, from which they are summed without waiting for more."""
    step: ClassVar[int]
    """Passes that are summed together, if not the last: as many or a multiple."""

    def add(self, raw: Tensor, *, is_last: bool) -> None:
        """Take in the next samples, in order of t: whole blocks of 16, or the last.

        Args:
            raw: declared outputs, (T, B, ...).
            is_last: no more will come.
        """

    def spread(self) -> dict[str, Tensor] | dict[str, Column]:
        """Mean and variance of the outputs, by which rows stop early."""

    def sums(self) -> dict[str, Tensor] | dict[str, Column]:
        """Return the sums by name, rows first."""

    def draws(self) -> Draws:
        """Return what the sums are of."""

    def take(self, rows: Tensor) -> RunningSums:
        """Return the sums of some rows."""


class PartSums(Protocol):
    """Sums of what a head finds in the passes: two arrays, samples first."""

    @property
    def add(self) -> Callable[[Tensor, Tensor], None]:
        """Takes in the parts of the next samples, in order of t."""

    def spread_sums(self) -> dict[str, Tensor]:
        """Mean and variance of the outputs, by which rows stop early."""

    def sums(self) -> dict[str, Tensor]:
        """Return the sums by name, rows first."""

    def draws(self) -> Draws:
        """Return what the sums are of."""

    def take(self, rows: Tensor) -> PartSums:
        """Return the sums of some rows."""


class ReferenceSums:
    """Sums of the parts of passes.

    Args:
        parts: finds them in the declared outputs.
        of_parts: sums them.
    """

    enough: ClassVar[int] = 2**16
    step: ClassVar[int] = BLOCK

    def __init__(self, parts: Parts, of_parts: PartSums) -> None:
        self._parts, self._of_parts = parts, of_parts

    def add(self, raw: Tensor, *, is_last: bool) -> None:
        """Take in the next samples, in order of t.

        Args:
            raw: declared outputs, (T, B, ...).
            is_last: no more will come.
        """
        for first, second in self._parts(raw):
            self._of_parts.add(first, second)

    def spread(self) -> dict[str, Tensor]:
        """Mean and variance of the outputs, by which rows stop early."""
        return self._of_parts.spread_sums()

    def sums(self) -> dict[str, Tensor]:
        """Return the sums by name, rows first."""
        return self._of_parts.sums()

    def draws(self) -> Draws:
        """Return what the sums are of."""
        return self._of_parts.draws()

    def take(self, rows: Tensor) -> ReferenceSums:
        """Return the sums of some rows."""
        return ReferenceSums(self._parts, self._of_parts.take(rows))


class RunningSpread:
    """Mean and variance, and what the standard error under the draw used hangs on.

    Args:
        left: what a stratified draw leaves, see `dubito.engine.summing.blocks`; None for `iid`.
    """

    def __init__(self, left: float | None = None) -> None:
        self.left = left
        self.moments = RunningMean()
        self.blocks = None if left is None else Blocks()

    def add(self, chunk_TBD: Tensor) -> None:
        """Take in the next samples, in order of t."""
        self.moments.add(chunk_TBD)
        if self.blocks is not None:
            self.blocks.add(chunk_TBD)

    def sums(self) -> dict[str, Tensor]:
        """Return the sums by name, rows first."""
        sums = {"mean": self.moments.mean, "squares": self.moments.squares}
        return sums if self.blocks is None else sums | self.blocks.sums()

    def draws(self, group_size: int = 1) -> Draws:
        """Return what the sums are of."""
        blocks = 0 if self.blocks is None else self.blocks.count
        return Draws(self.moments.count, self.left, blocks, group_size)

    def take(self, rows: Tensor) -> RunningSpread:
        """Return the sums of some rows."""
        part = RunningSpread(self.left)
        part.moments = self.moments.take(rows)
        part.blocks = None if self.blocks is None else self.blocks.take(rows)
        return part


class ClassificationSums:
    """What a classification reports is made of these, from streamed probabilities.

    Rows may have axes of positions before their classes; every figure but `energy`, `energy_spread`
    and `max_logit` is then one of a position.

    Args:
        left: what a stratified draw leaves; None for `iid`.
        groups: most sums that the jackknife keeps.
    """

    def __init__(self, left: float | None = None, groups: int = MAX_GROUPS) -> None:
        self.spread = RunningSpread(left)
        self._groups = Groups(groups)
        self._entropy_B = torch.zeros(())
        self._votes_BC = torch.zeros(())
        self._sizes = RunningMean()

    def add(self, probs_TBC: Tensor, sizes_TB2: Tensor) -> None:
        """Take in the next samples, in order of t.

        Args:
            probs_TBC: of every pass; between rows and classes maybe positions.
            sizes_TB2: log Σ exp of its logits, and the largest of them.
        """
        self.spread.add(probs_TBC)
        self._groups.add(probs_TBC)
        self._entropy_B = self._entropy_B.to(probs_TBC) + torch.special.entr(probs_TBC).sum((0, -1))
        index_C = torch.arange(probs_TBC.shape[-1], device=probs_TBC.device)
        is_known_TB1 = probs_TBC[..., :1] == probs_TBC[..., :1]  # none where all are nan
        is_vote_TBC = (probs_TBC.argmax(-1, keepdim=True) == index_C) & is_known_TB1
        self._votes_BC = self._votes_BC.to(probs_TBC) + is_vote_TBC.sum(0)
        self._sizes.add(sizes_TB2)

    def spread_sums(self) -> dict[str, Tensor]:
        """Mean and variance of the outputs, by which rows stop early."""
        return self.spread.sums()

    def sums(self) -> dict[str, Tensor]:
        """Return the sums by name, rows first."""
        return {
            **self.spread.sums(),
            "entropy": self._entropy_B,
            "votes": self._votes_BC,
            "sizes": self._sizes.mean,
            "size_squares": self._sizes.squares,
            "jackknife": self._groups.correction(self.spread.moments.mean),
        }

    def draws(self) -> Draws:
        """Return what the sums are of."""
        return self.spread.draws(self._groups.size)

    def take(self, rows: Tensor) -> ClassificationSums:
        """Return the sums of some rows."""
        part = copy(self)
        part.spread, part._groups = self.spread.take(rows), self._groups.take(rows)
        part._entropy_B, part._votes_BC = self._entropy_B[rows], self._votes_BC[rows]
        part._sizes = self._sizes.take(rows)
        return part


class RegressionSums:
    """What a regression reports is made of these, from streamed means and what stands beside them.

    Args:
        left: what a stratified draw leaves; None for `iid`.
    """

    def __init__(self, left: float | None = None) -> None:
        self.spread = RunningSpread(left)
        self._beside = torch.zeros(())

    def add(self, mean_TBD: Tensor, beside: Tensor) -> None:
        """Take in the next samples.

        Args:
            mean_TBD: of every pass.
            beside: its noise variances (T, B, D), or its quantiles (T, B, D, Q).
        """
        self.spread.add(mean_TBD)
        self._beside = self._beside.to(beside) + beside.sum(0)

    def spread_sums(self) -> dict[str, Tensor]:
        """Mean and variance of the outputs, by which rows stop early."""
        return self.spread.sums()

    def sums(self) -> dict[str, Tensor]:
        """Return the sums by name, rows first."""
        return self.spread.sums() | {"beside": self._beside}

    def draws(self) -> Draws:
        """Return what the sums are of."""
        return self.spread.draws()

    def take(self, rows: Tensor) -> RegressionSums:
        """Return the sums of some rows."""
        part = RegressionSums()
        part.spread, part._beside = self.spread.take(rows), self._beside[rows]
        return part
