"""The operators that a bundle's graph may name.

Its job: one allow-list, read by the writer (export refuses what is not on it) and by the reader
(a bundle that names anything else is refused). On it are `aten` overloads that are functional,
deterministic and bounds-checked, and a few integer operators on sizes. Not on it, on purpose:
operators that write in place, that roll dice, that read uninitialised memory (`empty`), that read
files (`from_file`), and those whose result shape depends on values (`nonzero`, `item`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch

MAX_INTEGER = 2**63 - 1
MAX_PARTS = 10_000
_ALLOWED = """
abs acos acosh asin asinh atan atanh ceil cos cosh deg2rad digamma erf erfc erfinv exp exp2 expm1
floor frac lgamma log log10 log1p log2 neg positive rad2deg reciprocal round round.decimals rsqrt
sgn sign sin sinc sinh sqrt square tan tanh trunc isnan isinf isfinite nan_to_num logit
logical_not bitwise_not signbit angle
special_erfcx i0 special_i0e special_i1 special_i1e special_log_ndtr special_ndtri polygamma
celu elu gelu glu hardshrink hardsigmoid hardswish hardtanh leaky_relu log_sigmoid mish prelu relu
relu6 selu sigmoid silu softplus softshrink threshold log_sigmoid_forward
clamp clamp.Tensor clamp_min clamp_min.Tensor clamp_max clamp_max.Tensor
add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Tensor rsub.Scalar mul.Tensor mul.Scalar
div.Tensor div.Scalar div.Tensor_mode div.Scalar_mode floor_divide floor_divide.Scalar
remainder.Tensor remainder.Scalar remainder.Scalar_Tensor fmod.Tensor fmod.Scalar
pow.Tensor_Tensor pow.Tensor_Scalar pow.Scalar maximum minimum fmax fmin atan2 hypot copysign.Tensor
copysign.Scalar logaddexp logaddexp2 xlogy.Tensor xlogy.Scalar_Other xlogy.Scalar_Self
lerp.Scalar lerp.Tensor addcmul addcdiv
eq.Tensor eq.Scalar ne.Tensor ne.Scalar lt.Tensor lt.Scalar le.Tensor le.Scalar gt.Tensor gt.Scalar
ge.Tensor ge.Scalar logical_and logical_or logical_xor bitwise_and.Tensor bitwise_and.Scalar
bitwise_or.Tensor bitwise_or.Scalar bitwise_xor.Tensor bitwise_xor.Scalar __and__.Tensor
__and__.Scalar __or__.Tensor __or__.Scalar __xor__.Tensor __xor__.Scalar
where.self where.ScalarSelf where.ScalarOther where.Scalar masked_fill.Scalar masked_fill.Tensor
sum sum.dim_IntList mean mean.dim prod prod.dim_int amax amin max max.dim max.other min min.dim
min.other argmax argmin all all.dim all.dims any any.dim any.dims var.correction var.dim var
std.correction std.dim std var_mean.correction std_mean.correction logsumexp norm.Scalar
norm.ScalarOpt_dim linalg_vector_norm cumsum cumprod cummax cummin logcumsumexp topk sort
sort.stable argsort argsort.stable median.dim nanmedian.dim kthvalue mode count_nonzero
count_nonzero.dim_IntList
softmax.int log_softmax.int _softmax _log_softmax _safe_softmax
view_as_real complex polar conj_physical _fft_r2c _fft_c2c _fft_c2r
linalg_inv_ex _linalg_solve_ex linalg_cholesky_ex linalg_solve_triangular cholesky_solve
_linalg_det _linalg_slogdet linalg_matrix_exp _cdist_forward
linear matmul mm bmm addmm baddbmm mv dot vdot einsum bilinear outer addmv inner tensordot
conv1d conv2d conv3d conv1d.padding conv2d.padding conv3d.padding conv_transpose1d
conv_transpose2d.input conv_transpose3d.input convolution
layer_norm native_layer_norm group_norm native_group_norm batch_norm
rms_norm instance_norm cosine_similarity _weight_norm
max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices avg_pool1d
avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
adaptive_max_pool3d
pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
replication_pad2d replication_pad3d
upsample_nearest1d.vec upsample_nearest2d.vec upsample_nearest3d.vec upsample_linear1d.vec
upsample_bilinear2d.vec upsample_bicubic2d.vec upsample_trilinear3d.vec
_upsample_bilinear2d_aa.vec
_upsample_nearest_exact1d.vec _upsample_nearest_exact2d.vec _upsample_nearest_exact3d.vec
pixel_shuffle
pixel_unshuffle channel_shuffle grid_sampler grid_sampler_2d im2col col2im
view _unsafe_view reshape view_as reshape_as expand expand_as broadcast_tensors permute
transpose.int t unsqueeze
squeeze squeeze.dim squeeze.dims flatten.using_ints unflatten.int select.int slice.Tensor narrow
split.Tensor split_with_sizes chunk tensor_split.sections unbind.int cat stack repeat
repeat_interleave.self_int roll flip movedim.int movedim.intlist contiguous clone alias detach
lift_fresh_copy _to_copy to.dtype type_as diagonal diagonal_copy diag_embed tril triu unfold
select_scatter slice_scatter copy
index.Tensor index_select gather take_along_dim scatter.src scatter.value scatter_add
scatter_reduce.two index_put index_add embedding bucketize.Tensor searchsorted.Tensor
searchsorted.Scalar
arange arange.start arange.start_step full full_like zeros zeros_like ones ones_like new_zeros
new_ones new_full scalar_tensor eye eye.m linspace
scaled_dot_product_attention lstm.input gru.input rnn_tanh.input rnn_relu.input lstm_cell gru_cell
rnn_tanh_cell rnn_relu_cell
sym_size.int sym_numel
"""


def _on_numbers(function: Callable[..., int | float]) -> Callable[..., int | float]:
    """The function for numbers only: `(1, 2) * 10**12` in a hostile graph would fill the memory."""

    def checked(*numbers: float) -> int | float:
        if not all(isinstance(number, (int, float)) for number in numbers):
            raise TypeError("expects sizes, got something else")
        result = function(*numbers)
        if abs(result) > MAX_INTEGER:  # or products of products would never end
            raise OverflowError("a size beyond 64 bits")
        return result

    return checked


def _in_parts(name: str) -> Callable[..., object]:
    """An operator that cuts a tensor, refused before it makes millions of parts."""
    function, names = _overload(name), argument_names(name)

    def checked(*args: object, **kwargs: object) -> object:
        given: dict[str, Any] = dict(zip(names, args, strict=False)) | kwargs
        parts = _PARTS[name](given["self"].shape[given.get("dim", 0)], given)
        if parts > MAX_PARTS:
            raise ValueError(f"a tensor cut into {parts} parts, more than {MAX_PARTS}")
        return function(*args, **kwargs)

    return checked


@cache
def argument_names(name: str) -> tuple[str, ...]:
    """Names of the arguments of an allowed `aten` operator, in order."""
    return tuple(argument.name for argument in _overload(name)._schema.arguments)


@cache
def marked_arguments(name: str) -> dict[str, type]:
    """Arguments of an allowed operator that are a type, layout or memory format, by name.

    torch takes numbers for them as well, and reads beyond its tables where they name nothing.
    """
    return {
        argument.name: kind
        for argument in (_overload(name)._schema.arguments if name.startswith("aten.") else ())
        for word, kind in _MARKS.items()
        if word in str(argument.real_type)
    }


@cache
def makes_from_nothing(name: str) -> bool:
    """Whether an operator makes a tensor of numbers alone, on torch's default device unless told.

    So `full`, `arange`, `eye`; others go by the device of the tensors that they are given.
    """
    if not name.startswith("aten."):
        return False
    arguments = _overload(name)._schema.arguments
    has_tensors = any("Tensor" in str(argument.type) for argument in arguments)
    return not has_tensors and any(argument.name == "device" for argument in arguments)


_MARKS: dict[str, type] = {
    "ScalarType": torch.dtype,
    "Layout": torch.layout,
    "MemoryFormat": torch.memory_format,
}


def _overload(name: str) -> torch._ops.OpOverload[..., object]:
    _, packet, overload = name.split(".")
    function = getattr(getattr(torch.ops.aten, packet), overload)
    assert isinstance(function, torch._ops.OpOverload)
    return function


def _item(values: Sequence[object], position: int) -> object:
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"expects several values to choose from, got {type(values).__name__}")
    return values[position]


_ON_SIZES: dict[str, tuple[Callable[..., object], Callable[..., object]]] = {
    "operator.getitem": (operator.getitem, _item),
    **{
        f"operator.{function.__name__}": (function, _on_numbers(function))
        for function in (
            *(operator.add, operator.sub, operator.mul, operator.floordiv),
            *(operator.truediv, operator.mod, operator.neg),
        )
    },
}
"""By name: the function in a recorded graph, and the one that runs in its place."""

_PARTS: dict[str, Callable[[int, Mapping[str, Any]], int]] = {
    "aten.unbind.int": lambda size, given: size,
    "aten.split.Tensor": lambda size, given: size // max(1, given["split_size"]),
    "aten.split_with_sizes.default": lambda size, given: len(given["split_sizes"]),
    "aten.chunk.default": lambda size, given: given["chunks"],
    "aten.tensor_split.sections": lambda size, given: given["sections"],
}
"""How many parts an operator cuts an axis of that size into, by its arguments."""

_RNN_RULES = (("dropout", 5, (0,)), ("train", 6, (False,)))
_TRANSFORMS = ("r2c", "c2c", "c2r")
_GRID_RULES = (("interpolation_mode", 2, (0, 1, 2)), ("padding_mode", 3, (0, 1, 2)))
RESTRICTED: dict[str, tuple[tuple[str, int, tuple[object, ...]], ...]] = {
    "aten.scaled_dot_product_attention.default": (("dropout_p", 4, (0,)),),
    "aten.batch_norm.default": (("training", 5, (False,)),),
    **{
        f"aten.div.{kind}_mode": (("rounding_mode", 2, (None, "floor")),)
        for kind in ("Tensor", "Scalar")
    },  # of integers, a division cut towards zero can end the process
    **{f"aten._fft_{kind}.default": (("normalization", 2, (0, 1, 2)),) for kind in _TRANSFORMS},
    "aten._cdist_forward.default": (("compute_mode", 3, (None, 0, 1, 2)),),
    **{f"aten.{rnn}.input": _RNN_RULES for rnn in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
    **{f"aten.{grid}.default": _GRID_RULES for grid in ("grid_sampler", "grid_sampler_2d")},
}
"""Arguments (name, position, values) beyond which an operator rolls dice, writes, or does to
memory or process what it should not; the first value stands where the argument is left out."""

ALLOWED = frozenset(
    [f"aten.{name if '.' in name else name + '.default'}" for name in _ALLOWED.split()]
    + list(_ON_SIZES)
)
"""Names of all operators that a graph may use, such as `aten.linear.default`."""


@cache
def resolve(name: str) -> Callable[..., object]:
    """The function behind an allowed name.

    Raises:
        KeyError: where the name is not on the allow-list; nothing is looked up for it.
    """
    if name not in ALLOWED:
        raise KeyError(name)
    if name in _ON_SIZES:
        return _ON_SIZES[name][1]
    return _in_parts(name) if name in _PARTS else _overload(name)


def name_of(target: object) -> str:
    """The name under which an fx node's target would stand in a graph; it may not be allowed."""
    if isinstance(target, torch._ops.OpOverload):
        return f"{target.namespace}.{target._schema.name.split('::')[1]}.{target._overloadname}"
    for name, (recorded, _) in _ON_SIZES.items():
        if target is recorded:
            return name
    return str(target)
