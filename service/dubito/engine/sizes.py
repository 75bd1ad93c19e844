"""How large a graph's values become, known before any of them is made.

Its job: run a stranger's graph on torch's `meta` device, where tensors have shapes and no memory,
and refuse it where one value would not fit the budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

import torch
from torch import Tensor

from dubito.errors import BundleRefusedError
from dubito_nn import Program
from dubito_nn.program import Node, Value

META = torch.device("meta")


def check_sizes(
    program: Program, rows: Mapping[str, Tensor], weights: Mapping[str, Tensor], limit_bytes: int
) -> None:
    """Refuse a graph that does not run, or that keeps more alive at once than the limit.

    A value counts with its shape, also where torch would let entries share memory.

    Args:
        program: the graph.
        rows: two made-up rows of every input.
        weights: tensors by key.
        limit_bytes: for the values alive at once, on those two rows.

    Raises:
        BundleRefusedError: naming the node.
    """
    at: Node | None = None
    alive, sizes = 0, dict[str, int]()
    dying, positions = program.last_uses(), count()

    def watch(node: Node, value: Value) -> None:
        nonlocal at, alive
        at = node
        sizes[node.name] = 0 if node.op == "weight" else _bytes(value)
        alive += sizes[node.name]
        if alive > limit_bytes:
            raise BundleRefusedError(
                f"node `{node.name}` ({node.op}) brings two rows to {alive} bytes, more than"
                f" the budget of {limit_bytes}: raise DUBITO_MEMORY_BUDGET_BYTES if that is meant"
            )
        for name in dying.get(next(positions), ()):
            alive -= sizes.pop(name)

    def draws(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(size, dtype=dtype, device=META)

    on_meta = {name: tensor.to(META) for name, tensor in rows.items()}
    weights_on_meta = {key: tensor.to(META) for key, tensor in weights.items()}
    try:
        with torch.no_grad():
            program.run(on_meta, weights_on_meta, draws, device=META, watch=watch)
    except BundleRefusedError:
        raise
    except Exception as error:
        last = "the first node" if at is None else f"the node after `{at.name}`"
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise BundleRefusedError(
            f"the graph does not run, {last} fails: {reason}: export the network again"
        ) from error


def _bytes(value: Value) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, (tuple, list)):
        return sum(_bytes(part) for part in value)
    return 0
