"""The network inside of what a library put around it, and a copy of it.

Nothing of what is brought is changed.
"""

from __future__ import annotations

import copy

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
    try:
        return copy.deepcopy(network, {id(value): value.detach() for value in computed}).cpu()
    except Exception as error:
        raise ExportError(
            f"the network cannot be copied ({type(error).__name__}: {reason(error)}): keep only"
            " modules, tensors and plain values as its attributes"
        ) from error


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
