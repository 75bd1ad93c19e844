"""The pass with every draw at its mean, the passes backwards, and two beside the means.

Flow: rows → outputs at the means, with what a gradient needs → one pass backwards per direction of
the outputs → covariance; outputs on two opposite sides of the means → mean.

Dimensions: B rows, R directions, D outputs, N numbers that one site draws for a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from dubito.engine.calling.arguments import Check
from dubito.engine.kernels.products import has_fast_onednn
from dubito.engine.moments.graph import before_softmax
from dubito.engine.moments.linearised.directions import Followed, num_directions
from dubito.engine.moments.linearised.means import MeanDraws, look_at_draws
from dubito.engine.moments.linearised.products import differentiable
from dubito.engine.moments.outputs import OutputMoments
from dubito.engine.moments.values import RefusedError
from dubito.errors import InputError
from dubito_nn import Program, Site
from dubito_nn.program import Node, Ref, Value, pruned, step

_CLASSES = ("logits", "log_probs", "probs")
_SAME = frozenset({"aten.detach.default", "aten.alias.default"})
"""Operators that pass a value on, but not its gradient."""


@dataclass(eq=False)
class Linearisation:
    """A lifted graph, ready to be differentiated by its draws.

    Args:
        program: the lifted graph.
        sites: its random operations.
        output: what its numbers are declared to be.
        weights: tensors by key, on the device.
        device: to run on.
    """

    program: Program
    sites: Sequence[Site]
    output: str
    weights: Mapping[str, Tensor]
    device: torch.device
    _looked: dict[tuple[object, ...], int] = field(default_factory=dict)
    _transposed: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Cut the graph before a softmax that comes last, under which nothing is linear."""
        last = before_softmax(self.program, self.output)
        self._is_cut = last != self.program.outputs["output"]
        self._graph = pruned(Program(self.program.nodes, {"output": last}))
        self._dying = self._graph.last_uses

    def blocks(
        self, rows: Mapping[str, Tensor], budget_bytes: int, check: Check | None
    ) -> Iterator[OutputMoments]:
        """Moments of the declared outputs, for one block of rows after the other.

        Args:
            rows: checked, by input name.
            budget_bytes: for what is alive at once.
            check: called before each block; whatever it raises ends the call.

        Raises:
            InputError: the budget does not hold one row.
            RefusedError: a draw that cannot stand at its mean, or acts without a gradient.
        """
        of_row = self._bytes_of_row(rows)
        if of_row > budget_bytes:
            raise InputError(
                f"the memory budget of {budget_bytes} bytes expects one row to fit, which takes"
                f" {of_row} with its gradients: raise memory_budget_bytes"
            )
        at_once = budget_bytes // of_row
        for first in range(0, len(next(iter(rows.values()))), at_once):
            if check is not None:
                check()
            block = {name: x[first : first + at_once] for name, x in rows.items()}
            yield self.run({name: x.to(self.device) for name, x in block.items()})

    def run(self, inputs: Mapping[str, Tensor]) -> OutputMoments:
        """Moments of the declared outputs of some rows, on the device; raises as `blocks` does."""
        rows = len(next(iter(inputs.values())))
        means = MeanDraws(self.sites, self.device, rows)
        with torch.enable_grad():
            flat_BD = self._outputs(inputs, means).flatten(1)
        chosen = Followed.of(flat_BD.detach(), is_classes=self.output in _CLASSES)
        last = len(chosen.cotangents) - 1
        by_direction = []
        for position, cotangent_BD in enumerate(chosen.cotangents):
            keep = position < last
            by_direction.append(means.gradients(flat_BD, cotangent_BD, keep_graph=keep))
        covariance_BDD = chosen.covariance(means.covariance(by_direction))
        del flat_BD, means, by_direction
        mean = self._mean(inputs, rows)
        variance = covariance_BDD.diagonal(dim1=1, dim2=2).reshape(mean.shape)
        return OutputMoments(mean, variance, covariance_BDD if mean.ndim == 2 else None)

    def _mean(self, inputs: Mapping[str, Tensor], rows: int) -> Tensor:
        """Mean of the outputs on both sides of the means: what is odd in the draws cancels."""
        first, second = (
            self._outputs(inputs, MeanDraws(self.sites, self.device, rows, aside))
            for aside in (1.0, -1.0)
        )
        return (first + second) / 2

    def _outputs(self, inputs: Mapping[str, Tensor], means: MeanDraws) -> Tensor:
        values: dict[str, Value] = {}
        for position, node in enumerate(self._graph.nodes):
            values[node.name] = self._step(node, values, inputs, means)
            for name in self._dying.get(position, ()):
                del values[name]
        outputs = values[self._graph.outputs["output"]]
        assert isinstance(outputs, Tensor)
        if self.output == "probs" and not self._is_cut:
            return outputs.clamp_min(torch.finfo(outputs.dtype).tiny).log()
        return outputs

    def _step(
        self,
        node: Node,
        values: Mapping[str, Value],
        inputs: Mapping[str, Tensor],
        means: MeanDraws,
    ) -> Value:
        if node.op in _SAME:
            return values[next(node.references())]
        transposed = self._transposed_of(node, values)
        if transposed is not None:
            operands = [values[arg.name] if isinstance(arg, Ref) else arg for arg in node.args]
            x, weight, bias = (*operands, None)[:3]
            return differentiable(x, weight, bias, transposed)  # type: ignore[arg-type]
        return step(node, values, inputs, self.weights, means.draw, self.device)

    def _transposed_of(self, node: Node, values: Mapping[str, Value]) -> Tensor | None:
        """The transposed weight of a linear map behind a draw, where oneDNN multiplies faster."""
        if node.op != "aten.linear.default" or node.kwargs or self.device.type != "cpu":
            return None
        x, weight = (values[arg.name] for arg in node.args[:2] if isinstance(arg, Ref))
        assert isinstance(x, Tensor)
        assert isinstance(weight, Tensor)
        if x.dtype != torch.float32 or weight.requires_grad or not has_fast_onednn():
            return None
        if node.name not in self._transposed:
            self._transposed[node.name] = weight.t().contiguous()
        return self._transposed[node.name]

    def _bytes_of_row(self, rows: Mapping[str, Tensor]) -> int:
        """What one row takes: its values, kept for the gradient, and the gradients by the draws."""
        shapes = tuple(tensor.shape[1:] for tensor in rows.values())
        if shapes not in self._looked:
            row = {name: tensor[:1].to(self.device) for name, tensor in rows.items()}
            seen = look_at_draws(self._graph, self.sites, row, self.weights, self.device)
            self._check_rows_apart(row)
            follows = partial(num_directions, is_classes=self.output in _CLASSES)
            self._looked[shapes] = seen.row_bytes(follows)
        return self._looked[shapes]

    def _check_rows_apart(self, row: Mapping[str, Tensor]) -> None:
        """Refuse draws that are not laid out one row after the other."""
        means = MeanDraws(self.sites, self.device, 2)
        with torch.enable_grad():
            outputs = self._outputs({name: torch.cat([x, x]) for name, x in row.items()}, means)
        of_first = torch.zeros_like(outputs)
        of_first[0] = torch.linspace(0.5, 1.5, of_first[0].numel()).reshape(of_first[0].shape)
        if any(bool(by[1].any()) for by in means.gradients(outputs, of_first, keep_graph=False)):
            raise RefusedError("rows and another axis are folded into one")
