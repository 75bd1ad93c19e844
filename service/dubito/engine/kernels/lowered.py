"""Nodes with their products in bfloat16.

Its job: a matrix unit multiplies numbers of 16 bits several times as fast as float32, and bfloat16
has float32's range. What is multiplied is rounded to 8 significant bits, and summed in float32 by
the libraries:

    products   linear maps, convolutions, matrix products, recurrent layers: operands and results in
               bfloat16; their weights are rounded once, when the network is loaded
    masks      a value times a mask is computed in float32 and rounded once; draws, and what is made
               of them alone, stay as they are to the last bit
    between    what moves, adds and bends numbers, in bfloat16 where nothing else stands beside it
    the rest   in float32: softmax, norms, exponentials, logarithms, powers, and all operators of
               which nobody knows what bfloat16 does to them
    outputs    in float32, from which figures are made as ever

Source: Kalamkar et al. 2019, arXiv:1905.12322 (bfloat16); Micikevicius et al. 2018,
arXiv:1710.03740 (products in few bits, the rest in float32), as torch's `autocast` has it, which
rounds weights in every call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from dubito.engine.kernels.products import compute
from dubito_nn import Program
from dubito_nn.program import Node, SiteSource, Value

AnyValue = TypeVar("AnyValue", bound=Value)
_PRODUCTS = frozenset(
    f"aten.{name}"
    for name in (
        *("linear.default", "matmul.default", "bmm.default", "mm.default", "addmm.default"),
        *("baddbmm.default", "mv.default", "einsum.default"),
        *(f"conv{n}d.{kind}" for n in (1, 2, 3) for kind in ("default", "padding")),
        *("conv_transpose1d.default", "conv_transpose2d.input", "conv_transpose3d.input"),
        *("convolution.default", "scaled_dot_product_attention.default"),
        *("lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input"),
    )
)
_BETWEEN = (
    frozenset(
        f"aten.{name}.default"
        for name in (
            *(
                "relu",
                "gelu",
                "tanh",
                "sigmoid",
                "silu",
                "elu",
                "selu",
                "leaky_relu",
                "relu6",
                "neg",
            ),
            *("hardtanh", "hardswish", "hardsigmoid", "mish", "softplus", "maximum", "minimum"),
            *("view", "_unsafe_view", "reshape", "expand", "permute", "t", "unsqueeze", "squeeze"),
            *(
                "contiguous",
                "clone",
                "alias",
                "detach",
                "cat",
                "stack",
                "repeat",
                "chunk",
                "narrow",
            ),
            *(
                "max_pool1d",
                "max_pool2d",
                "avg_pool2d",
                "adaptive_avg_pool2d",
                "mean",
                "index_select",
            ),
            *("split_with_sizes", "pad", "constant_pad_nd", "pixel_shuffle"),
        )
    )
    | frozenset(
        f"aten.{name}"
        for name in (
            *(
                f"{sign}.{kind}"
                for sign in ("add", "sub", "mul", "div")
                for kind in ("Tensor", "Scalar")
            ),
            *(
                "transpose.int",
                "squeeze.dim",
                "squeeze.dims",
                "flatten.using_ints",
                "unflatten.int",
            ),
            *("select.int", "slice.Tensor", "split.Tensor", "unbind.int", "movedim.int"),
            *("mean.dim", "masked_fill.Scalar", "upsample_nearest2d.vec"),
        )
    )
    | {"operator.getitem"}
)


@dataclass(frozen=True, eq=False)
class Lowered:
    """Computes nodes as above, in the place of `compute`.

    Args:
        weights: those that products alone read, in bfloat16, by key.
    """

    weights: Mapping[str, Tensor]

    @classmethod
    def of(cls, programs: Iterable[Program], weights: Mapping[str, Tensor]) -> Lowered:
        """What computes the nodes of some programs.

        Args:
            programs: that are run so.
            weights: tensors by key, on their device.
        """
        keys = {key for program in programs for key in _multiplied_weights(program)}
        return cls({key: _narrowed(weights[key]) for key in sorted(keys & weights.keys())})

    def with_more(self, program: Program, weights: Mapping[str, Tensor]) -> Lowered:
        """What computes those of one more program, whose other weights are rounded now."""
        more = {key: weight for key, weight in weights.items() if key not in self.weights}
        return Lowered({**self.weights, **Lowered.of((program,), more).weights})

    def __call__(
        self,
        node: Node,
        values: Mapping[str, Value],
        inputs: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        draws: SiteSource | None,
        device: torch.device,
    ) -> Value:
        """The value of one node, as `compute`."""
        if node.op == "weight":
            key = str(node.args[0])
            return self.weights[key] if key in self.weights else weights[key]
        known = {name: values[name] for name in node.references()}
        kinds = {kind for value in known.values() for kind in _kinds(value)}
        if node.op in _PRODUCTS and kinds <= {torch.float32, torch.bfloat16}:
            known = {name: _narrowed(value) for name, value in known.items()}
        elif torch.bfloat16 in kinds and (len(kinds) > 1 or node.op not in _BETWEEN):
            known = {name: widened(value) for name, value in known.items()}
        return compute(node, known, inputs, weights, draws, device)


def multiplied(nodes: Sequence[Node], values: Mapping[str, Value]) -> dict[str, Value]:
    """Values that are there once and for all, those that products alone read in bfloat16.

    Args:
        nodes: all that read them.
        values: by name.
    """
    names = _read_by_products(nodes)
    return {name: _narrowed(x) if name in names else x for name, x in values.items()}


def masked(first: Tensor, second: Tensor) -> Tensor:
    """A product with a mask: computed in float32, and of the lesser type, since a mask is short."""
    kinds = {first.dtype, second.dtype}
    if kinds != {torch.float32, torch.bfloat16}:
        return first * second
    shape = torch.broadcast_shapes(first.shape, second.shape)  # type: ignore[no-untyped-call]
    out = torch.empty(shape, dtype=torch.bfloat16, device=first.device)
    return torch.mul(first, second, out=out)


def widened(value: AnyValue) -> AnyValue:
    """A value with numbers of bfloat16 as float32."""
    return _cast(value, torch.bfloat16, torch.float32)


def _narrowed(value: AnyValue) -> AnyValue:
    return _cast(value, torch.float32, torch.bfloat16)


def _cast(value: AnyValue, old: torch.dtype, new: torch.dtype) -> AnyValue:
    if isinstance(value, Tensor):
        return value.to(new) if value.dtype == old else value  # type: ignore[return-value]
    if isinstance(value, tuple | list):
        return type(value)(_cast(part, old, new) for part in value)
    return value


def _kinds(value: Value) -> Iterable[torch.dtype]:
    """The types of floating-point numbers in a value."""
    if isinstance(value, Tensor):
        return (value.dtype,) if value.is_floating_point() else ()
    if isinstance(value, tuple | list):
        return [kind for part in value for kind in _kinds(part)]
    return ()


def _multiplied_weights(program: Program) -> set[str]:
    """Keys of the weights that products read and nothing else does."""
    key_of = {node.name: str(node.args[0]) for node in program.of_kind("weight")}
    names = _read_by_products(program.nodes)
    elsewhere = {key for name, key in key_of.items() if name not in names}
    return {key for name, key in key_of.items() if name in names} - elsewhere


def _read_by_products(nodes: Sequence[Node]) -> set[str]:
    by_products, elsewhere = set[str](), set[str]()
    for node in nodes:
        (by_products if node.op in _PRODUCTS else elsewhere).update(node.references())
    return by_products - elsewhere
