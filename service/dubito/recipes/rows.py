"""The rows that `dubito train` trains on: an `.npz` file as tensors, split and in training units.

Flow: arrays -> names, shapes and types checked -> training and validation rows -> class indices, or
targets standardised on the training rows.

Dimensions: N rows, D outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubito.errors import InputError
from dubito.labels import Classes, LabelsAre
from dubito_nn.manifest import MAX_CLASSES

Task = Literal["classification", "regression"]
Arrays = Mapping[str, NDArray[np.generic]]
_NAMES = (
    "inputs",
    "labels",
    "targets",
    "validation_inputs",
    "validation_labels",
    "validation_targets",
)


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """The rows that a network is trained on, and those that it is watched by.

    Attributes:
        task: `classification` with class indices, `regression` with standardised targets.
        inputs: (N, ...) in float32, or int64 for tokens.
        targets: (N,) int64, or (N, D) float32.
        validation: Inputs and targets of held-out rows; None where there are none.
        classes: Names, for classification.
        target_scale: Mean and standard deviation of the training targets, for regression.
    """

    task: Task
    inputs: Tensor
    targets: Tensor
    validation: tuple[Tensor, Tensor] | None
    classes: tuple[str, ...] | None
    target_scale: tuple[tuple[float, ...], tuple[float, ...]] | None


def split_rows(
    arrays: Arrays,
    *,
    classes: tuple[str, ...] | None,
    labels_are: LabelsAre | None = None,
    validation_share: float,
    seed: int,
    tokens: bool = False,
) -> TrainingRows:
    """Make training rows of the arrays of a file.

    Args:
        arrays: `inputs` with `labels` or `targets`; maybe `validation_inputs` and the like.
        classes: Names; without them the labels' own, sorted, or 0 to the largest index.
        labels_are: What integers among the labels are; None: indices that are no other names.
        validation_share: Of the rows, held out by the seed where the file holds none out itself.
        seed: Of the split.
        tokens: Whether the inputs are token numbers, which stay whole.

    Raises:
        InputError: an array is missing, unknown, of another length, or holds what cannot be used.
    """
    truth = _truth_name(arrays)
    pairs = [(_inputs(arrays["inputs"], "inputs", tokens), arrays[truth])]
    if "validation_inputs" in arrays:
        held_out = _inputs(arrays["validation_inputs"], "validation_inputs", tokens)
        if held_out.shape[1:] != pairs[0][0].shape[1:]:
            raise InputError(
                f"validation_inputs: expected rows of shape {tuple(pairs[0][0].shape[1:])} like "
                f"inputs, got {tuple(held_out.shape[1:])}: hold out rows of the same data"
            )
        pairs.append((held_out, arrays[f"validation_{truth}"]))
    for inputs, truths in pairs:
        _check_lengths(inputs, truths, truth)
    if len(pairs) == 1:
        pairs = _split(*pairs[0], validation_share, seed)
    if truth == "labels":
        names = classes or _class_names(pairs)
        parts = [(x, _indices(y, Classes(names, labels_are))) for x, y in pairs]
        scale = None
    else:
        if classes is not None:
            raise InputError("classes are for labels, the file has targets: leave them out")
        names, scale = None, _scale(_values(pairs[0][1]))
        parts = [(x, _standardised(_values(y), scale)) for x, y in pairs]
    return TrainingRows(
        task="classification" if truth == "labels" else "regression",
        inputs=parts[0][0],
        targets=parts[0][1],
        validation=parts[1] if len(parts) == 2 else None,
        classes=names,
        target_scale=scale,
    )


def _truth_name(arrays: Arrays) -> Literal["labels", "targets"]:
    unknown = sorted(set(arrays) - set(_NAMES))
    if unknown or "inputs" not in arrays or ("labels" in arrays) == ("targets" in arrays):
        raise InputError(
            f"expected the arrays inputs and either labels or targets, got {', '.join(arrays)}: "
            "write the file with numpy.savez(path, inputs=..., labels=...)"
        )
    name: Literal["labels", "targets"] = "labels" if "labels" in arrays else "targets"
    held_out = {key for key in arrays if key.startswith("validation_")}
    if held_out not in (set(), {"validation_inputs", f"validation_{name}"}):
        raise InputError(
            f"expected validation_inputs together with validation_{name}, got "
            f"{', '.join(sorted(held_out))}: give both or neither"
        )
    return name


def _inputs(array: NDArray[np.generic], name: str, tokens: bool) -> Tensor:
    kinds = "iu" if tokens else "iuf"
    if array.ndim < 2 or array.dtype.kind not in kinds:
        raise InputError(
            f"{name}: expected rows of {'token' if tokens else 'finite'} numbers, shape (N, ...), "
            f"got {array.dtype} of shape {array.shape}: one row per example"
        )
    values = array.astype(np.int64 if tokens else np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{name}: expected finite numbers, got nan or inf: fill or drop them")
    return torch.from_numpy(values)


def _check_lengths(inputs: Tensor, truths: NDArray[np.generic], name: str) -> None:
    if len(inputs) != len(truths) or len(inputs) < 2:
        raise InputError(
            f"expected as many {name} as inputs and at least 2, got {len(inputs)} inputs and "
            f"{len(truths)} {name}: give one per row"
        )


def _split(
    inputs: Tensor, truths: NDArray[np.generic], share: float, seed: int
) -> list[tuple[Tensor, NDArray[np.generic]]]:
    count = round(share * len(inputs))
    if count == 0:
        return [(inputs, truths)]
    order = np.random.default_rng(seed).permutation(len(inputs))
    held_out, trained_on = order[:count], order[count:]
    if len(trained_on) < 2:
        raise InputError(
            f"expected at least 2 rows to train on, got {len(trained_on)}: lower validation_share"
        )
    return [(inputs[part], truths[part]) for part in (trained_on, held_out)]


def _class_names(pairs: list[tuple[Tensor, NDArray[np.generic]]]) -> tuple[str, ...]:
    kinds = {truths.dtype.kind for _, truths in pairs}
    if not kinds <= {"i", "u"} and kinds != {"U"}:
        raise InputError(
            f"labels: expected integers throughout or text throughout, got kinds {sorted(kinds)}: "
            "real values are targets"
        )
    distinct = np.unique(np.concatenate([truths for _, truths in pairs]))
    if np.issubdtype(distinct.dtype, np.integer):
        if distinct.max() >= MAX_CLASSES:
            raise InputError(
                f"labels: expected class indices below {MAX_CLASSES}, got {distinct.max()}: number "
                "the classes from 0, or give their names as text"
            )
        return tuple(str(index) for index in range(int(distinct.max()) + 1))
    return tuple(str(name) for name in distinct)


def _indices(labels: NDArray[np.generic], classes: Classes) -> Tensor:
    """Class indices, of at least two classes."""
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise InputError(
            f"labels: expected one integer or text per row, got {labels.dtype} of shape "
            f"{labels.shape}: real values are targets"
        )
    if len(classes.names) < 2:
        raise InputError(
            f"labels: expected class indices from 0, or names, of at least two classes, got "
            f"{len(classes.names)}: number the classes from 0, and add rows of the others"
        )
    values, inverse = np.unique(labels, return_inverse=True)
    index = np.array([classes.index(value, "labels") for value in values.tolist()], np.int64)
    return torch.from_numpy(index[inverse])


def _values(targets: NDArray[np.generic]) -> NDArray[np.float64]:
    if targets.dtype.kind not in "iuf" or targets.ndim not in (1, 2):
        raise InputError(
            f"targets: expected numbers of shape (N,) or (N, D), got {targets.dtype} of shape "
            f"{targets.shape}: classes are labels"
        )
    values = targets.astype(np.float64).reshape(len(targets), -1)
    if not np.isfinite(values).all():
        raise InputError("targets: expected finite numbers, got nan or inf: drop those rows")
    return values


def _scale(value_ND: NDArray[np.float64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    # the deviation of a constant may round to something above 0
    rounding_D = 4 * np.finfo(np.float64).eps * np.abs(value_ND).max(axis=0)
    if not (np.ptp(value_ND, axis=0) > rounding_D).all():
        raise InputError("targets: expected values that vary, got a constant: nothing to learn")
    return tuple(value_ND.mean(axis=0).tolist()), tuple(value_ND.std(axis=0).tolist())


def _standardised(
    value_ND: NDArray[np.float64], scale: tuple[tuple[float, ...], tuple[float, ...]]
) -> Tensor:
    mean_D, deviation_D = np.array(scale[0]), np.array(scale[1])
    if value_ND.shape[1] != len(mean_D):
        raise InputError(
            f"validation_targets: expected {len(mean_D)} per row, got {value_ND.shape[1]}"
        )
    return torch.from_numpy(((value_ND - mean_D) / deviation_D).astype(np.float32))
