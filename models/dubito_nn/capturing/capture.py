"""Trace a network twice: as it samples, and as it is evaluated.

Its job: take a private copy of the network, put it into sampling or evaluation mode, and record it
with `torch.export` as a functional ATen graph whose first axis, the rows, is free. The caller's
module is never touched and no global generator is advanced.

Sampling mode is training mode with every normalisation that keeps running statistics left in
evaluation mode: an evaluation-mode trace would lose the dropout inside fused attention.
"""

from __future__ import annotations

import copy
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.utils.parametrizations import _SpectralNorm

from dubito_nn.capturing.branching.deciding import Deciding
from dubito_nn.capturing.branching.merging import merged
from dubito_nn.capturing.branching.python import drawn_by_torch
from dubito_nn.capturing.counting import sizes_left_out, symbolic_counts
from dubito_nn.capturing.declared import Declared
from dubito_nn.capturing.example import BATCH, ROWS, Inputs
from dubito_nn.capturing.explain import SKIPPED, explain, explain_rows, is_about_rows, reason
from dubito_nn.capturing.isolation import (
    never_inferring,
    own_generators,
    python_randomness,
)
from dubito_nn.capturing.known import known_values
from dubito_nn.capturing.opaque import WholeRecurrence
from dubito_nn.capturing.paths import WHOLE
from dubito_nn.capturing.respelled import Respelled, moved_nowhere, sampled_by_rows
from dubito_nn.capturing.seeded import never_seeded, refuse_seeding
from dubito_nn.capturing.selected import Selected
from dubito_nn.capturing.unwrapped import private_copy
from dubito_nn.errors import ExportError

Mode = Literal["sampling", "evaluation"]
_MAX_ROWS = 2**31 - 1
_KEEPS_STATISTICS = (nn.modules.batchnorm._NormBase, _SpectralNorm)


@dataclass
class Captured:
    """One network ready to be traced, with its example.

    Args:
        module: private copy, wrapped so that it returns a dictionary of tensors.
        inputs: of the network, with an example.
        running: paths of the modules whose forward pass is under way.
        row_ranges: least and most rows that a recording stands for by itself, where it asks for
            their number.
        left_out: sizes that a recording does not stand for, by free dimension.
        changing: names of the buffers that the network writes to.
        has_looked: whether it has looked at numbers that follow from its weights.
        kept: tensors computed at export.
    """

    module: Selected
    inputs: Inputs
    running: list[str] = field(default_factory=list)
    row_ranges: list[tuple[int, int]] = field(default_factory=list)
    left_out: dict[str, set[int]] = field(default_factory=dict)
    changing: set[str] = field(default_factory=set)
    has_looked: bool = False
    kept: list[Tensor] = field(default_factory=list)

    def interned(self, tensor: Tensor) -> Tensor:
        """The tensor, or one computed before that is equal, so that both graphs share it."""
        for other in self.kept:
            if other.dtype == tensor.dtype and torch.equal(other, tensor):
                return other
        self.kept.append(tensor.contiguous())
        return self.kept[-1]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what is served, in the order in which the wrapper returns it."""
        return ("output",) if self.module.features is None else ("output", "features")

    @property
    def example(self) -> dict[str, Tensor]:
        """A few rows of each input, by name and in order."""
        return self.inputs.tensors

    def run(self, inputs: Mapping[str, Tensor], mode: Mode) -> dict[str, Tensor]:
        """Run the eager network in a mode, without gradients."""
        set_mode(self.module, mode)
        self.module.conditions = list
        seeds = never_seeded(self.module.network, self.running)
        with torch.no_grad(), self._watching(), seeds:
            result = self.module(*(inputs[name].clone() for name in self.example))
        return {key: value.detach() for key, value in result.items()}

    def fill_caches(self) -> None:
        """Run a copy in both modes: what classes and files keep of a first pass is real then."""
        for mode in get_args(Mode):
            with suppress(Exception):  # which is told where the network itself is run
                replace(self, module=copy.deepcopy(self.module), running=[]).run(self.example, mode)

    def trace(self, mode: Mode) -> ExportedProgram:
        """Record the network as an ATen graph with the rows free.

        A network that asks how many rows there are is recorded for as many as are answered alike.

        Raises:
            ExportError: where the forward pass cannot be recorded, naming the module it stopped in.
        """
        try:
            recorded = self._record(mode, Dim(BATCH, min=1, max=_MAX_ROWS))
            self._learn_left_out(recorded)
            return recorded
        except ExportError:
            raise
        except Exception as error:
            where = list(self.running)
            some = self._record_some_rows(mode) if is_about_rows(error) else None
            if some is None:
                why = self.eager_reason(mode) or explain(error, where)
                raise ExportError(why + self._one_axis(why)) from error
            self._learn_left_out(some)
            return some

    def _record_some_rows(self, mode: Mode) -> ExportedProgram | None:
        """The recording for the rows that the network answers alike; None where there is none."""
        try:
            with symbolic_counts(self.module.network), self._without_row_state(mode):
                recorded = self._record(mode, Dim.DYNAMIC)
        except Exception:
            return None
        (first, *_) = recorded.graph_signature.user_inputs
        (node,) = (node for node in recorded.graph.nodes if node.name == first)
        rows = node.meta["val"].shape[0].node
        sizes = recorded.range_constraints.get(rows.expr)
        if sizes is not None:
            least = int(sizes.lower)
            for other in sizes_left_out(rows):
                self.row_ranges.append((least, other - 1))
                least = other + 1
            most = _MAX_ROWS if sizes.upper > _MAX_ROWS else int(sizes.upper)
            self.row_ranges.append((least, most))
        return recorded

    def _learn_left_out(self, recorded: ExportedProgram) -> None:
        """Note down sizes of free dimensions that the network treats apart."""
        nodes = {node.name: node for node in recorded.graph.find_nodes(op="placeholder")}
        for key, name in zip(self.example, recorded.graph_signature.user_inputs, strict=True):
            for axis, meaning in self.inputs.free_dims.get(key, {}).items():
                size = nodes[str(name)].meta["val"].shape[axis]
                if isinstance(size, torch.SymInt):
                    self.left_out.setdefault(meaning, set()).update(sizes_left_out(size.node))

    @contextmanager
    def _without_row_state(self, mode: Mode) -> Iterator[None]:
        """While active, state that the last pass left for each row, as neurons do, is empty."""

        def shapes() -> dict[tuple[nn.Module, str], torch.Size]:
            return {
                (part, name): part._buffers[name].shape  # type: ignore[union-attr]
                for part in self.module.modules()
                for name in part._non_persistent_buffers_set
                if part._buffers[name] is not None
            }

        before = shapes()
        self.run({name: rows[:-1] for name, rows in self.example.items()}, mode)
        left = [place for place, shape in shapes().items() if before.get(place, shape) != shape]
        for part, name in left:
            part._buffers[name] = part._buffers[name].new_zeros(0)  # type: ignore[union-attr]
        yield

    def _record(self, mode: Mode, rows: object) -> ExportedProgram:
        """The recording; where drawn numbers decide, of every way that the network may go."""
        recorded, answers = self._record_way(mode, rows, ())
        turned = [self._record_turned(mode, rows, number) for number in range(len(answers))]
        return merged(recorded, turned, len(self.outputs), answers) if turned else recorded

    def _record_turned(self, mode: Mode, rows: object, number: int) -> ExportedProgram:
        """The recording in which one decision falls the other way."""
        try:
            return self._record_way(mode, rows, (number,))[0]
        except Exception as error:
            if is_about_rows(error):
                raise
            where = f"module `{self.running[-1]}`" if self.running else "the network"
            raise ExportError(
                f"{where} cannot be recorded where a drawn number decides the other way than"
                f" usual: {reason(error)}. {SKIPPED}"
            ) from error

    def _record_way(
        self, mode: Mode, rows: object, turned: Sequence[int]
    ) -> tuple[ExportedProgram, list[bool]]:
        """A recording in which some decisions are turned, and how all fell."""
        set_mode(self.module, mode)
        args = tuple(tensor.clone() for tensor in self.example.values())
        changing = [self.module.get_buffer(name) for name in self.changing]
        known = known_values([*args, *changing])
        deciding = Deciding(turned, self.running)
        self.module.conditions = lambda: deciding.conditions
        with (
            self._watching(as_tensors=True),
            WholeRecurrence(self.running),
            Respelled(),
            sampled_by_rows(),
            moved_nowhere(),
            deciding,
            known as seen,
        ):
            recorded = _export(self.module, args, self._shapes(rows))
            self.has_looked = seen.looked or bool(turned and self.has_looked)
            return recorded, deciding.answers

    def eager_reason(self, mode: Mode) -> str | None:
        """Why the network does not even run, where that is why it cannot be recorded."""
        try:
            self.run(self.inputs.given, mode)
        except Exception as error:
            where = self.running[-1] if self.running else WHOLE
            return (
                f"module `{where}` fails on the example: {type(error).__name__}:"
                f" {reason(error)}: give example_inputs as the network takes them"
            )
        try:
            self.run(self.example, mode)
        except Exception as error:
            where = self.running[-1] if self.running else WHOLE
            if self._takes_copies(mode):
                return (
                    f"module `{where}` fails on rows that vary those of the example, which has too"
                    f" few that differ: {reason(error)}: give {ROWS} real rows as example_inputs"
                )
            return explain_rows(f"module `{where}`") + f" With {ROWS} rows: {reason(error)}"
        return None

    def _one_axis(self, why: str) -> str:
        """What is said beside of an example that lacks its axis of rows, a common mistake."""
        flat = [name for name, tensor in self.example.items() if tensor.ndim == 1]
        if not (flat and "number of rows" in why):
            return ""
        return f" The one axis of `{flat[0]}` is that of the rows: one row is given as x[None]."

    def _takes_copies(self, mode: Mode) -> bool:
        """Whether it runs on as many rows where all are of the caller's own."""
        places = torch.arange(ROWS)
        own = {name: tensor[places % len(tensor)] for name, tensor in self.inputs.given.items()}
        try:
            self.run(own, mode)
        except Exception:
            return False
        return True

    def _shapes(self, rows: object) -> tuple[dict[int, object], ...]:
        free = self.inputs.free_dims
        return tuple(
            {0: rows, **dict.fromkeys(free.get(name, {}), Dim.DYNAMIC)} for name in self.example
        )

    @contextmanager
    def _watching(self, *, as_tensors: bool = False) -> Iterator[None]:
        """Keep the path of the module that is running, so that a refusal can name it."""
        hooks = []
        self.running.clear()
        generators = own_generators(self.module.network)
        state, seed = python_randomness(generators), torch.initial_seed()

        def refuse_python_draws() -> None:
            where = self.running[-1] if self.running else WHOLE
            if python_randomness(generators) != state:
                raise ExportError(
                    f"module `{where}` draws from Python's `random` or NumPy, which a graph cannot"
                    f" hold: draw with torch.rand in forward(). {SKIPPED}"
                )
            if torch.initial_seed() != seed:
                refuse_seeding(where)

        for name, module in self.module.network.named_modules():

            def enter(module: nn.Module, args: object, name: str = name) -> None:
                refuse_python_draws()
                self.running.append(name or WHOLE)

            def leave(module: nn.Module, args: object, result: object) -> None:
                refuse_python_draws()
                self.running.pop()

            hooks.append(module.register_forward_pre_hook(enter, prepend=True))
            hooks.append(module.register_forward_hook(leave))
        try:
            with drawn_by_torch(self.module.network, as_tensors=as_tensors), never_inferring():
                yield
        finally:
            for hook in hooks:
                hook.remove()


def capture(
    network: nn.Module,
    inputs: Inputs,
    *,
    declared: Declared,
    output_name: str | None,
    features: str | None,
) -> Captured:
    """Copy the network to the CPU and wrap it.

    Raises:
        ExportError: where it cannot be copied, or `features` names no module of it.
    """
    private = private_copy(network)
    for parameter in private.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    selected = Selected(
        private,
        keywords=tuple(inputs.tensors) if inputs.by_keyword else (),
        declared=declared,
        output_name=output_name,
        features=features,
    )
    return Captured(selected, inputs)


def set_mode(module: nn.Module, mode: Mode) -> None:
    """Put a network into sampling or evaluation mode, in place."""
    module.train(mode == "sampling")
    for part in module.modules():
        if isinstance(part, _KEEPS_STATISTICS) and getattr(part, "track_running_stats", True):
            part.eval()


def _export(
    module: nn.Module, args: tuple[Tensor, ...], shapes: tuple[dict[int, object], ...]
) -> ExportedProgram:
    """Record a module; of what is printed the graph is left out that torch shows where it fails."""
    said, graph = io.StringIO(), None
    try:
        with redirect_stderr(said):
            return torch.export.export(
                module, args, dynamic_shapes={"inputs": shapes}, strict=False
            )
    except Exception as error:
        graph = getattr(error, "partial_fx_graph", None)
        raise
    finally:
        text = said.getvalue()
        print(text if graph is None else text.replace(f"{graph}\n", ""), end="", file=sys.stderr)
