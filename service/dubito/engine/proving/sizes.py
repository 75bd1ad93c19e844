"""How large a graph's values become and how long it takes, known before it runs on numbers.

Its job: run a stranger's graph on torch's `meta` device, where tensors have shapes and no memory,
and refuse it where its values would not fit the budget, where it would run for hours, or where a
site is drawn in another shape than the manifest states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dubito.engine.proving.clock import Clock
from dubito.engine.proving.work import RECURRENT, UNITS_PER_S, hidden_bytes, recurrent_units, units
from dubito.errors import BundleRefusedError
from dubito_nn import Program, Site
from dubito_nn.program import Node, Value, bind, step

META = torch.device("meta")
_ROWS = 2  # so many the graph is tried with


class NotRunningError(BundleRefusedError):
    """A graph that fails on rows of these sizes, whatever their numbers."""


@dataclass(frozen=True)
class GraphLimits:
    """What a graph may take on two rows.

    Args:
        alive_bytes: of the values alive at once, beside the weights.
        clock: the time of the proof; its limit bounds the estimated work too.
    """

    alive_bytes: int
    clock: Clock


def warm_up() -> None:
    """Let torch load what it loads at its first value without numbers, before a clock runs."""
    torch.empty(1, device=META).relu()


def check_sizes(
    program: Program,
    rows: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    sites: Sequence[Site],
    limits: GraphLimits,
) -> Value:
    """Refuse a graph that does not run, or that takes more than it may.

    A value counts with its shape, also where torch would let entries share memory.

    Args:
        program: the graph.
        rows: two made-up rows of every input.
        weights: tensors by key.
        sites: as the manifest states them.
        limits: what it may take.

    Returns:
        What the graph returns as `output`, without numbers.

    Raises:
        BundleRefusedError: naming the node.
    """
    measured = _Measured(limits)
    dying = program.last_uses
    values: dict[str, Value] = {}
    on_meta = {name: tensor.to(META) for name, tensor in rows.items()}
    weights_on_meta = {key: tensor.to(META) for key, tensor in weights.items()}

    def draws(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        check_site(sites[index], size)
        return torch.empty(size, dtype=dtype, device=META)

    with torch.no_grad():
        for position, node in enumerate(program.nodes):
            try:
                args = [bind(argument, values, META) for argument in node.args]
                kwargs = {key: bind(value, values, META) for key, value in node.kwargs.items()}
                if node.op in RECURRENT:
                    measured.add_work(node, recurrent_units(node, args, kwargs))
                value = step(node, values, on_meta, weights_on_meta, draws, META)
                work = units(node, args, kwargs, value)
                hidden = hidden_bytes(node, args, kwargs, value)
            except BundleRefusedError:
                raise
            except Exception as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
                raise NotRunningError(
                    f"the graph does not run, its node `{node.name}` ({node.op}) fails: {reason}:"
                    " export the network again"
                ) from error
            _check_without_numbers(node, value)
            values[node.name] = value
            measured.add_value(node, value, hidden)
            measured.add_work(node, work)
            for name in dying.get(position, ()):
                measured.remove(name)
                del values[name]
            limits.clock.check(f"node {position} of {len(program.nodes)}")
    return values[program.outputs["output"]]


def _check_without_numbers(node: Node, value: Value) -> None:
    """Refuse a node that makes numbers where there should be shapes alone."""
    parts = value if isinstance(value, (tuple, list)) else (value,)
    if any(isinstance(part, Tensor) and not part.is_meta for part in parts):
        raise BundleRefusedError(
            f"node `{node.name}` ({node.op}) names no device: export the network again"
        )


def check_site(site: Site, size: tuple[int, ...]) -> None:
    """Refuse a draw of two rows that is not of the shape that the manifest states.

    Raises:
        BundleRefusedError: naming the site.
    """
    size_of_row = list(size)
    if site.batch_dim is not None and site.batch_dim < len(size_of_row):
        size_of_row[site.batch_dim] //= _ROWS
        fits = size[site.batch_dim] == size_of_row[site.batch_dim] * _ROWS
        if size_of_row[site.batch_dim] == 1 and len(size_of_row) > len(site.shape):
            del size_of_row[site.batch_dim]
    else:
        fits = site.batch_dim is None
    fits = fits and len(size_of_row) == len(site.shape)
    if not fits or any(
        isinstance(stated, int) and stated != drawn
        for stated, drawn in zip(site.shape, size_of_row, strict=True)
    ):
        raise BundleRefusedError(
            f"site {site.index} is drawn in the shape {size} for two rows, the manifest states"
            f" {site.shape} with the rows on axis {site.batch_dim}: export the network again"
        )


class _Measured:
    """What a graph has taken so far."""

    def __init__(self, limits: GraphLimits) -> None:
        self._limits = limits
        self._sizes: dict[str, int] = {}
        self._alive = 0
        self._units = 0.0

    def add_value(self, node: Node, value: Value, hidden: float) -> None:
        size = 0 if node.op == "weight" else _bytes(value)
        self._sizes[node.name] = size
        self._alive += size
        most = self._alive + int(hidden)
        if most > self._limits.alive_bytes:
            raise BundleRefusedError(
                f"node `{node.name}` ({node.op}) brings two rows to {most} bytes, more than the"
                f" budget of {self._limits.alive_bytes}: raise DUBITO_MEMORY_BUDGET_BYTES if that"
                " is meant"
            )

    def remove(self, name: str) -> None:
        self._alive -= self._sizes.pop(name)

    def add_work(self, node: Node, work: float) -> None:
        limit_s = self._limits.clock.limit_s
        if limit_s is None:
            return
        self._units += work
        if self._units > limit_s * UNITS_PER_S:
            raise BundleRefusedError(
                f"node `{node.name}` ({node.op}) brings two rows to {self._units:.2g} operations,"
                f" more than the {limit_s * UNITS_PER_S:.2g} of a proof: raise"
                " DUBITO_PROOF_TIMEOUT_MS if a network of this kind is meant to be served"
            )


def _bytes(value: Value) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, (tuple, list)):
        return sum(_bytes(part) for part in value)
    return 0
