"""In which form sums are made: compiled loops on a processor, kernels on a GPU, else the reference.

Its job: choose, so that heads need not know; where numba is not installed nothing imports it, and
where Triton is not, or does not run, nothing launches it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dubito.engine.calling.columns import Columns, Sums
from dubito.engine.summing.compiled import is_compiled, is_used
from dubito.engine.summing.cuda import is_launched
from dubito.engine.summing.figures import Draws, classification
from dubito.engine.summing.jackknife import MAX_GROUPS
from dubito.engine.summing.logits import Logits
from dubito.engine.summing.statistics import (
    ClassificationSums,
    Parts,
    ReferenceSums,
    RegressionSums,
    RunningSums,
)

_HOST = torch.device("cpu")


@dataclass(frozen=True)
class ClassPasses:
    """What there is to be summed in the declared outputs of a classification.

    Args:
        logits: finds them in those of some passes.
        parts: finds probabilities there, and how large the logits are.
        groups: most sums that the jackknife keeps.
        is_mean: the size of a row's logits is the mean over its positions; else the sum.
    """

    logits: Callable[[Tensor], Logits]
    parts: Parts
    groups: int = MAX_GROUPS
    is_mean: bool = False


def class_sums(passes: ClassPasses, left: float | None, device: torch.device) -> RunningSums:
    """Empty sums of a classification.

    Args:
        passes: what is summed.
        left: what a stratified draw leaves; None for `iid`.
        device: where the passes are.
    """
    if is_launched(device):
        from dubito.engine.summing.cuda.classes import LaunchedClassSums

        return LaunchedClassSums(passes.logits, left, passes.groups, passes.is_mean)
    if not is_used(device):
        return ReferenceSums(passes.parts, ClassificationSums(left, passes.groups))
    from dubito.engine.summing.compiled.classes import CompiledClassSums

    return CompiledClassSums(passes.logits, left, passes.groups, passes.is_mean)


def lean_class_sums(passes: ClassPasses, device: torch.device) -> RunningSums:
    """Empty sums of what is said of classes without their spread; arguments as above."""
    if not is_compiled(device):
        return class_sums(passes, None, device)
    from dubito.engine.summing.compiled.lean import LeanClassSums

    return LeanClassSums(passes.logits, passes.is_mean)


def class_columns(
    passes: ClassPasses, raw: Tensor, left: float | None, *, is_lean: bool
) -> Columns | None:
    """The columns of a classification whose passes are few and all there; None: sum them first.

    Args:
        passes: what is summed.
        raw: declared outputs of all passes.
        left: what a stratified draw leaves; None for `iid`.
        is_lean: only what needs no spread over the passes.
    """
    if not is_used(raw.device):
        return None
    from dubito.engine.summing.compiled import at_once

    wanted = at_once.FiguresWanted(left, passes.groups, passes.is_mean, is_lean)
    return at_once.class_columns(passes.logits(raw), wanted)


def class_figures(sums: Sums, draws: Draws) -> Columns:
    """The columns of a classification, by their names in a reply.

    Args:
        sums: as `ClassificationSums` names them, on the host.
        draws: that they are of.
    """
    if "most_votes" in sums:
        from dubito.engine.summing.compiled import lean

        return lean.figures(sums, draws)
    if not is_used(_HOST):
        return classification(sums, draws)
    from dubito.engine.summing.compiled import figures

    return figures.classification(sums, draws)


def number_sums(parts: Parts, left: float | None, device: torch.device) -> RunningSums:
    """Empty sums of a regression.

    Args:
        parts: finds means in the declared outputs of some passes, and what stands beside them: of
            whole blocks of 16, or of the last passes.
        left: what a stratified draw leaves; None for `iid`.
        device: where the passes are.
    """
    if is_launched(device):
        from dubito.engine.summing.cuda.numbers import LaunchedNumberSums

        return LaunchedNumberSums(parts, left)
    if not is_used(device):
        return ReferenceSums(parts, RegressionSums(left))
    from dubito.engine.summing.compiled.numbers import CompiledNumberSums

    return CompiledNumberSums(parts, left)


def number_columns(parts: Parts, raw: Tensor, left: float | None) -> Columns | None:
    """The columns of a regression whose passes are few and all there; None: sum them first.

    Args:
        parts: finds means in the declared outputs, and their noise variances.
        raw: declared outputs of all passes.
        left: what a stratified draw leaves; None for `iid`.
    """
    if not is_used(raw.device):
        return None
    from dubito.engine.summing.compiled import at_once

    if raw.numel() > at_once.MOST:
        return None
    ((mean, noise),) = parts(raw)
    return at_once.number_columns(mean, noise, left)
