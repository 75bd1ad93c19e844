"""What a pass costs, and how much of it T samples share.

Its job: count the multiply-adds of every node on one row with torch's own counter, and add them up
by the part of the plan that the node runs in.

    share of the prefix = FLOPs(static + prefix) / FLOPs(all)
    T samples of one row cost FLOPs(prefix) + T · FLOPs(suffix)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from dubito.engine.engine import Engine
from dubito_nn import Program
from dubito_nn.program import Node, Value


@dataclass(frozen=True, slots=True)
class Cost:
    """Floating-point operations of one row.

    Args:
        prefix: once per row, whatever T.
        suffix: once per row and sample.
    """

    prefix: int
    suffix: int

    @property
    def prefix_share(self) -> float:
        """Share of one pass that T samples do not repeat; 0 where nothing was counted."""
        total = self.prefix + self.suffix
        return self.prefix / total if total else 0.0

    def over_loop(self, num_samples: int) -> float:
        """Work of T samples here over the work of a loop of T whole passes."""
        total = num_samples * (self.prefix + self.suffix)
        return (self.prefix + num_samples * self.suffix) / total if total else 1.0


def cost(engine: Engine) -> Cost:
    """Count on one made-up row; matrix products, convolutions and attention are counted."""
    inputs = engine.made_up_rows()
    execution = engine.pieces("shared", inputs).execution
    counted = _flops_by_node(execution.program, {k: v[:1] for k, v in inputs.items()}, engine)
    suffix = {node.name for node in execution.plan.suffix}
    return Cost(
        prefix=sum(flops for name, flops in counted.items() if name not in suffix),
        suffix=sum(flops for name, flops in counted.items() if name in suffix),
    )


def _flops_by_node(
    program: Program, row: dict[str, torch.Tensor], engine: Engine
) -> dict[str, int]:
    counter = FlopCounterMode(display=False, custom_mapping=_CUSTOM)
    counted: dict[str, int] = {}
    before = 0

    def watch(node: Node, value: Value) -> None:
        nonlocal before
        total = counter.get_total_flops()
        counted[node.name] = total - before
        before = total

    def draws(index: int, size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.ones(size, dtype=dtype)

    with torch.no_grad(), counter:
        program.run(row, engine.placed.weights, draws, watch=watch)
    return counted


def _recurrent_layer(
    steps: Sequence[int],
    to_input: Sequence[int],
    to_hidden: Sequence[int],
    *rest: object,
    **named: object,
) -> int:
    """2 · steps · rows · (weights of the input + weights of the state), which torch leaves out."""
    return 2 * steps[0] * steps[1] * (math.prod(to_input) + math.prod(to_hidden))


_CUSTOM = {torch.ops.aten.mkldnn_rnn_layer: _recurrent_layer}
