"""The network inside of what a library put around it, and a copy of it.

Nothing of what is brought is changed.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping
from types import CellType, FunctionType

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from dubito_nn.capturing.explain import reason
from dubito_nn.capturing.paths import WHOLE
from dubito_nn.errors import ExportError


def private_copy(network: nn.Module) -> nn.Module:
    """A copy on the CPU.

    Raises:
        ExportError: where it cannot be copied.
    """
    computed = [
        value
        for module in network.modules()
        for value in tree_leaves(list(vars(module).values()))
        if isinstance(value, Tensor) and not value.is_leaf
    ]  # such as a weight under weight_norm, a neuron's state, a cache: deepcopy refuses them
    copies: dict[int, object] = {id(value): value.detach() for value in computed}
    try:
        private = copy.deepcopy(network, copies)
        _rebind(private, copies)
        return private.cpu()
    except Exception as error:
        raise ExportError(
            f"the network cannot be copied ({type(error).__name__}: {reason(error)}): keep only"
            " modules, tensors and plain values as its attributes"
        ) from error


def _rebind(private: nn.Module, copies: Mapping[int, object]) -> None:
    """Let functions and hooks of a copy read the copy where they closed over the original.

    `copy.deepcopy` leaves functions as they are: a lambda that calls a layer of the network would
    call the caller's own, in the caller's mode.

    Args:
        private: the copy.
        copies: of everything that was copied, by the number of the original.
    """
    for module in private.modules():
        for held in (vars(module), *(v for v in vars(module).values() if isinstance(v, dict))):
            for key, value in list(held.items()):
                if isinstance(value, weakref.ref) and isinstance(value(), nn.Module):
                    held[key] = weakref.ref(copies.get(id(value()), value()))
                if isinstance(value, FunctionType) and value.__closure__:
                    held[key] = _rebound(value, copies)


def _rebound(function: FunctionType, copies: Mapping[int, object]) -> FunctionType:
    cells = []
    for cell in function.__closure__ or ():
        try:
            held = cell.cell_contents
        except ValueError:  # nothing in it yet
            held = None
        copied = copies.get(id(held), held) if isinstance(held, (nn.Module, Tensor)) else held
        cells.append(cell if copied is held else CellType(copied))
    rebound = FunctionType(
        *(function.__code__, function.__globals__, function.__name__, function.__defaults__),
        tuple(cells),
    )
    rebound.__kwdefaults__, rebound.__dict__ = function.__kwdefaults__, dict(vars(function))
    return rebound


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside `torch.compile` and data parallelism.

    Raises:
        ExportError: where it is no network that can be traced.
    """
    if not isinstance(network, nn.Module):
        raise ExportError(
            f"expects a torch.nn.Module, got {type(network).__name__}: pass the trained module"
        )
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    inner = network.module if isinstance(network, parallel) else None
    inner = inner or getattr(network, "_orig_mod", None)
    if isinstance(inner, nn.Module):
        return unwrapped(inner)
    for name, module in network.named_modules():
        _check_module(f"module `{name or WHOLE}`", module)
    return network


def _check_module(where: str, module: nn.Module) -> None:
    """Refuse code that cannot be traced, and weights without numbers."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ExportError(
            f"{where} is a TorchScript module, whose code cannot be traced again: export with the"
            " nn.Module it was made from"
        )
    if ".quantized." in type(module).__module__:
        raise ExportError(
            f"{where} is quantised, and its packed integer weights are no part of a graph: export"
            " the floating-point network that it was made from"
        )
    for name, tensor in (
        *module.named_parameters(recurse=False),
        *module.named_buffers(recurse=False),
    ):
        if is_lazy(tensor):
            raise ExportError(
                f"{where} has no `{name}` yet ({type(module).__name__} makes it at its first call):"
                " export after training, or load its weights first"
            )
        if tensor.is_meta:
            raise ExportError(
                f"{where} has no numbers in `{name}`, which is on the device `meta`: load its"
                " weights before the export"
            )
