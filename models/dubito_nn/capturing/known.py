"""Let a network look at its own weights while it is recorded.

Its job: give the recorder the numbers of whatever depends on neither the inputs nor a draw, so that
`.item()`, `float(p)`, `if`, `torch.equal` and indexing by truth values work on parameters, buffers
and constants as they do when the network runs.

    parameters, buffers, constants, tensors made of numbers alone  →  known
    a deterministic operator whose arguments are all known          →  runs, its result is known
    a write of what is not known                                    →  known no more
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorConverter, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

_MOST_NUMBERS = 2**27  # of one known tensor: half a gigabyte in float32
_PLAIN = (Tensor, nn.Parameter, nn.Buffer)
_MADE_OF_NUMBERS = """
arange eye full hann_window linspace logspace ones scalar_tensor tril_indices triu_indices zeros
"""
_LIKE_A_TENSOR = "full_like new_full new_ones new_zeros ones_like zeros_like"
_FACTORIES = frozenset(_MADE_OF_NUMBERS.split())
_LIKE_ANOTHER = frozenset(_LIKE_A_TENSOR.split())  # they read a type and a size alone

_SHAPED_AS: dict[object, torch._ops.OpOverload] = {
    torch.ops.aten._sample_dirichlet.default: torch.ops.aten.clone.default,
    torch.ops.aten.binomial.default: torch.ops.aten.add.Tensor,
}
"""Operators by random ones without a kernel for shapes, whose results have the same."""


class Looked:
    """Whether a network has looked at a known value.

    Args:
        looked: at the numbers of one, or at a shape that follows from them.
    """

    def __init__(self) -> None:
        self.looked = False


@contextmanager
def known_values(unknown: Collection[Tensor]) -> Iterator[Looked]:
    """While active, recorders know the numbers of all tensors but those given.

    Args:
        unknown: inputs, and buffers that the network changes.
    """
    seen, hidden = Looked(), {id(tensor) for tensor in unknown}
    convert = FakeTensorConverter.from_real_tensor
    dispatch: Any = FakeTensorMode.dispatch

    def converted(
        self: FakeTensorConverter, mode: FakeTensorMode, t: Tensor, *args: Any, **kwargs: Any
    ) -> FakeTensor:
        fake = convert(self, mode, t, *args, **kwargs)
        if id(t) not in hidden and type(t) in _PLAIN:
            _know(self, fake, t)
        return fake

    def dispatched(
        self: FakeTensorMode,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        tags = getattr(func, "tags", ())
        if torch.Tag.data_dependent_output in tags or torch.Tag.dynamic_output_shape in tags:
            seen.looked = True
        if func in _SHAPED_AS:  # which torch cannot record
            func, args, kwargs = _SHAPED_AS[func], [a for a in args if isinstance(a, Tensor)], {}
        with _unread(func, args):
            result = dispatch(self, func, types, args, kwargs)
        if isinstance(result, FakeTensor):
            _learn(self.fake_tensor_converter, func, args, kwargs or {}, result)
        return result

    with ExitStack() as stack:
        stack.enter_context(patch.object(FakeTensorConverter, "from_real_tensor", converted))
        stack.enter_context(patch.object(FakeTensorMode, "dispatch", dispatched))
        stack.enter_context(patch.object(fake_tensor, "CONSTANT_NUMEL_LIMIT", _MOST_NUMBERS))
        yield seen


@contextmanager
def _unread(func: torch._ops.OpOverload, args: Sequence[object]) -> Iterator[None]:
    """While active, tensors whose numbers an operator cannot read, next to unknown ones, have none.

    torch remembers the shapes that operators return, but not where the numbers of one are known.
    """
    tensors = [arg for arg in args if isinstance(arg, FakeTensor)]
    held = [(tensor, tensor.constant) for tensor in tensors if tensor.constant is not None]
    schema = getattr(func, "_schema", None)
    if len(held) == len(tensors) or schema is None or schema.is_mutable:
        held = []
    for tensor, _ in held:
        tensor.constant = None
    try:
        yield
    finally:
        for tensor, constant in held:
            tensor.constant = constant


def _know(converter: FakeTensorConverter, fake: FakeTensor, real: Tensor) -> None:
    is_plain = real.layout == torch.strided and real.device.type == "cpu" and not real.is_quantized
    if fake.constant is None and is_plain and real.numel() <= _MOST_NUMBERS:
        if fake._has_symbolic_sizes_strides:
            return
        with _disable_current_modes(), torch.no_grad():
            fake.constant = _copied(real.detach())
        converter.add_constant_storage_mapping(fake)


def _copied(real: Tensor) -> Tensor:
    """A copy, made when one of the two is written to; memory of NumPy is copied at once."""
    try:
        return torch._lazy_clone(real)
    except RuntimeError:
        return real.clone()


def _learn(
    converter: FakeTensorConverter,
    func: torch._ops.OpOverload,
    args: Sequence[Any],
    kwargs: Mapping[str, object],
    made: FakeTensor,
) -> None:
    """Know what an operator makes of numbers alone, none of them the size of an input."""
    name = func._schema.name.removeprefix("aten::")
    symbols = (torch.SymInt, torch.SymFloat, torch.SymBool, Tensor)
    rest = args[1:] if name in _LIKE_ANOTHER else args
    if name not in _FACTORIES | _LIKE_ANOTHER or made._has_symbolic_sizes_strides:
        return
    if any(isinstance(leaf, symbols) for leaf in tree_leaves((rest, kwargs))):
        return
    with _disable_current_modes():
        like = [torch.empty(made.shape, dtype=part.dtype) for part in args[: len(args) - len(rest)]]
        on_cpu = {**kwargs, "device": torch.device("cpu")}
        _know(converter, made, func(*like, *rest, **on_cpu))
