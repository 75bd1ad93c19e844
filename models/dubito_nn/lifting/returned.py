"""What the network returns on the example, held against what was declared of it.

Its job: refuse an output of another shape than the task, the output and the axis of the classes
say, and numbers that are not what they were declared to be. Nothing is guessed from either.

Dimensions: C classes, L labels, D outputs.
"""

from __future__ import annotations

from torch import Tensor

from dubito_nn.errors import ExportError
from dubito_nn.lifting.capture import Captured
from dubito_nn.manifest import MAX_AXES, Output, Task


def checked_output(
    captured: Captured, task: Task, output: Output, class_axis: int | None
) -> tuple[tuple[int, ...], int | None]:
    """The output's shape on the example, and the axis of its classes counted from 0.

    Args:
        captured: the network with its example.
        task: as declared.
        output: as declared.
        class_axis: as declared, maybe counted from the end; None: one distribution per row.

    Raises:
        ExportError: the output is something else.
    """
    result = captured.run(captured.example, "evaluation")["output"]
    shape, rows = tuple(result.shape), len(next(iter(captured.example.values())))
    if class_axis is None:
        _check_columns(shape, rows, output)
    else:
        class_axis = _checked_axis(class_axis, shape, rows, task)
    axis = class_axis or 1
    if not result.is_floating_point() or not result.isfinite().all():
        raise ExportError(
            f"the output expects finite floating-point numbers on the example, got {result.dtype}:"
            " return scores or means, and give real rows as example_inputs"
        )
    if output == "sigmoid_logits" and task == "classification" and shape[axis] != 1:
        raise ExportError(
            f"output `sigmoid_logits` expects one number per row, got {shape[axis]}: declare"
            " output='logits' for several classes, or task='multilabel' for labels that are each on"
            " or off"
        )
    _check_numbers(result, output, axis)
    return shape, class_axis


def _check_columns(shape: tuple[int, ...], rows: int, output: str) -> None:
    wanted = 3 if output == "mean_and_log_variance" else 2
    if len(shape) != wanted or shape[0] != rows:
        remedy = "reduce further axes in forward()"
        if "mean" not in output and len(shape) > 2 and shape[0] == rows:
            remedy += ", or name the axis of the classes with class_axis= where every position has"
            remedy += " a class"
        raise ExportError(
            f"output `{output}` expects the shape (rows, {'D' if 'mean' in output else 'C'}),"
            f" got {shape}: {remedy}"
        )


def _checked_axis(class_axis: object, shape: tuple[int, ...], rows: int, task: Task) -> int:
    if task != "classification":
        raise ExportError(
            f"class_axis belongs to a classification with a class at every position, got task"
            f" {task!r}: leave it out"
        )
    if len(shape) < 3 or len(shape) > MAX_AXES or shape[0] != rows:
        raise ExportError(
            "class_axis expects an output with the rows first, the classes and one or more axes of"
            f" positions, got the shape {shape}: leave it out for one class per row"
        )
    is_integer = isinstance(class_axis, int) and not isinstance(class_axis, bool)
    axis = class_axis + len(shape) if isinstance(class_axis, int) and class_axis < 0 else class_axis
    if not is_integer or not isinstance(axis, int) or not 1 <= axis < len(shape):
        raise ExportError(
            f"class_axis expects an axis of the output {shape} other than the rows, from 1 to"
            f" {len(shape) - 1} or counted from the end, got {class_axis!r}: name that of the"
            " classes"
        )
    return axis


def _check_numbers(result: Tensor, output: str, axis: int) -> None:
    if output == "logits" and (result >= 0).all() and _sums_to_one(result, axis):
        raise ExportError(
            "output `logits` expects unnormalised scores, got non-negative numbers that sum to 1 in"
            " every row: declare output='probs', or return what goes into the softmax"
        )
    if output in ("probs", "log_probs"):
        probs = result.double() if output == "probs" else result.double().exp()
        sums = probs.sum(axis)
        if (probs < -1e-6).any() or ((sums - 1).abs() > 1e-2).any():
            raise ExportError(
                f"output `{output}` expects probabilities that sum to 1 in every row, got sums"
                f" {[round(float(s), 3) for s in sums.flatten()[:4]]}: declare what the network"
                " returns, for instance output='logits'"
            )


def _sums_to_one(numbers: Tensor, axis: int) -> bool:
    return bool(((numbers.double().sum(axis) - 1).abs() < 1e-5).all())
