"""Single numbers that a network draws from Python's `random` or NumPy, as draws of torch.

Its job: while it is active, `random.random()`, `random.uniform(a, b)`, `np.random.rand()`,
`np.random.random()` and `np.random.uniform(a, b)` draw one number with `torch.rand`, which a graph
can hold. What draws arrays, integers or choices is left as it is, and so are the generators and
whatever other threads draw.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeAlias
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

Number: TypeAlias = "float | Tensor"


@contextmanager
def drawn_by_torch(network: nn.Module, *, as_tensors: bool) -> Iterator[None]:
    """While active, the network's single numbers of Python and NumPy come from torch.

    Args:
        network: whose own files may hold such functions under other names.
        as_tensors: tensors without axes, for a recording; else Python's numbers.
    """

    def unit() -> Number:
        drawn = torch.rand((), dtype=torch.float64)
        return drawn if as_tensors else drawn.item()

    with ExitStack() as stack:
        for (space, name), stand_in in _stand_ins(unit).items():
            stack.enter_context(patch.object(space, name, stand_in))
            for held, key in held_as(stand_in.__wrapped__, network):  # type: ignore[attr-defined]
                stack.callback(held.__setitem__, key, held[key])
                held[key] = stand_in
        yield


def _stand_ins(unit: Callable[[], Number]) -> dict[tuple[object, str], Callable[..., object]]:
    """By place and name: what stands for a function that draws one number, in this thread."""
    found: dict[tuple[object, str], Callable[..., object]] = {}
    own = threading.get_ident()

    def add(space: object, name: str, drawing: Callable[..., object]) -> None:
        original = getattr(space, name)

        def draw(*args: object, **kwargs: object) -> object:
            is_one = kwargs.get("size") is None and not kwargs.keys() - {"low", "high", "size"}
            is_asked = is_one and threading.get_ident() == own
            drawn = drawing(*args, **kwargs) if is_asked else None
            return original(*args, **kwargs) if drawn is None else drawn

        draw.__wrapped__ = original  # type: ignore[attr-defined]
        found[space, name] = draw

    def plain(*args: object, **kwargs: object) -> Number | None:
        return None if args else unit()

    def between(low: object = 0.0, high: object = 1.0, size: object = None) -> Number | None:
        if size is not None or not isinstance(low, (int, float)):
            return None
        if not isinstance(high, (int, float)):
            return None
        return unit() if (low, high) == (0, 1) else low + (high - low) * unit()

    add(random, "random", plain)
    add(random, "uniform", between)
    for name in ("rand", "random", "random_sample"):
        add(np.random, name, plain)
    add(np.random, "uniform", between)
    return found


def held_as(original: object, network: nn.Module) -> list[tuple[dict[str, object], str]]:
    """Where the network's own files hold a function under a name of theirs."""
    kinds = {kind.__module__ for part in network.modules() for kind in type(part).__mro__}
    spaces = [vars(sys.modules[name]) for name in kinds if name in sys.modules]
    return [(space, key) for space in spaces for key, held in space.items() if held is original]
