"""What the caller declares of a network's output, and what goes together in it.

Its job: the declaration as one value, refused where it contradicts itself. What the network returns
is held against it in `returned.py`.

Dimensions: C classes, L labels, D outputs, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dubito_nn.errors import ExportError
from dubito_nn.manifest import LEVELS, OUTPUTS_OF, Output, Task, are_levels

Scale = tuple[float | Sequence[float] | Tensor, float | Sequence[float] | Tensor]


@dataclass(frozen=True)
class Columns:
    """How refusals speak of the axis of an output that holds neither rows nor positions.

    Args:
        axis: the argument that names it where there are positions.
        name: what stands along it.
        symbol: their number.
        at_position: what every position has.
        of_row: what a row has where there are no positions.
    """

    axis: str
    name: str
    symbol: str
    at_position: str
    of_row: str


_CLASSES = Columns("class_axis", "classes", "C", "a class", "one class per row")
_OUTPUTS = Columns("output_axis", "outputs", "D", "numbers", "the numbers of a row")
_COLUMNS: dict[Task, Columns] = {
    "classification": _CLASSES,
    "multilabel": _CLASSES,
    "regression": _OUTPUTS,
}


@dataclass(frozen=True)
class Declared:
    """What the numbers of an output are; nothing of it is guessed.

    Args:
        task: what is learned.
        output: what the numbers are.
        class_axis: axis of the classes where every position has a class, or None.
        output_axis: axis of the outputs where every position has numbers, or None.
        quantile_levels: of a head of quantiles, in the order of its last axis; else None.

    Raises:
        ExportError: one of them does not go with the others.
    """

    task: Task
    output: Output
    class_axis: int | None = None
    output_axis: int | None = None
    quantile_levels: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.task not in OUTPUTS_OF or self.output not in OUTPUTS_OF[self.task]:
            raise ExportError(
                f"expects a task and one of its outputs, {OUTPUTS_OF}, got {self.task!r} and"
                f" {self.output!r}: declare what the network returns"
            )
        if self.class_axis is not None and self.task != "classification":
            raise ExportError(
                "class_axis belongs to a classification with a class at every position, got task"
                f" {self.task!r}: leave it out"
            )
        if self.output_axis is not None and self.output not in ("mean", "mean_and_log_variance"):
            raise ExportError(
                "output_axis belongs to a regression with means at every position, got output"
                f" {self.output!r}: leave it out"
            )
        if (self.output == "quantiles") != (self.quantile_levels is not None):
            remedy = "leave them out" if self.quantile_levels else "quantile_levels=(0.1, 0.5, 0.9)"
            raise ExportError(
                "quantile_levels belong to output='quantiles', which needs them, got output"
                f" {self.output!r} and {self.quantile_levels}: {remedy}"
            )

    @property
    def is_pair(self) -> bool:
        """Whether axis 1 of what is served holds the mean and the log-variance."""
        return self.output == "mean_and_log_variance"

    @property
    def is_of_tokens(self) -> bool:
        """Whether axis 1 of what is served holds log-probabilities of tokens and their mask."""
        return self.output == "token_log_probs"

    @property
    def is_one_logit(self) -> bool:
        """Whether one number stands for two classes."""
        return self.output == "sigmoid_logits" and self.task == "classification"

    @property
    def columns(self) -> Columns:
        """The words for what a row, or a position, has several of."""
        return _COLUMNS[self.task]

    @property
    def channel_axis(self) -> int | None:
        """Axis of the classes or outputs where a row has positions."""
        return self.class_axis if self.output_axis is None else self.output_axis

    def with_axis(self, axis: int) -> Declared:
        """The same with the axis that it names counted from the front."""
        if self.output_axis is None:
            return replace(self, class_axis=axis)
        return replace(self, output_axis=axis)


def read_levels(levels: Iterable[float] | None) -> tuple[float, ...] | None:
    """The levels of a head of quantiles as the manifest states them.

    Raises:
        ExportError: they are others than a head of quantiles may have.
    """
    if levels is None:
        return None
    try:
        numbers = tuple(float(level) for level in levels)
    except (TypeError, ValueError):
        numbers = ()
    if not are_levels(numbers):
        raise ExportError(
            f"quantile_levels expects {LEVELS}, got {str(levels)[:80]}: give those that the network"
            " was trained with, in the order of its output, such as (0.1, 0.5, 0.9)"
        )
    return numbers


def class_names(
    classes: Sequence[str] | None, declared: Declared, size: int
) -> tuple[str, ...] | None:
    """Names of the classes or labels, of which there are so many; None for a regression.

    Raises:
        ExportError: others, or too few classes.
    """
    if declared.task in ("regression", "sequence"):
        if classes is not None:
            raise ExportError("classes are for classification: leave them out")
        return None
    count = 2 if declared.is_one_logit else size
    if count < 2 and declared.task == "classification":
        raise ExportError(
            f"output `{declared.output}` expects at least two classes, got {count}: one logit per"
            " row is output='sigmoid_logits'"
        )
    if isinstance(classes, str) or not all(isinstance(c, str) and c for c in classes or ()):
        raise ExportError(f"classes expects a list of names that are text, got {classes!r:.80}")
    names = tuple(str(name) for name in classes or range(count))
    if len(names) != count or len(set(names)) != count:
        raise ExportError(
            f"classes expects {count} different names, one for each output, got"
            f" {list(names)[:20]}: name them in the order of the outputs"
        )
    return names


def read_scale(
    scale: Scale | None, task: Task, num_outputs: int
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation of each output's target; None where it was not standardised.

    Raises:
        ExportError: they are not that.
    """
    if scale is None:
        return None
    if task != "regression":
        raise ExportError("target_scale is for regression: leave it out")
    expected = (
        f"target_scale expects (mean, standard deviation), each a number or {num_outputs} numbers,"
        f" finite and the deviation positive, got {str(scale)[:100]}: give those of the training"
        " targets"
    )
    try:
        mean, deviation = (torch.as_tensor(part, dtype=torch.float64).flatten() for part in scale)
        halves = torch.stack([part.expand(num_outputs) for part in (mean, deviation)])
    except (TypeError, ValueError, RuntimeError) as error:
        raise ExportError(expected) from error
    if not halves.isfinite().all() or (halves[1] <= 0).any():
        raise ExportError(expected)
    means, deviations = halves.tolist()
    return tuple(means), tuple(deviations)
