"""The features of each row: what distances between rows are taken in.

Its job: find the value that stands for a row, and take it, without draws.

    named      the output of the module that the export named, in the point graph (weight scaling)
    prefix     else the last value that crosses into the suffix: the furthest that the network comes
               on x alone, before any ω, with something learnt on the way
    inputs     else, where the first draw is on the inputs, the numbers among them

All are the same for every T, seed, draw and way of sharing masks. Passes have computed the prefix
already, so that features of that kind are no pass more (`of_tile`).

Dimensions: B rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from dubito.engine.calling.arguments import Check
from dubito.engine.kernels.lowered import widened
from dubito.engine.kernels.products import run
from dubito.engine.planning.placement import Placed
from dubito.engine.running.execution import Execution
from dubito.engine.running.fold import Values, as_tensor
from dubito.engine.running.passes import Passes, Tile
from dubito.errors import InputError


def features(
    placed: Placed,
    pieces: Passes,
    rows: Mapping[str, Tensor],
    check: Check | None,
) -> Tensor:
    """The features of all rows as the network has them, (B, ...), on the CPU.

    Args:
        placed: programs and weights on a device.
        pieces: the plan for rows of that shape.
        rows: by input name.
        check: called between pieces; whatever it raises ends the pass.

    Raises:
        InputError: no module was named, nothing learnt comes before the first draw, and the inputs
            are no numbers.
    """
    return torch.cat([part.cpu() for part in _parts(placed, pieces, rows, check)])


def of_tile(tile: Tile) -> Tensor:
    """The features of rows whose prefix is computed, (B, ...), where no module was named.

    Raises:
        InputError: as above.
    """
    return _of_rows(tile.execution, tile.before, tile.inputs)


def _parts(
    placed: Placed,
    pieces: Passes,
    rows: Mapping[str, Tensor],
    check: Check | None,
) -> Iterator[Tensor]:
    execution = pieces.execution
    is_computed = placed.features is None and execution.crossing is not None
    for block in pieces.rows(rows):
        if check is not None:
            check()
        if placed.features is not None:
            yield run(placed.features, block, placed.weights, execution.device, placed.compute)
        else:
            before = execution.prefix(block) if is_computed else {}
            yield _of_rows(execution, before, block)


def _of_rows(execution: Execution, before: Values, inputs: Mapping[str, Tensor]) -> Tensor:
    if (found := execution.crossing) is not None:
        name, axis = found
        return widened(as_tensor(before[name]).movedim(axis, 0))
    numbers = [tensor for tensor in inputs.values() if tensor.is_floating_point()]
    if not numbers:
        raise InputError(
            "features expect a module that the export named, or a part of the network before its"
            " first dropout, or inputs that are numbers, got none of them: export again with"
            " features=, the path of the module whose output stands for a row"
        )
    if len(numbers) == 1:
        return numbers[0]
    return torch.cat([tensor.reshape(len(tensor), -1) for tensor in numbers], dim=1)
