"""What the network returns on the example, held against what was declared of it.

Its job: refuse an output of another shape than the task, the output and the axis of the classes
say, and numbers that are not what they were declared to be: as they come on the example, and as the
last operators of the graphs let them come (`bounds.py`), since logits of one example may lie in
[0, 1] by chance. Both modes are looked at. Nothing is guessed.

Dimensions: C classes, L labels, D outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dubito_nn.capturing.capture import Captured
from dubito_nn.capturing.declared import Declared
from dubito_nn.capturing.paths import WHOLE
from dubito_nn.errors import ExportError
from dubito_nn.flow import base, names
from dubito_nn.lifting.lift import Lifted
from dubito_nn.manifest import MAX_AXES, Output, Task
from dubito_nn.proving.bounds import Ending, ValueRange

_LOGS = names("log log2 log10 log1p log_sigmoid log_softmax _log_softmax")
_SLACK = 1e-3  # probabilities are moved away from 0 and 1 by as much


def checked_output(captured: Captured, declared: Declared) -> tuple[Declared, int]:
    """Hold the output on the example against the declaration.

    Args:
        captured: the network with its example.
        declared: its axis of classes or outputs maybe counted from the end.

    Returns:
        The declaration with its axis counted from the front, and how many columns the output has: C
        classes, L labels or D outputs; of tokens 1.

    Raises:
        ExportError: the output is something else.
    """
    served = captured.run(captured.example, "evaluation")["output"]
    sampled = captured.run(captured.example, "sampling")["output"]
    rows = len(next(iter(captured.example.values())))
    if declared.is_of_tokens:
        _check_tokens(served, sampled)
        return declared, 1
    if declared.channel_axis is None:
        _check_columns(tuple(served.shape), rows, declared)
        axis = 1
    else:
        axis = _checked_axis(declared, served[:, 0] if declared.is_pair else served, rows)
        declared = declared.with_axis(axis)
    if not served.is_floating_point() or not served.isfinite().all():
        raise ExportError(
            f"the output expects finite floating-point numbers on the example, got {served.dtype}:"
            " return scores or means, and give real rows as example_inputs"
        )
    num_columns = served.shape[axis + declared.is_pair]
    if declared.is_one_logit and num_columns != 1:
        raise ExportError(
            f"output `sigmoid_logits` expects one number per row, got {num_columns}: declare"
            " output='logits' for several classes, or task='multilabel' for labels that are each on"
            " or off"
        )
    _check_numbers(served, sampled, declared.output, axis)
    return declared, num_columns


def checked_ending(captured: Captured, graphs: Sequence[Lifted], declared: Declared) -> str | None:
    """Hold what the output can be behind the last operators of a graph against the declaration.

    Scores in [0, 1] are probabilities: softmax or sigmoid of them could never be sure. So are all
    logits of a row, or any logit that stands alone. A log-variance is below 0 wherever the variance
    is below 1, so one that never is was meant as a variance or a deviation, unless it is made by a
    logarithm. Scores on one side of 0 (a relu behind the last layer) or in [-1, 1] (a tanh) are
    odd, but some networks are trained so.

    Args:
        captured: the network with its example.
        graphs: as recorded in each mode.
        declared: what its numbers are.

    Returns:
        The operator and module that keep scores on one side of 0 or in [-1, 1], where they do.

    Raises:
        ExportError: the output is something else.
    """
    if declared.output not in ("logits", "sigmoid_logits", "mean_and_log_variance"):
        return None
    learned = frozenset(dict(captured.module.network.named_parameters(remove_duplicate=False)))
    held = None
    for graph in graphs:
        bounds = Ending(graph.program, graph.sites, learned).bounds(captured.example, graph.weights)
        returned = Returned(bounds, graph)
        if declared.is_pair:
            returned.refuse_variance()
        else:
            held = returned.refuse_probabilities(declared.task, declared.output) or held
    return held


@dataclass(frozen=True)
class Returned:
    """The bounds of an output and the graph that they are of."""

    bounds: ValueRange
    graph: Lifted

    def refuse_variance(self) -> None:
        """Refuse a second half that is never negative and no logarithm."""
        which = self._varied & (self.bounds.low >= 0) & ~self._is_log
        which[:, 0] = False
        if which.any():
            raise ExportError(
                "output `mean_and_log_variance` expects log-variances, which are negative wherever"
                f" the variance is below 1, got numbers that {self._named(which)} keeps at 0 or"
                " above: return the logarithm of the variance, torch.log(variance), or"
                " 2 * torch.log(deviation)"
            )

    def refuse_probabilities(self, task: Task, output: Output) -> str | None:
        """Refuse scores in [0, 1], and logarithms of such; name what holds all of them back."""
        low, high = self.bounds.low, self.bounds.high
        is_alone = output == "sigmoid_logits"
        inside = self._varied & (low >= -_SLACK) & (high <= 1 + _SLACK)
        if is_alone:
            inside |= self._varied & self._is_log & (high <= _SLACK)
        if inside.any() and (is_alone or torch.equal(inside, self._varied)):
            is_log = low[inside][0] < -1
            remedy = "return what goes into it"
            if task == "classification":
                remedy += ", or declare output='probs'" + (
                    " and return both columns, torch.cat([1 - p, p], 1)" if is_alone else ""
                )
            raise ExportError(
                f"output `{output}` expects scores that may be any number, got numbers that"
                f" {self._named(inside)} keeps {'at 0 or below' if is_log else 'in [0, 1]'}, so"
                f" that no answer could ever be sure: {remedy}"
            )
        held = self._varied & ((low >= 0) | (low >= -1 - _SLACK) & (high <= 1 + _SLACK))
        if is_alone:
            held |= self._varied & (high <= 0)
        is_whole = held.any() and (is_alone or torch.equal(held, self._varied))
        return self._named(held) if is_whole else None

    @property
    def _varied(self) -> Tensor:
        """Which elements are no constants."""
        return self.bounds.low < self.bounds.high

    @property
    def _is_log(self) -> Tensor:
        """Which elements a logarithm made; log(1 + exp x), a softplus written out, is none."""
        nodes = {node.name: node for node in self.graph.program.nodes}

        def reads(node_name: str, kind: str) -> bool:
            return any(base(nodes[name]) == kind for name in nodes[node_name].references())

        positions = [
            position
            for position, node in enumerate(self.graph.program.nodes)
            if base(node) in _LOGS
            and not reads(node.name, "exp")
            and not any(base(nodes[n]) == "add" and reads(n, "exp") for n in node.references())
        ]
        return torch.isin(self.bounds.by, torch.tensor(positions, dtype=torch.int64))

    def _named(self, which: Tensor) -> str:
        """The operator that bounds the first of some elements, and its module."""
        node = self.graph.program.nodes[int(self.bounds.by[which][0])]
        return f"`{base(node)}` in module `{self.graph.paths.get(node.name, WHOLE)}`"


def _check_columns(shape: tuple[int, ...], rows: int, declared: Declared) -> None:
    """Refuse an output of other axes than the rows and one of columns, or of quantiles."""
    num_axes = 3 if declared.is_pair or declared.quantile_levels else 2
    if len(shape) == num_axes and shape[0] == rows:
        return
    columns = declared.columns
    expected = f"rows, {columns.symbol}" + (", Q" if declared.quantile_levels else "")
    remedy = "reduce further axes in forward()"
    if len(shape) > num_axes and shape[0] == rows:
        remedy += f", or name the axis of the {columns.name} with {columns.axis}="
        remedy += f" where every position has {columns.at_position}"
    raise ExportError(
        f"output `{declared.output}` expects the shape ({expected}), got {shape}: {remedy}"
    )


def _check_tokens(served: Tensor, sampled: Tensor) -> None:
    """Refuse log-probabilities above 0, masks of other numbers than 0 and 1, and drawn masks."""
    (log_probs, mask), (_, drawn) = served.unbind(1), sampled.unbind(1)
    if not ((mask == 0) | (mask == 1)).all() or not torch.equal(mask, drawn):
        raise ExportError(
            "output `token_log_probs` expects a mask that is 1 at tokens and 0 at padding, and the"
            " same in both modes, got other numbers: return the attention mask of the tokens that"
            " are scored"
        )
    if not mask.any(dim=1).all():
        raise ExportError(
            "output `token_log_probs` expects a token in every row of the example, got a row of"
            " padding alone: give real rows as example_inputs"
        )
    if not served.isfinite().all() or (log_probs > _SLACK).any():
        raise ExportError(
            "output `token_log_probs` expects finite logarithms of probabilities, at 0 or below,"
            f" got numbers up to {float(log_probs.max()):.4g}: return those of log_softmax at the"
            " given tokens"
        )


def _checked_axis(declared: Declared, served: Tensor, rows: int) -> int:
    """The axis of the classes or outputs of an output with positions, counted from the front."""
    columns, shape = declared.columns, tuple(served.shape)
    if len(shape) < 3 or len(shape) > MAX_AXES or shape[0] != rows:
        raise ExportError(
            f"{columns.axis} expects an output with the rows first, the {columns.name} and one or"
            f" more axes of positions, got the shape {shape}: leave it out for {columns.of_row}"
        )
    named_axis = declared.channel_axis
    is_integer = isinstance(named_axis, int) and not isinstance(named_axis, bool)
    axis = named_axis + len(shape) if isinstance(named_axis, int) and named_axis < 0 else named_axis
    if not is_integer or not isinstance(axis, int) or not 1 <= axis < len(shape):
        raise ExportError(
            f"{columns.axis} expects an axis of the output {shape} other than the rows, from 1 to"
            f" {len(shape) - 1} or counted from the end, got {named_axis!r}: name that of the"
            f" {columns.name}"
        )
    return axis


def _check_numbers(result: Tensor, sampled: Tensor, output: str, axis: int) -> None:
    """Refuse classes whose numbers are of another kind than declared, or differ between modes."""
    if output not in ("logits", "probs", "log_probs"):
        return
    slack = 1e-5 if output == "logits" else 1e-2
    made, made_sampling = (_made(numbers, axis, slack) for numbers in (result, sampled))
    if made != made_sampling:
        raise ExportError(
            f"output `{output}` expects the same kind of numbers in both modes, got {made} in"
            f" evaluation and {made_sampling} in training mode: return the same whatever"
            " self.training is, and drop nothing behind the softmax"
        )
    if output == "logits" and made == "probs":
        raise ExportError(
            "output `logits` expects unnormalised scores, got non-negative numbers that sum to 1 in"
            " every row: declare output='probs', or return what goes into the softmax"
        )
    if output not in ("logits", made):
        probs = result.double() if output == "probs" else result.double().exp()
        remedy = f"declare what the network returns, for instance output='{made}'"
        if result.shape[axis] == 1:
            remedy = "one number per row is output='sigmoid_logits', as it is before the sigmoid"
        elif output == "probs" and made == "logits" and ((result >= 0) & (result <= 1)).all():
            remedy = (
                "labels that are each on or off are task='multilabel', output='sigmoid_logits', as"
                " they are before the sigmoid"
            )
        raise ExportError(
            f"output `{output}` expects probabilities that sum to 1 in every row, got sums"
            f" {[round(float(s), 3) for s in probs.sum(axis).flatten()[:4]]}: {remedy}"
        )


def _made(numbers: Tensor, axis: int, slack: float) -> Output:
    """What numbers are that may be probabilities or their logarithms."""
    forms: tuple[tuple[Output, Tensor], ...] = (
        ("probs", numbers.double()),
        ("log_probs", numbers.double().exp()),
    )
    for name, probs in forms:
        if (probs >= -1e-6).all() and ((probs.sum(axis) - 1).abs() <= slack).all():
            return name
    return "logits"
