"""Let code that asks for the number of rows as an integer get the symbol that stands for it.

Its job: while a network is recorded, `len(x)` and `int(x.shape[0])` in its own modules mean
`x.shape[0]`, and `range(len(x))`, as an index, `torch.arange(x.shape[0])`. Python makes integers of
them, which ties the recording to the rows of the example. Only the names `len`, `int` and `range`
of the files that define the network's classes are replaced, and only where a first recording has
failed. `x.split(n)` along the rows is x itself there, as it is of up to n rows.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_TRIED = 130
_NOT_ITS_OWN = ("torch", "builtins", "dubito_nn")


class _IntegerType(type):
    """Of a stand-in for `int`: the same for everything but a size that is a symbol."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, int)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, int)

    def __call__(cls, *args: object, **kwargs: object) -> object:
        if len(args) == 1 and isinstance(args[0], torch.SymInt):
            return args[0]
        return int(*args, **kwargs)  # type: ignore[call-overload]


class _Integer(int, metaclass=_IntegerType):
    pass


def _length(value: object) -> object:
    return value.shape[0] if isinstance(value, Tensor) and value.ndim else builtins.len(value)  # type: ignore[arg-type]


def _range(*bounds: object) -> object:
    is_of_rows = len(bounds) == 1 and isinstance(bounds[0], torch.SymInt)
    return torch.arange(bounds[0]) if is_of_rows else builtins.range(*bounds)  # type: ignore[call-overload]


class _Undivided(TorchFunctionMode):
    """While active, a split along the rows leaves them together."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Return one part of all rows; call everything else."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "split" and isinstance(args[0], Tensor):
            size = (*args, kwargs.get("split_size_or_sections", kwargs.get("split_size")))[1]
            rows = args[0].shape[(*args[2:], kwargs.get("dim", 0))[0]]
            is_of_rows = isinstance(rows, torch.SymInt) and isinstance(size, int)
            if is_of_rows and rows <= size:  # asking sets the bound of the recording
                return (args[0],)
        return func(*args, **kwargs)


@contextmanager
def symbolic_counts(network: nn.Module) -> Iterator[None]:
    """While active, the network's own code counts rows without making an integer of them."""
    names = {kind.__module__ for part in network.modules() for kind in type(part).__mro__}
    own = [name for name in names if name.partition(".")[0] not in _NOT_ITS_OWN]
    held = [vars(sys.modules[name]) for name in own if name in sys.modules]
    replaced = {"len": _length, "int": _Integer, "range": _range}
    before = [{key: space[key] for key in replaced if key in space} for space in held]
    for space in held:
        space.update({key: value for key, value in replaced.items() if key not in space})
    try:
        with _Undivided():
            yield
    finally:
        for space, old in zip(held, before, strict=True):
            for key in replaced.keys() - old.keys():
                space.pop(key, None)


def sizes_left_out(size: Any) -> list[int]:
    """Some sizes within its range that a recording does not stand for: `len(x) == 17`, `% 8`.

    Args:
        size: a size that is free, as torch holds it.
    """
    import sympy  # which torch has loaded by then

    left_out = set[int]()
    for asked in (guard.expr for guard in size.shape_env.guards):
        if asked.free_symbols != {size.expr}:
            continue
        if isinstance(asked, sympy.Ne) and asked.rhs.is_Integer and asked.lhs == size.expr:
            left_out |= {int(asked.rhs)}
        elif isinstance(asked, (sympy.Eq, sympy.Ne)):  # remainders; what else is asked is a range
            tried = (n for n in range(2, _TRIED) if asked.subs(size.expr, n) == sympy.false)
            left_out |= {*islice(tried, 2)}
    return sorted(n for n in left_out if n > 1)
