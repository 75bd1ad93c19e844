"""What a recording does not show: whether other sizes are answered by the same graph.

Its job: a recording stands for a range of rows and of every free dimension, as the network asks
for them (`if len(x) > 8`), and never for one. See what the network does beside those ranges: for
rows it must be the same; a free dimension keeps the range, which whoever serves the network holds
callers to.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from dubito_nn.capturing.capture import Captured
from dubito_nn.errors import ExportError
from dubito_nn.lifting.lift import Lifted
from dubito_nn.manifest import MAX_FREE_SIZE
from dubito_nn.program import Program
from dubito_nn.proving.replayed import compare

MANY_ROWS = 2**16  # a number of rows beyond which none is asked for
_LONGEST = 4096  # of a free dimension, that is tried out


def prove_other_rows(captured: Captured, lifted: Lifted, point: Program) -> None:
    """Where the network asks how many rows there are, the answer must change no number of a row."""
    counts = {
        count
        for least, most in captured.row_ranges
        for count in (1, least - 1, *((most + 1,) if most < MANY_ROWS else ()))
        if count > 0
    }
    for count in sorted(counts):
        inputs = {
            name: tensor.repeat(count // len(tensor) + 1, *(1,) * (tensor.ndim - 1))[:count]
            for name, tensor in captured.example.items()
        }
        try:
            compare(captured, lifted, point, inputs)
        except (ExportError, RuntimeError) as error:
            ranges = dict.fromkeys(f"{least} to {most}" for least, most in captured.row_ranges)
            raise ExportError(
                f"the network asks how many rows there are, and computes something else for"
                f" {count} of them than its graph, which was recorded for {' and '.join(ranges)}:"
                " compute every row alike, however many there are"
            ) from error


def prove_one_row(captured: Captured, lifted: Lifted, point: Program) -> None:
    """A recording stands for two rows or more, and whether a network asks for one it cannot tell.

    A network that fails on one row, or drops its axis, is answered as it answers several.
    """
    inputs = {name: tensor[:1].contiguous() for name, tensor in captured.example.items()}
    try:
        shapes = {captured.run(inputs, mode)["output"].shape for mode in ("sampling", "evaluation")}
        shape = point.run(inputs, lifted.weights)["output"].shape
    except ExportError:
        raise
    except Exception:  # of the network's own code
        return
    if shapes != {shape}:
        return
    try:
        compare(captured, lifted, point, inputs)
    except ExportError as error:
        raise ExportError(
            "the network computes something else for one row than for several, as where it leaves"
            " a layer out (if len(x) > 1): compute every row alike, however many there are"
        ) from error


def free_sizes(captured: Captured, lifted: Lifted, point: Lifted) -> dict[str, tuple[int, int]]:
    """Least and most of every free dimension that the graphs do not stand for at every size.

    Args:
        captured: the network.
        lifted: its graph, with the ranges that it was recorded for.
        point: that of evaluation mode.

    Raises:
        ExportError: where single sizes in between are treated apart.
    """
    found = {}
    for name in dict.fromkeys([*lifted.free_sizes, *point.free_sizes]):
        ranges = [graph.free_sizes.get(name, (1, MAX_FREE_SIZE)) for graph in (lifted, point)]
        least, most = max(low for low, _ in ranges), min(high for _, high in ranges)
        below = {size for size in (1, least // 2, least - 1) if 0 < size < least}
        above = {size for size in (most + 1, 2 * most) if size <= _LONGEST}
        is_known = most + 1 <= _LONGEST or most >= MAX_FREE_SIZE
        if all(_is_alike(captured, lifted, point.program, name, size) for size in below):
            least = 1
        if is_known and all(
            _is_alike(captured, lifted, point.program, name, size) for size in above
        ):
            most = MAX_FREE_SIZE
        for size in sorted(captured.left_out.get(name, ())):
            if not _is_alike(captured, lifted, point.program, name, size):
                raise ExportError(
                    f"the network treats the size {size} of `{name}` apart from others near it,"
                    " which one graph cannot: compute every size alike, or leave that axis out of"
                    " free_dims"
                )
        if (least, most) != (1, MAX_FREE_SIZE):
            found[name] = (least, most)
    return found


def limit_notices(captured: Captured, limits: Mapping[str, tuple[int, int]]) -> list[str]:
    """What the user should know of the limits that free dimensions have."""
    notices = []
    for name, axes in captured.inputs.free_dims.items():
        for meaning in axes.values():
            least, most = limits.get(meaning, (1, MAX_FREE_SIZE))
            if least > 1:
                notices.append(f"input `{name}`: `{meaning}` is at least {least}")
            if most < MAX_FREE_SIZE:
                notices.append(f"input `{name}`: `{meaning}` is at most {most}")
    return notices


def _is_alike(captured: Captured, lifted: Lifted, point: Program, name: str, size: int) -> bool:
    """Whether the network computes at a size of a free dimension what its graphs compute."""
    inputs = {}
    for key, tensor in captured.example.items():
        for axis, meaning in captured.inputs.free_dims.get(key, {}).items():
            if meaning == name:
                places = torch.arange(size) % tensor.shape[axis]
                tensor = tensor.index_select(axis, places)
        inputs[key] = tensor.contiguous()
    try:
        compare(captured, lifted, point, inputs)
    except Exception:  # of the network's own code, such as a table that ends
        return False
    return True
