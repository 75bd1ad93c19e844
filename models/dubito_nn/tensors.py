"""The weights of a bundle: safetensors whose header is checked before it is trusted.

Its job: bound the number of tensors and the header before anything is made of them, and refuse
what safetensors would take silently: a name twice, more axes than torch has, truth values that
are neither, NaN. Infinities are taken: they stand in masks.

    8 bytes     length of the header, little endian
    header      JSON: name → dtype, shape, [first byte, byte behind the last]
    data        the tensors back to back, without gaps
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from dubito_nn.errors import BundleError
from dubito_nn.strict_json import parse

MAX_TENSORS = 20_000
MAX_HEADER_BYTES = 8 * 2**20
MAX_NAME = 1_000
MAX_AXES = 16
_MAX_SIZE = 2**40
_BYTES = {
    **{"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8},
    **{"F16": 2, "BF16": 2, "F32": 4, "F64": 8},
}


def read_tensors(content: bytes, where: str) -> dict[str, Tensor]:
    """Read a safetensors file: its tensors by name.

    Raises:
        BundleError: naming the first tensor that breaks a rule.
    """
    _check_header(content, where)
    try:
        tensors = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise BundleError(f"{where} is not readable: {str(error)[:100]}") from error
    for name, tensor in tensors.items():
        _check_values(tensor, f"{where}: `{name[:80]}`")
    return tensors


def _check_header(content: bytes, where: str) -> None:
    """Refuse a header whose tensors are not laid out one behind the other."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise BundleError(f"{where} is not readable: it ends within its header")
    if length > MAX_HEADER_BYTES:
        raise BundleError(f"{where}: its header is larger than {MAX_HEADER_BYTES} bytes")
    header = parse(content[8 : 8 + length], f"{where}: its header")
    if not isinstance(header, dict):
        raise BundleError(f"{where} is not readable: its header expects an object")
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise BundleError(f"{where} holds {len(header)} tensors, more than {MAX_TENSORS}")
    spans = sorted(_span(name, entry, where) for name, entry in header.items())
    at = 0
    for start, stop in spans:
        if start != at:
            raise BundleError(f"{where}: tensors overlap, or leave bytes between them")
        at = stop
    if at != len(content) - 8 - length:
        raise BundleError(f"{where}: bytes missing or left over behind the tensors")


def _span(name: str, entry: object, where: str) -> tuple[int, int]:
    """The bytes of one tensor, after its entry has been checked."""
    if len(name) > MAX_NAME:
        raise BundleError(f"{where}: expects names of at most {MAX_NAME} characters")
    where = f"{where}: `{name[:80]}`"
    if not isinstance(entry, Mapping) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BundleError(f"{where} expects dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BYTES:
        raise BundleError(f"{where} has the type {str(dtype)[:40]}, not served")
    if not _is_sizes(shape) or len(shape) > MAX_AXES:
        raise BundleError(f"{where} expects a shape of at most {MAX_AXES} axes")
    if not _is_sizes(offsets) or len(offsets) != 2:
        raise BundleError(f"{where} expects two offsets")
    start, stop = offsets
    if stop - start != math.prod(shape) * _BYTES[dtype]:
        raise BundleError(f"{where}: its shape does not fit its bytes")
    return start, stop


def _is_sizes(value: object) -> bool:
    return isinstance(value, list) and all(
        type(size) is int and 0 <= size <= _MAX_SIZE for size in value
    )


def _check_values(tensor: Tensor, where: str) -> None:
    if tensor.dtype == torch.bool and (tensor.view(torch.uint8) > 1).any():
        raise BundleError(f"{where} holds truth values that are neither 0 nor 1")
    if not tensor.is_floating_point() or not tensor.numel():
        return
    if math.isnan(float(torch.aminmax(tensor).min)):  # which needs no second tensor, as isnan would
        raise BundleError(f"{where} holds NaN: train the network again")
