"""What an eager network does on the example: its outputs, and how often each module drops.

Its job: tell whether another number in a module made the network drop with another p, and do
nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dubito_nn.capturing.capture import Captured
from dubito_nn.capturing.explain import explain
from dubito_nn.capturing.paths import WHOLE
from dubito_nn.errors import ExportError
from dubito_nn.operators import name_of

_SLACK = 1e-6


@dataclass(frozen=True)
class Observed:
    """One pass in each mode, from the same state of the generator.

    Args:
        point: the output in evaluation mode.
        sample: the output in sampling mode.
        rates: path and p of every random call; None where the call does not tell its p.
    """

    point: Tensor
    sample: Tensor
    rates: tuple[tuple[str, float | None], ...]

    def becomes(self, other: Observed, path: str, old: float, asked: float) -> bool:
        """Whether a module that was told another p now drops with it, and nothing else changed.

        Where the calls do not tell their p (a comparison with uniform numbers), the samples must
        differ. A rate that follows from p, such as that of DropBlock's seeds, must follow it.

        Args:
            other: what was seen afterwards.
            path: of the module.
            old: the number before.
            asked: the number now.
        """
        if not _same(self.point, other.point):
            return False
        was, now = self._rates_in(path), other._rates_in(path)
        if not now or any(math.isnan(rate) for rate in now):
            return bool(now) and (old == asked or not _same(self.sample, other.sample))
        if len(was) != len(now):  # it dropped nothing before
            return True
        changed = [(b, a) for b, a in zip(was, now, strict=True) if b != a]
        if not changed:
            return any(_close(rate, asked) for rate in now)
        return all(_close(a, asked) or _close(a * old, b * asked) for b, a in changed)

    def _rates_in(self, path: str) -> list[float]:
        """The rates of a module and what is in it; nan where a call does not tell."""
        inside = f"{path}."
        return [
            math.nan if p is None else p
            for where, p in self.rates
            if where == path or where.startswith(inside)
        ]


def observe(captured: Captured) -> Observed:
    """Run a network on its example in both modes.

    Raises:
        ExportError: where it does not run, naming the module.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            state = torch.get_rng_state()
            point = captured.run(captured.example, "evaluation")["output"]
            torch.set_rng_state(state)
            with _Rates(captured.running) as seen:
                sample = captured.run(captured.example, "sampling")["output"]
    except ExportError:
        raise
    except Exception as error:
        said = captured.eager_reason("sampling") or explain(error, captured.running)
        raise ExportError(said) from error
    return Observed(point, sample, tuple(seen.rates))


class _Rates(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes down which module makes each random call, and its p."""

    def __init__(self, running: Sequence[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rates: list[tuple[str, float | None]] = []
        self._running = running

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run the operator; where it rolls dice, note its p."""
        if torch.Tag.nondeterministic_seeded in func.tags:
            rate = rate_of(func, args)
            self.rates.append((self._running[-1] if self._running else WHOLE, rate))
        return func(*args, **(kwargs or {}))


def rate_of(func: torch._ops.OpOverload, args: Sequence[object]) -> float | None:
    """The p of a random call; None where it does not tell."""
    name, overload = name_of(func).split(".")[1:]
    number = args[1] if len(args) > 1 and isinstance(args[1], float) else None
    if name == "native_dropout":
        return number
    if name in ("bernoulli", "bernoulli_") and overload in ("p", "float"):
        return None if number is None else 1.0 - number
    return None


def _close(first: float, second: float) -> bool:
    return abs(first - second) < _SLACK


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.allclose(
        first, second, _SLACK, _SLACK, equal_nan=True
    )
