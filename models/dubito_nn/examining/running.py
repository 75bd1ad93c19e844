"""Passes of an eager network in which every random call is seeded by itself.

Its job: a dispatch mode that seeds torch before each random operator by the number of the call, so
that one operation can be drawn anew while all others draw as before, whatever they are: fused,
functional, or a layer that nobody knows. Hooks tell which module is running.

Dimensions: B rows, V numbers of all outputs of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dubito_nn.capturing.example import Inputs
from dubito_nn.capturing.observe import rate_of
from dubito_nn.capturing.paths import WHOLE
from dubito_nn.errors import ExportError
from dubito_nn.examining.switches import SwitchName, switch
from dubito_nn.operators import name_of

_BERNOULLI = 0.5  # p of the operator by default, which torch leaves out of a call
_CALLS = 1_000_003  # more than a pass has: seeds of one pass do not meet those of the next


@dataclass(frozen=True)
class RandomCall:
    """A random call: module, operator, and its p where it is told."""

    module: str
    operator: str
    drop_prob: float | None = field(compare=False)


@dataclass(frozen=True)
class Pass:
    """One pass.

    Args:
        output: (B, V), all floating-point outputs behind each other.
        calls: the random ones, in order.
        by_module: path and output of every module that returns rows, in the order in which they
            end; empty where nobody asked.
        changes: names of buffers that are not what they were.
    """

    output: Tensor
    calls: tuple[RandomCall, ...]
    by_module: tuple[tuple[str, Tensor], ...]
    changes: tuple[str, ...]


@dataclass(frozen=True)
class NetworkCopy:
    """A private copy of a network, with rows to run it on.

    Args:
        network: the copy; each pass leaves its buffers as they were.
        inputs: its rows.
        output_name: key or position of the output to look at; None: all of them.
    """

    network: nn.Module
    inputs: Inputs
    output_name: str | None = None

    def run(
        self,
        name: SwitchName,
        rows: Mapping[str, Tensor],
        *,
        seed: int = 0,
        redrawn: RandomCall | None = None,
        watch: bool = False,
    ) -> Pass:
        """One pass without gradients.

        Args:
            name: way of switching.
            rows: of each input.
            seed: of the draws; with `redrawn` of its draws alone.
            redrawn: calls that draw by `seed`, while the others draw as with seed 0.
            watch: whether to keep what modules return.

        Raises:
            ExportError: the network returns no floating-point tensor with the rows first.
        """
        switch(self.network, name)
        before = {key: value.clone() for key, value in self.network.named_buffers()}
        running: list[str] = []
        seen: list[tuple[str, Tensor]] = []
        given = {key: value.clone() for key, value in rows.items()}
        try:
            with (
                torch.no_grad(),
                torch.random.fork_rng(devices=[]),
                _hooked(self.network, running, seen if watch else None),
                Seeded(running, seed, redrawn) as calls,
            ):
                if self.inputs.by_keyword:
                    returned = self.network(**given)
                else:
                    returned = self.network(*given.values())
            changes = tuple(
                key
                for key, value in self.network.named_buffers()
                if key in before and not _same(value, before[key])
            )
        finally:
            for key, value in self.network.named_buffers():
                if key in before:
                    value.copy_(before[key])
        output = _columns(self._picked(returned), len(next(iter(rows.values()))))
        return Pass(output, tuple(calls.calls), tuple(seen), changes)

    def _picked(self, returned: object) -> object:
        name = self.output_name
        if name is None:
            return returned
        if isinstance(returned, Mapping) and name in returned:
            return returned[name]
        if isinstance(returned, tuple | list) and name.isdecimal() and int(name) < len(returned):
            return returned[int(name)]
        if isinstance(returned, Tensor) or not hasattr(returned, name):
            raise ExportError(
                f"output_name names `{name}`, which the network does not return: leave it out, or"
                " name one of its outputs"
            )
        return getattr(returned, name)


class Seeded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes down random calls, and seeds torch before each by its number.

    Args:
        running: paths of the modules under way, kept by the caller.
        seed: of the draws.
        redrawn: the calls that have it; None: all.
    """

    def __init__(self, running: Sequence[str], seed: int, redrawn: RandomCall | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[RandomCall] = []
        self._running, self._seed, self._redrawn = running, seed, redrawn

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run the operator; where it rolls dice, note it down and seed it."""
        if torch.Tag.nondeterministic_seeded in func.tags:
            where = self._running[-1] if self._running else WHOLE
            told = (*args, _BERNOULLI) if len(args) == 1 else args
            call = RandomCall(
                where, name_of(func).split(".")[1].removesuffix("_"), rate_of(func, told)
            )
            number = len(self.calls)
            self.calls.append(call)
            seed = self._seed if self._redrawn in (None, call) else 0
            torch.manual_seed(seed * _CALLS + number)
        return func(*args, **(kwargs or {}))


@contextmanager
def _hooked(
    network: nn.Module, running: list[str], seen: list[tuple[str, Tensor]] | None
) -> Iterator[None]:
    """Keep the paths of the modules under way, and what they return where asked."""
    hooks = []
    for path, module in network.named_modules():

        def enter(module: nn.Module, args: object, path: str = path) -> None:
            running.append(path or WHOLE)

        def leave(module: nn.Module, args: object, result: object, path: str = path) -> None:
            running.pop()
            if seen is not None and isinstance(result, Tensor):
                seen.append((path or WHOLE, result.clone()))

        hooks.append(module.register_forward_pre_hook(enter, prepend=True))
        hooks.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _columns(returned: object, num_rows: int) -> Tensor:
    """All floating-point tensors of a return with the rows first, as (B, V) in float64."""
    found = [
        tensor.detach().double().reshape(num_rows, -1)
        for tensor in _tensors(returned)
        if tensor.is_floating_point() and tensor.ndim and len(tensor) == num_rows
    ]
    if not found:
        raise ExportError(
            f"expects a network that returns floating-point tensors with the rows first, got a "
            f"{type(returned).__name__} without any for {num_rows} rows: name the output with "
            "output_name, or return one"
        )
    return torch.cat(found, dim=1)


def _tensors(returned: object) -> list[Tensor]:
    if isinstance(returned, Tensor):
        return [returned]
    if isinstance(returned, Mapping):
        return [tensor for part in returned.values() for tensor in _tensors(part)]
    if isinstance(returned, tuple | list):
        return [tensor for part in returned for tensor in _tensors(part)]
    return []


def _same(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.nan_to_num(), second.nan_to_num())
