"""Put dropout where a network has none, or change how much it drops.

Its job: on a private copy, set p of the named modules, or add a dropout behind their output, so
that a network trained with p = 0 can be doubted as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from dubito_nn.errors import ExportError

_WITH_P = (nn.modules.dropout._DropoutNd,)
_WITH_DROPOUT = (nn.MultiheadAttention, nn.RNNBase)


def inject_dropout(network: nn.Module, drop_prob: Mapping[str, float]) -> tuple[str, ...]:
    """Apply the overrides in place and return the paths they touched.

    Raises:
        ExportError: for a pattern that matches no module, or a p outside (0, 1).
    """
    touched: list[str] = []
    for pattern, probability in drop_prob.items():
        if not 0 < probability < 1:
            raise ExportError(f"drop_prob of `{pattern}` expects a p in (0, 1), got {probability}")
        paths = [name for name, _ in network.named_modules() if name and fnmatchcase(name, pattern)]
        if not paths:
            known = [name for name, _ in network.named_modules() if name]
            raise ExportError(f"drop_prob names `{pattern}`, which matches none of {known[:30]}")
        for path in paths:
            _set(network.get_submodule(path), probability, path)
        touched.extend(paths)
    return tuple(dict.fromkeys(touched))


def _set(module: nn.Module, probability: float, path: str) -> None:
    if isinstance(module, _WITH_P):
        module.p = probability
    elif isinstance(module, _WITH_DROPOUT):
        module.dropout = probability
    else:
        module.register_forward_hook(partial(_drop_output, probability, path))


def _drop_output(
    probability: float, path: str, module: nn.Module, args: object, result: object
) -> Tensor:
    if not isinstance(result, Tensor) or not torch.is_floating_point(result):
        raise ExportError(f"drop_prob: module `{path}` does not return a tensor to drop from")
    return functional.dropout(result, probability, module.training)
