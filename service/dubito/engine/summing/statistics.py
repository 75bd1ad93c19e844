"""What T passes say together, summed up while they stream.

Its job: take chunks of passes in order of t and keep sums that do not grow with T, in float64, on
the device; what they say is made of them on the host (`figures.py`). The sums of some rows can be
taken out and go on alone, which is how rows that are done leave a batch. Few numbers are summed in
numpy, by the same lines (`arrays.py`).

Dimensions: T samples, B rows, C classes, D outputs.

    moments     mean and M2 = Σ (x - mean)²                      moments.py
    blocks      under a stratified draw: what its error needs    blocks.py
    entropies   Σ_t H[p_t] and p̄
    sizes       mean and M2 of log Σ_c exp(z_tc) and of max_c z_tc
    jackknife   Σ p over each of at most 64 groups of samples    jackknife.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol

from torch import Tensor

from dubito.engine.calling.columns import Column
from dubito.engine.summing.arrays import A, added, entr, numbers, taken
from dubito.engine.summing.blocks import Blocks
from dubito.engine.summing.figures import Draws
from dubito.engine.summing.jackknife import MAX_GROUPS, Groups
from dubito.engine.summing.welford import RunningMean


class RunningSums(Protocol):
    """All sums over the passes of some rows; of one kind of array, tensors or numpy's."""

    @property
    def spread(self) -> RunningSpread[Tensor] | RunningSpread[Column]:
        """Mean and variance of the outputs, by which rows stop early."""

    @property
    def add(self) -> Callable[..., None]:
        """Takes in the parts of the next samples, in order of t."""

    def sums(self) -> dict[str, Tensor] | dict[str, Column]:
        """Return the sums by name, rows first."""

    def draws(self) -> Draws:
        """Return what the sums are of."""

    def take(self, rows: Tensor) -> RunningSums:
        """Return the sums of some rows."""


class RunningSpread(Generic[A]):
    """Mean and variance, and what the standard error under the draw used hangs on.

    Args:
        left: what a stratified draw leaves, see `dubito.engine.summing.blocks`; None for `iid`.
    """

    def __init__(self, left: float | None = None) -> None:
        self.left = left
        self.moments: RunningMean[A] = RunningMean()
        self.blocks: Blocks[A] | None = None if left is None else Blocks()

    def add(self, chunk_TBD: A) -> None:
        """Take in the next samples, in order of t."""
        self.moments.add(chunk_TBD)
        if self.blocks is not None:
            self.blocks.add(chunk_TBD)

    def sums(self) -> dict[str, A]:
        """Return the sums by name, rows first."""
        sums = {"mean": self.moments.mean, "squares": self.moments.squares}
        return sums if self.blocks is None else sums | self.blocks.sums()

    def draws(self, groups: int = 0, group_size: int = 1) -> Draws:
        """Return what the sums are of."""
        blocks = 0 if self.blocks is None else self.blocks.count
        return Draws(self.moments.count, self.left, blocks, groups, group_size)

    def take(self, rows: Tensor) -> RunningSpread[A]:
        """Return the sums of some rows."""
        part: RunningSpread[A] = RunningSpread(self.left)
        part.moments = self.moments.take(rows)
        part.blocks = None if self.blocks is None else self.blocks.take(rows)
        return part


class ClassificationSums(Generic[A]):
    """What a classification reports is made of these, from streamed probabilities.

    Rows may have axes of positions before their classes; every figure but `energy`, `energy_spread`
    and `max_logit` is then one of a position.

    Args:
        left: what a stratified draw leaves; None for `iid`.
        groups: most sums that the jackknife keeps.
    """

    def __init__(self, left: float | None = None, groups: int = MAX_GROUPS) -> None:
        self.spread: RunningSpread[A] = RunningSpread(left)
        self._groups: Groups[A] = Groups(groups)
        self._entropy_B: A | None = None
        self._votes_BC: A | None = None
        self._sizes: RunningMean[A] = RunningMean()

    def add(self, probs_TBC: A, sizes_TB2: A) -> None:
        """Take in the next samples, in order of t.

        Args:
            probs_TBC: of every pass; between rows and classes maybe positions.
            sizes_TB2: log Σ exp of its logits, and the largest of them.
        """
        self.spread.add(probs_TBC)
        self._groups.add(probs_TBC)
        self._entropy_B = added(self._entropy_B, entr(probs_TBC).sum(0).sum(-1))
        index_C = numbers(tuple(range(probs_TBC.shape[-1])), probs_TBC)
        first_TB1 = probs_TBC[..., :1]
        is_vote_TBC = (probs_TBC.argmax(-1)[..., None] == index_C) & (first_TB1 == first_TB1)
        self._votes_BC = added(self._votes_BC, is_vote_TBC.sum(0))  # none where all are nan
        self._sizes.add(sizes_TB2)

    def sums(self) -> dict[str, A]:
        """Return the sums by name, rows first."""
        assert self._entropy_B is not None
        assert self._votes_BC is not None
        return {
            **self.spread.sums(),
            "entropy": self._entropy_B,
            "votes": self._votes_BC,
            "sizes": self._sizes.mean,
            "size_squares": self._sizes.squares,
            "rest_entropy": self._groups.entropy(self.spread.moments.mean),
        }

    def draws(self) -> Draws:
        """Return what the sums are of."""
        return self.spread.draws(self._groups.number, self._groups.size)

    def take(self, rows: Tensor) -> ClassificationSums[A]:
        """Return the sums of some rows."""
        part: ClassificationSums[A] = ClassificationSums()
        part.spread, part._groups = self.spread.take(rows), self._groups.take(rows)
        if self._entropy_B is not None and self._votes_BC is not None:
            part._entropy_B = taken(self._entropy_B, rows)
            part._votes_BC = taken(self._votes_BC, rows)
        part._sizes = self._sizes.take(rows)
        return part


class RegressionSums(Generic[A]):
    """What a regression reports is made of these, from streamed means and what stands beside them.

    Args:
        left: what a stratified draw leaves; None for `iid`.
    """

    def __init__(self, left: float | None = None) -> None:
        self.spread: RunningSpread[A] = RunningSpread(left)
        self._beside: A | None = None

    def add(self, mean_TBD: A, beside: A) -> None:
        """Take in the next samples.

        Args:
            mean_TBD: of every pass.
            beside: its noise variances (T, B, D), or its quantiles (T, B, D, Q).
        """
        self.spread.add(mean_TBD)
        self._beside = added(self._beside, beside.sum(0))

    def sums(self) -> dict[str, A]:
        """Return the sums by name, rows first."""
        assert self._beside is not None
        return self.spread.sums() | {"beside": self._beside}

    def draws(self) -> Draws:
        """Return what the sums are of."""
        return self.spread.draws()

    def take(self, rows: Tensor) -> RegressionSums[A]:
        """Return the sums of some rows."""
        part: RegressionSums[A] = RegressionSums()
        part.spread = self.spread.take(rows)
        if self._beside is not None:
            part._beside = taken(self._beside, rows)
        return part
