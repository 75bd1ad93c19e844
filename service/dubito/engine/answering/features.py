"""The feature vector of each row: what distances between rows are taken in.

Its job: find the value that stands for a row, and compute it alone, without draws.

    named      the output of the module that the export named, in the point graph (weight scaling)
    prefix     else the last value that crosses into the suffix: the furthest that the network comes
               on x alone, before any ω, with something learnt on the way

Both are the same for every T, seed, draw and way of sharing masks.

Dimensions: B rows, F features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from dubito.engine.calling.arguments import Check
from dubito.engine.kernels.products import run
from dubito.engine.planning.layout import RowAxis, Size
from dubito.engine.planning.placement import Placed
from dubito.engine.running.execution import Execution
from dubito.engine.running.fold import as_tensor
from dubito.engine.running.passes import Passes
from dubito.errors import InputError


def features(
    placed: Placed,
    pieces: Passes,
    rows: Mapping[str, Tensor],
    check: Check | None,
) -> Tensor:
    """The features of all rows, (B, F), on the CPU.

    Args:
        placed: programs and weights on a device.
        pieces: the plan for rows of that shape.
        rows: by input name.
        check: called between pieces; whatever it raises ends the pass.

    Raises:
        InputError: no module was named, and nothing learnt comes before the first draw.
    """
    parts = _parts(placed, pieces, rows, check)
    return torch.cat([part.flatten(1).cpu() for part in parts])


def _parts(
    placed: Placed,
    pieces: Passes,
    rows: Mapping[str, Tensor],
    check: Check | None,
) -> Iterator[Tensor]:
    execution = pieces.execution
    crossing = None if placed.features is not None else _last_crossing(execution)
    for block in pieces.rows(rows):
        if check is not None:
            check()
        if placed.features is not None:
            yield run(placed.features, block, placed.weights, execution.device)
        elif crossing is not None:
            name, axis = crossing
            yield as_tensor(execution.prefix(block)[name]).movedim(axis, 0)


def _last_crossing(execution: Execution) -> tuple[str, int]:
    """The last value in order of execution that the suffix reads, and the axis of its rows."""
    nodes, layouts = execution.program.nodes, execution.layouts.of
    learnt = set[str]()
    for node in nodes:
        reads = [name for name in node.references() if not isinstance(layouts[name], Size)]
        if node.op == "weight" or any(name in learnt for name in reads):
            learnt.add(node.name)
    for node in reversed(nodes):
        layout = layouts[node.name]
        if node.name in execution.plan.from_prefix & learnt and isinstance(layout, RowAxis):
            assert layout.axis is not None
            return node.name, layout.axis
    raise InputError(
        "features expect a module that the export named, or a part of the network before its first"
        " dropout, got neither: export again with features=, the path of the module whose output"
        " stands for a row"
    )
