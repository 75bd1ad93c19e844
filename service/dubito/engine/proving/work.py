"""How much work a node is, by the shapes of its arguments and of its value.

Its job: an estimate that is known before anything runs on numbers, so that a stranger's graph can
be refused that would keep the device busy for hours. It only has to be right to a factor of a few.

The unit is one tenth of a nanosecond of one processor core: UNITS_PER_S of them are a second.

    passing over a value     10 per entry
    functions in series      200 per entry
    products of matrices     0.4 per multiply-add in float32, more in other types
    sorting, transforming    50 per entry and level
    recurrence               200 000 per step and layer, whatever its width, and its products
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dubito_nn.operators import argument_names
from dubito_nn.program import Node

UNITS_PER_S = 10**10
_STEP = 200_000
_PASS, _SERIES, _SORT, _SCATTERED = 10, 200, 50, 50
_PER_PRODUCT = {torch.float32: 0.4, torch.float64: 0.8}
_OTHER_PRODUCT = 10.0  # of integers and of short floats, which take no fast kernel
_BY_SERIES = """
acos acosh asin asinh atan atanh atan2 tan digamma lgamma erfinv pow logcumsumexp hypot remainder
fmod floor_divide logit xlogy sinc prod cumprod norm linalg_vector_norm grid_sampler
grid_sampler_2d upsample_bicubic2d _upsample_bilinear2d_aa angle polar polygamma i0 special_erfcx
special_i0e special_i1 special_i1e special_log_ndtr special_ndtri
"""
_IN_SERIES = frozenset(_BY_SERIES.split())
_BY_LEVELS = """
sort argsort topk cummax cummin median nanmedian kthvalue mode searchsorted
_fft_r2c _fft_c2c _fft_c2r
"""
_SORTING = frozenset(_BY_LEVELS.split())
_BY_INDEX = """
index index_select gather take_along_dim scatter scatter_add scatter_reduce index_put index_add
embedding bucketize col2im
"""
_SCATTERING = frozenset(_BY_INDEX.split())
Arguments = Mapping[str, Any]


def units(node: Node, args: Sequence[object], kwargs: Mapping[str, object], value: object) -> float:
    """The work of a node.

    Args:
        node: the node.
        args: its arguments, references replaced by tensors of any device.
        kwargs: those given by name.
        value: what it made; None where it has not run yet.
    """
    if not node.op.startswith("aten."):
        return 0.0
    kind = node.op.split(".")[1]
    arguments = _by_name(node, args, kwargs)
    entries = sum(t.numel() for t in _tensors([*args, *kwargs.values(), value]))
    per_entry = _PASS
    if kind in _IN_SERIES:
        per_entry = _SERIES
    elif kind in _SORTING:
        per_entry = _SORT * max(1, entries.bit_length())
    elif kind in _SCATTERING:
        per_entry = _SCATTERED
    further = _FURTHER.get(kind)
    made = next(_tensors([value]), None)
    return per_entry * entries + (further(arguments, made) if further and made is not None else 0.0)


def recurrent_units(node: Node, args: Sequence[object], kwargs: Mapping[str, object]) -> float:
    """The work of a recurrent layer, which must be known before even its shape is asked for."""
    arguments = _by_name(node, args, kwargs)
    tensor: Tensor = arguments["input"]
    steps, rows = tensor.shape[:2]
    if arguments["batch_first"]:
        steps, rows = rows, steps
    weights = sum(tensor.numel() for tensor in _tensors(arguments["params"]))
    layers = int(arguments["num_layers"]) * (2 if arguments["bidirectional"] else 1)
    return steps * (_STEP * max(1, layers) + rows * weights * _per_product(tensor))


RECURRENT = frozenset(f"aten.{kind}.input" for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu"))


def hidden_bytes(
    node: Node, args: Sequence[object], kwargs: Mapping[str, object], value: object
) -> float:
    """What a node keeps beside its arguments and its value, in bytes, where that may be more.

    A convolution of other types than float32 first copies every window that its kernel sees; an
    `einsum` of three tensors makes products of two; attention whose values are of another width
    than its queries, or not of four axes, keeps all scores.
    """
    kind = node.op.split(".")[1] if node.op.startswith("aten.") else ""
    made = next(_tensors([value]), None)
    if made is None or not (kind.startswith("conv") or kind in _HIDING):
        return 0.0
    arguments = _by_name(node, args, kwargs)
    if kind == "linalg_matrix_exp":
        return float(made.element_size() * made.numel() * _EXPONENTIAL)
    if kind == "einsum":
        products = _einsum(arguments, made) / _per_product(made)
        return made.element_size() * products if len(arguments["tensors"]) > 2 else 0.0
    if kind == "scaled_dot_product_attention":
        query: Tensor = arguments["query"]
        fused = query.ndim == 4 and query.shape[-1] == arguments["value"].shape[-1]
        scores = query.numel() // max(1, query.shape[-1]) * arguments["key"].shape[-2]
        return 0.0 if fused else float(query.element_size() * scores)
    weight: Tensor = arguments["weight"]
    if weight.dtype == torch.float32 or not weight.numel():
        return 0.0
    windows = max(made.numel(), arguments["input"].numel()) / max(1, weight.shape[0])
    return float(weight.element_size() * windows * weight.numel() / weight.shape[0])


_EXPONENTIAL = 40  # products, of series and squarings, and what they keep meanwhile
_HIDING = frozenset(["linalg_matrix_exp", "einsum", "scaled_dot_product_attention"])


def _by_name(node: Node, args: Sequence[object], kwargs: Mapping[str, object]) -> Arguments:
    return {**dict(zip(argument_names(node.op), args, strict=False)), **kwargs}


def _per_product(tensor: Tensor) -> float:
    return _PER_PRODUCT.get(tensor.dtype, _OTHER_PRODUCT)


def _contraction(of: str) -> Callable[[Arguments, Tensor], float]:
    """Count as many products per entry of the result as that argument's last axis is long."""

    def count(arguments: Arguments, made: Tensor) -> float:
        tensor: Tensor = arguments[of]
        length = tensor.shape[-1] if tensor.ndim else 1
        return max(1, made.numel()) * length * _per_product(tensor)

    return count


def _tensordot(arguments: Arguments, made: Tensor) -> float:
    sizes = arguments["self"].numel() * arguments["other"].numel() * max(1, made.numel())
    return float(math.isqrt(sizes)) * _per_product(made)


def _einsum(arguments: Arguments, made: Tensor) -> float:
    """The product of all axes, as if every combination of them were visited."""
    equation = str(arguments["equation"]).replace(" ", "")
    sizes: dict[str, int] = {}
    for term, tensor in zip(equation.split("->")[0].split(","), arguments["tensors"], strict=False):
        head, dots, tail = term.partition("...")
        hidden = [f".{n}" for n in range(tensor.ndim - len(head) - len(tail), 0, -1)]
        for label, size in zip([*head, *hidden * bool(dots), *tail], tensor.shape, strict=False):
            sizes[label] = max(sizes.get(label, 1), size)
    return math.prod(sizes.values()) * _per_product(made)


def _bilinear(arguments: Arguments, made: Tensor) -> float:
    weight: Tensor = arguments["weight"]
    return made.numel() * math.prod(weight.shape[1:]) * _per_product(weight)


def _convolution(arguments: Arguments, made: Tensor) -> float:
    weight: Tensor = arguments["weight"]
    per_entry = weight.numel() / max(1, weight.shape[0])
    source: Tensor = arguments["input"] if arguments.get("transposed") else made
    return source.numel() * per_entry * _per_product(weight)


def _transposed(arguments: Arguments, made: Tensor) -> float:
    return _convolution({**arguments, "transposed": True}, made)


def _pool(axes: int) -> Callable[[Arguments, Tensor], float]:
    def count(arguments: Arguments, made: Tensor) -> float:
        kernel: int | Sequence[int] = arguments["kernel_size"]
        sizes = [kernel] if isinstance(kernel, int) else list(kernel)
        return made.numel() * math.prod(sizes * axes if len(sizes) == 1 else sizes) * _PASS

    return count


def _of_matrices(of: str, times: float) -> Callable[[Arguments, Tensor], float]:
    """Count that many products per entry of matrices and further column that they act on."""

    def count(arguments: Arguments, made: Tensor) -> float:
        matrices: Tensor = arguments[of]
        columns = made.shape[-1] if made.ndim else 1
        size = matrices.shape[-1] if matrices.ndim else 1
        return matrices.numel() * max(size, columns) * times

    return count


def _distances(arguments: Arguments, made: Tensor) -> float:
    return (
        made.numel() * int(arguments["x1"].shape[-1]) * (_PASS if arguments["p"] == 2 else _SERIES)
    )


def _attention(arguments: Arguments, made: Tensor) -> float:
    query: Tensor = arguments["query"]
    key: Tensor = arguments["key"]
    scores = query.numel() // max(1, query.shape[-1]) * key.shape[-2]
    width = query.shape[-1] + int(arguments["value"].shape[-1])
    return scores * (width * _per_product(query) + 5 * _PASS)


def _cell(arguments: Arguments, made: Tensor) -> float:
    tensor: Tensor = arguments["input"]
    weights = int(arguments["w_ih"].numel() + arguments["w_hh"].numel())
    return tensor.shape[0] * weights * _per_product(tensor)


_FURTHER: dict[str, Callable[[Arguments, Tensor], float]] = {
    **{kind: _contraction("self") for kind in ("matmul", "mm", "bmm", "mv", "dot", "vdot")},
    **{"inner": _contraction("self"), "linear": _contraction("input")},
    **{"addmm": _contraction("mat1"), "baddbmm": _contraction("batch1")},
    **{"addmv": _contraction("mat"), "tensordot": _tensordot, "einsum": _einsum},
    **{"bilinear": _bilinear, "scaled_dot_product_attention": _attention},
    **{f"conv{axes}d": _convolution for axes in (1, 2, 3)},
    **{f"conv_transpose{axes}d": _transposed for axes in (1, 2, 3)},
    "convolution": _convolution,
    **{f"_linalg_{kind}": _of_matrices("A", 5.0) for kind in ("solve_ex", "det", "slogdet")},
    **{f"linalg_{kind}_ex": _of_matrices("self", 5.0) for kind in ("cholesky",)},
    **{
        "linalg_inv_ex": _of_matrices("A", 5.0),
        "linalg_solve_triangular": _of_matrices("self", 5.0),
    },
    **{
        "linalg_matrix_exp": _of_matrices("self", 200.0),
        "cholesky_solve": _of_matrices("input2", 5.0),
    },
    "_cdist_forward": _distances,
    **{f"{kind}_pool{axes}d": _pool(axes) for kind in ("max", "avg") for axes in (1, 2, 3)},
    **{f"max_pool{axes}d_with_indices": _pool(axes) for axes in (2, 3)},
    **{f"{kind}_cell": _cell for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
}


def _tensors(values: object) -> Iterator[Tensor]:
    """Yield all tensors in nested lists."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)
