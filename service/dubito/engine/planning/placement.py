"""Programs and weights as a device likes them.

Its job: apply the rules of `rewrite.py`, move the weights that are left, and on the CPU lay the
kernels of 2d convolutions channels last: the convolution and what follows it then run channels last
too, about 1.5 times as fast where masks come between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dubito.engine.calling.sampling import Precision
from dubito.engine.kernels.lowered import Lowered
from dubito.engine.kernels.products import Compute, compute
from dubito.engine.planning.rewrite import rewritten
from dubito_nn import Bundle, Program
from dubito_nn.program import pruned

_CONVOLUTIONS = frozenset(
    ["aten.conv2d.default", "aten.conv2d.padding", "aten.conv_transpose2d.input"]
)


@dataclass(frozen=True, eq=False)
class Placed:
    """A bundle on a device.

    Args:
        sampling: the lifted graph.
        point: the graph of weight scaling.
        features: the part of it that makes the feature vector; None where none was named.
        weights: what both read, by key, on the device.
        compute: makes the value of a node, in the precision of the passes.
    """

    sampling: Program
    point: Program
    features: Program | None
    weights: dict[str, Tensor]
    compute: Compute = compute

    @property
    def is_lowered(self) -> bool:
        """Whether products are in bfloat16."""
        return isinstance(self.compute, Lowered)

    @property
    def rounded(self) -> Mapping[str, Tensor]:
        """The weights that lie there in bfloat16 as well."""
        return self.compute.weights if isinstance(self.compute, Lowered) else {}


def placed(bundle: Bundle, device: torch.device, precision: Precision = "float32") -> Placed:
    """The bundle's programs, rewritten, with their weights on the device."""
    sampling, of_sampling = rewritten(bundle.sampling, bundle.sites, bundle.weights)
    point, of_point = rewritten(bundle.point, bundle.sites, bundle.weights)
    both = of_sampling | of_point
    name = point.outputs.get("features")
    features = None if name is None else pruned(Program(point.nodes, {"output": name}))
    weights = on_device((sampling, point), both, device)
    lowered = Lowered.of((sampling, point), weights) if precision == "bfloat16" else compute
    return Placed(sampling, point, features, weights, lowered)


def placed_like(whole: Placed, bundle: Bundle, device: torch.device) -> Placed:
    """A bundle of the same network in which some sites draw nothing, with the same tensors.

    Args:
        whole: the bundle in which all sites draw.
        bundle: of which the lifted graph alone is another.
        device: where `whole` lies.
    """
    sampling, weights = rewritten(bundle.sampling, bundle.sites, bundle.weights)
    read = {str(node.args[0]) for node in sampling.of_kind("weight")}
    more = {key: weights[key] for key in read - whole.weights.keys()}
    moved = on_device((sampling,), more, device)
    lowered = whole.compute
    if isinstance(lowered, Lowered):
        lowered = lowered.with_more(sampling, {**whole.weights, **moved})
    return Placed(sampling, whole.point, whole.features, {**whole.weights, **moved}, lowered)


def on_device(
    programs: Sequence[Program], weights: Mapping[str, Tensor], device: torch.device
) -> dict[str, Tensor]:
    """The weights that programs read, by key, on the device."""
    used = {str(node.args[0]) for program in programs for node in program.of_kind("weight")}
    moved = {key: weights[key].to(device) for key in weights if key in used}
    if device.type == "cpu":
        for key in _kernels(programs):
            if key in moved and moved[key].ndim == 4:
                moved[key] = moved[key].contiguous(memory_format=torch.channels_last)
    return moved


def _kernels(programs: Iterable[Program]) -> set[str]:
    """Keys of the weights that a 2d convolution takes directly as its kernel."""
    keys: set[str] = set()
    for program in programs:
        key_of = {node.name: str(node.args[0]) for node in program.of_kind("weight")}
        for node in program.nodes:
            if node.op in _CONVOLUTIONS:
                keys.update(key_of[name] for name in list(node.references())[1:2] if name in key_of)
    return keys
