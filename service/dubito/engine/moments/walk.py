"""The walk over the lifted graph with moments in place of draws.

Its job: run what depends on no draw as it is, apply the rule of each operator to what does, and
refuse, with the operator and the module, what has no rule or would come out wrong.

Weights and what is made of them alone are made once; squared weights are made at their first use
and kept, which doubles the memory of the linear maps behind a draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor

from dubito.engine.calling.arguments import Check
from dubito.engine.calling.sampling import NUM_NODES
from dubito.engine.kernels.products import compute
from dubito.engine.moments.arithmetic import ARITHMETIC, ON_DRAWS, calculated, of_draws
from dubito.engine.moments.common import Directions
from dubito.engine.moments.graph import NORMALISERS, SIZES, dependent
from dubito.engine.moments.layers import LAYERS, Call
from dubito.engine.moments.nodes import nodes_of
from dubito.engine.moments.outputs import OutputMoments
from dubito.engine.moments.values import (
    Drawn,
    Held,
    Product,
    RefusedError,
    Spread,
    sites_of,
    spread,
)
from dubito.engine.planning.layout import Layout, Layouts, RowAxis, look, peak_row_bytes
from dubito.errors import InputError
from dubito_nn import Program, Site
from dubito_nn.program import Node, Ref, Value, bind, step

_AT_ONCE = 4  # values where a pass keeps one: two moments, and two on their way
_MAX_SHAPES = 16  # shapes of inputs for which functions of the draws are kept


class Propagation:
    """A lifted graph, ready for moments.

    Args:
        program: the lifted graph.
        sites: its random operations.
        output: what its numbers are declared to be.
        weights: tensors by key, on the device.
        device: to run on.
    """

    def __init__(
        self,
        program: Program,
        sites: Sequence[Site],
        output: str,
        weights: Mapping[str, Tensor],
        device: torch.device,
    ) -> None:
        self._program = program
        self._sites = sites
        self._output = output
        self._weights = weights
        self._device = device
        self._on_values = dependent(program, ("input",), stop=SIZES)
        of_rows = dependent(program, ("input",))
        on_draws = dependent(program, ("site",))
        self._of_draws = on_draws - self._on_values
        self._constants: dict[str, Held] = {}
        for node in program.nodes:
            if node.name not in of_rows | on_draws:
                known = cast("Mapping[str, Value]", self._constants)
                self._constants[node.name] = step(node, known, {}, weights, None, device)
        self._nodes = [node for node in program.nodes if node.name not in self._constants]
        self._dying = Program(tuple(self._nodes), program.outputs).last_uses
        self._squares: dict[str, Tensor] = {}
        self._directions: dict[tuple[str, bool], Directions] = {}
        self._draws: dict[tuple[object, ...], dict[str, Held]] = {}
        self._looked: dict[tuple[object, ...], tuple[Layouts, int]] = {}

    def blocks(
        self,
        rows: Mapping[str, Tensor],
        budget_bytes: int,
        check: Check | None,
    ) -> Iterator[OutputMoments]:
        """Moments of the declared outputs, for one block of rows after the other.

        Args:
            rows: checked, by input name.
            budget_bytes: for what is alive at once.
            check: called before each block; whatever it raises ends the propagation.

        Raises:
            InputError: the budget does not hold one row, or `run` refuses the graph.
        """
        layouts, of_row = self._look(rows)
        if of_row > budget_bytes:
            raise InputError(
                f"the memory budget of {budget_bytes} bytes expects one row to fit, which takes"
                f" {of_row} with its moments: raise memory_budget_bytes"
            )
        count = len(next(iter(rows.values())))
        at_once = budget_bytes // of_row
        for first in range(0, count, at_once):
            if check is not None:
                check()
            last = first + at_once
            block = {name: x[first:last].to(self._device) for name, x in rows.items()}
            yield self.run(block, layouts.of)

    def refusal(self, rows: Mapping[str, Tensor]) -> InputError | None:
        """Why rows of that shape are refused; None: they are not."""
        try:
            layouts, _ = self._look(rows)
            self.run({name: x[:1].to(self._device) for name, x in rows.items()}, layouts.of)
        except InputError as reason:
            return reason
        return None

    def _look(self, rows: Mapping[str, Tensor]) -> tuple[Layouts, int]:
        """Where values hold their rows, and the bytes that a row takes, for rows of that shape."""
        shapes = tuple(tensor.shape[1:] for tensor in rows.values())
        if shapes not in self._looked:
            row = {name: tensor[:1].to(self._device) for name, tensor in rows.items()}
            layouts = look(self._program, row, self._weights, self._device)
            output = self._program.outputs["output"]
            peak = peak_row_bytes(self._program.nodes, layouts.row_bytes, {output})
            at_nodes = 2 * NUM_NODES * layouts.row_bytes[output]
            while len(self._looked) >= _MAX_SHAPES:
                self._looked.pop(next(iter(self._looked)))
            self._looked[shapes] = layouts, _AT_ONCE * max(peak, at_nodes)
        return self._looked[shapes]

    def run(self, inputs: Mapping[str, Tensor], layouts: Mapping[str, Layout]) -> OutputMoments:
        """Moments of the declared outputs.

        Args:
            inputs: by name, rows first, on the device.
            layouts: where each value holds its rows.

        Raises:
            InputError: an operator has no rule, or its result would be wrong.
        """
        draws = self._draws_for(inputs)
        values: dict[str, Held] = self._constants | draws
        rows = len(next(iter(inputs.values())))
        output = self._program.outputs["output"]
        for position, node in enumerate(self._nodes):
            if node.name not in draws:
                try:
                    values[node.name] = self._step(node, values, inputs, rows)
                    _check_rows_first(values[node.name], layouts[node.name])
                except RefusedError as reason:
                    raise self._refusal(node, values, str(reason)) from reason
                if node.name in self._of_draws:
                    draws[node.name] = values[node.name]
            if node.name == output:
                break
            for name in self._dying.get(position, ()):
                if name not in self._constants:
                    values.pop(name, None)
        return _moments(values[output])

    def _draws_for(self, inputs: Mapping[str, Tensor]) -> dict[str, Held]:
        """What depends on draws alone, kept for the shapes of the last few calls."""
        shapes = tuple(rows.shape for rows in inputs.values())
        while len(self._draws) >= _MAX_SHAPES and shapes not in self._draws:
            self._draws.pop(next(iter(self._draws)))
        return self._draws.setdefault(shapes, {})

    def _step(
        self, node: Node, values: dict[str, Held], inputs: Mapping[str, Tensor], rows: int
    ) -> Held:
        if node.op == "site":
            return self._drawn(node, values, rows)
        random = [name for name in node.references() if _is_random(values[name])]
        if not random:
            return compute(node, values, inputs, self._weights, None, self._device)  # type: ignore[arg-type]
        args = [bind(arg, values, self._device) for arg in node.args]  # type: ignore[arg-type]
        if self._is_last_softmax(node, args):
            return values[random[0]]
        kwargs = {key: bind(arg, values, self._device) for key, arg in node.kwargs.items()}  # type: ignore[arg-type]
        meets_rows = any(
            name in self._on_values and isinstance(values[name], Tensor)
            for name in node.references()
        )
        on_draws = all(isinstance(values[name], Drawn) for name in random)
        try:
            if node.op in ON_DRAWS and on_draws and (not meets_rows or node.op not in ARITHMETIC):
                return of_draws(node.op, args, kwargs)
            if node.op in ARITHMETIC:
                return calculated(node.op, args, kwargs, meets_rows=meets_rows)
            if node.op not in LAYERS:
                raise RefusedError("the operator has no rule")
            squared = partial(self._squared, node, args)
            directions = partial(self._directions_of, node, args)
            return LAYERS[node.op](Call(node.op, args, kwargs, squared, directions))
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise RefusedError(f"the rule does not take these arguments ({reason})") from error

    def _is_last_softmax(self, node: Node, args: Sequence[object]) -> bool:
        x = args[0]
        return (
            node.name == self._program.outputs["output"]
            and self._output in NORMALISERS.get(node.op, ())
            and isinstance(x, (Product, Spread))
            and args[1] in (-1, len(x.shape) - 1)
        )

    def _drawn(self, node: Node, values: dict[str, Held], rows: int) -> Drawn:
        index, size, _ = (bind(arg, values, self._device) for arg in node.args)  # type: ignore[arg-type]
        assert isinstance(index, int)
        assert isinstance(size, list)
        site = self._sites[index]
        if site.batch_dim is None:
            raise RefusedError("all rows share a draw, as where weights are dropped")
        if size[site.batch_dim] != rows:
            raise RefusedError("rows and another axis are folded into one")
        at_K, weight_K = (part.to(self._device) for part in nodes_of(site))
        shape = [-1, *[1] * len(size)]
        return Drawn(
            index,
            at_K.reshape(shape),
            weight_K.reshape(shape),
            tuple(size),
            site.batch_dim,
            is_raw=True,
        )

    def _squared(self, node: Node, args: Sequence[object], position: int) -> Tensor:
        """The weight at a position of the arguments, squared; kept where it is a constant."""
        weight, ref = args[position], node.args[position]
        if not isinstance(weight, Tensor):
            raise RefusedError("a weight that is random itself")
        if not isinstance(ref, Ref) or ref.name not in self._constants:
            return weight.square()
        if ref.name not in self._squares:
            self._squares[ref.name] = weight.square()
        return self._squares[ref.name]

    def _directions_of(
        self, node: Node, args: Sequence[object], position: int, is_transposed: bool
    ) -> Directions:
        """The largest directions of a matrix of weights; kept where it is a constant."""
        weight, ref = args[position], node.args[position]
        assert isinstance(weight, Tensor)
        weight_CJ = weight.t() if is_transposed else weight
        if not isinstance(ref, Ref) or ref.name not in self._constants:
            return Directions.of(weight_CJ)
        key = (ref.name, is_transposed)
        if key not in self._directions:
            self._directions[key] = Directions.of(weight_CJ)
        return self._directions[key]

    def _refusal(self, node: Node, values: Mapping[str, Held], reason: str) -> InputError:
        reads = set(node.references())
        random = [
            value for name in reads if isinstance(value := values[name], Drawn | Product | Spread)
        ]
        sites = set[int]().union(*map(sites_of, random))
        if node.op == "site":
            sites = {int(node.args[0])}  # type: ignore[arg-type]
        keys = [str(w.args[0]) for w in self._program.of_kind("weight") if w.name in reads]
        behind = ", ".join(f"`{self._sites[index].module_path}`" for index in sorted(sites)[-3:])
        module = f"module `{keys[0].rpartition('.')[0]}`, " if keys else ""
        what = "draw" if node.op == "site" else f"operator `{node.op}`"
        return InputError(
            f"method `moments` stops at the {what} (node `{node.name}`, {module}behind the random"
            f" {behind}): {reason}: use method `mc`"
        )


def _moments(value: Held) -> OutputMoments:
    if isinstance(value, Tensor):
        return OutputMoments(value, torch.zeros_like(value), None)
    assert isinstance(value, (Drawn, Product, Spread))
    return OutputMoments.of(spread(value))


def _check_rows_first(value: Held, layout: Layout) -> None:
    """Which elements share a draw is read off one row, which must be an entry of the first axis."""
    if isinstance(value, (Product, Spread)) and value.places is not None:
        assert isinstance(layout, RowAxis)
        if (layout.axis, layout.per_row) != (0, 1):
            raise RefusedError("elements share draws, and rows are not on the first axis")


def _is_random(value: Held) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_is_random, value))
    return isinstance(value, (Drawn, Product, Spread))
