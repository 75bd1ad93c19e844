"""Heads that say several things of a row: labels that are on or off, a class at every position.

Its job: which shapes such a head has, and how large the sums over its positions are, so that a call
keeps to its memory budget. What they say of a row is in `aggregate.py`.

Dimensions: T samples, B rows, P positions (one axis or more), C classes; of a label C is 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from dubito.engine.calling.columns import Column
from dubito.engine.proving.clock import Clock
from dubito.engine.proving.sizes import GraphLimits, check_sizes
from dubito.engine.summing.jackknife import MAX_GROUPS
from dubito.engine.summing.statistics import ClassificationSums, RegressionSums
from dubito.errors import InputError
from dubito_nn import Bundle, Manifest

GROUPS = 8  # sums of the jackknife; a row of maps has no room for 64
_STATE = 48  # numbers of float64 that the sums keep, at most, for each class of each position
_UNBOUNDED = 2**62


AnySums: TypeAlias = (
    "ClassificationSums[Tensor] | RegressionSums[Tensor]"
    " | ClassificationSums[Column] | RegressionSums[Column]"
)
"""Of one task, in torch or in numpy."""


def empty_sums(manifest: Manifest, left: float | None) -> AnySums:
    """The sums of a network's head.

    Args:
        manifest: what its outputs are.
        left: what a stratified draw leaves; None for `iid`.
    """
    if manifest.family == "regression":
        return RegressionSums(left)
    return ClassificationSums(left, GROUPS if manifest.has_positions else MAX_GROUPS)


def position_shape(bundle: Bundle, rows: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The axes of positions of rows of that shape; of labels (L,), of one class per row ().

    The graph runs without numbers, which costs no arithmetic.

    Args:
        bundle: the lifted network.
        rows: by input name.
    """
    manifest = bundle.manifest
    if manifest.head == "multilabel":
        return (manifest.num_outputs,)
    if manifest.class_axis is None:
        return ()
    two = {name: tensor[:1].repeat_interleave(2, 0) for name, tensor in rows.items()}
    limits = GraphLimits(_UNBOUNDED, Clock(None))
    made = check_sizes(bundle.sampling, two, bundle.weights, bundle.sites, limits)
    assert isinstance(made, Tensor)
    return tuple(
        size for axis, size in enumerate(made.shape) if axis not in (0, manifest.class_axis)
    )


def most_rows(manifest: Manifest, shape: tuple[int, ...], budget_bytes: int) -> int:
    """Rows whose sums fit into a budget; those of one class per row are never the question.

    Args:
        manifest: what the outputs are.
        shape: of the output of some rows.
        budget_bytes: of the sums.

    Raises:
        InputError: it does not hold the sums of one row.
    """
    if not manifest.has_positions:
        return _UNBOUNDED
    is_binary = manifest.output == "sigmoid_logits"
    row_bytes = _STATE * 8 * math.prod(shape[1:]) * (2 if is_binary else 1)
    if row_bytes > budget_bytes:
        raise InputError(
            f"the memory budget expects the sums over the positions of one row, {row_bytes} bytes, "
            f"to fit {budget_bytes}: raise DUBITO_MEMORY_BUDGET_BYTES to 4 times that, or predict "
            "smaller maps"
        )
    return budget_bytes // row_bytes


def check_method(method: str, manifest: Manifest) -> None:
    """Refuse moments of a head with positions.

    Raises:
        InputError: naming the remedy.
    """
    if method == "moments" and manifest.has_positions:
        raise InputError(
            f"method `moments` expects one distribution per row, got a {manifest.head} head, which "
            "has one for each label or position: use `mc`"
        )


def expected_output(manifest: Manifest, rows: int, got: torch.Size) -> tuple[int, ...] | None:
    """The shape that a manifest states for some rows; None where nothing of that form will do.

    Args:
        manifest: what the outputs are.
        rows: how many.
        got: shape of the output, from which axes of positions are taken as they are.
    """
    is_binary = manifest.output == "sigmoid_logits" and manifest.task == "classification"
    columns = 1 if is_binary else manifest.num_outputs
    if manifest.class_axis is None:
        pair = (2,) if manifest.output == "mean_and_log_variance" else ()
        return (rows, *pair, columns)
    if len(got) < 3 or manifest.class_axis >= len(got) or 0 in got:
        return None
    sizes = list(got)
    sizes[0], sizes[manifest.class_axis] = rows, columns
    return tuple(sizes)
