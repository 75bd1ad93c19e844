"""The protocol's datatypes: their arrays, and their bytes in the binary tensor extension.

Numbers are little-endian and in C's order; a text is its length in four bytes, then its UTF-8.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from dubito.errors import InputError

Datatype: TypeAlias = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
    "BYTES",
]
TEXT: Datatype = "BYTES"
NAMES: tuple[str, ...] = get_args(Datatype)
MAX_AXES = 32

_DTYPES: dict[str, np.dtype[np.generic]] = {
    name: np.dtype(code)
    for name, code in {
        "BOOL": "?",
        **{f"UINT{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
        **{f"INT{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
        "FP16": "<f2",
        "BF16": "<u2",  # the upper half of a float32, which numpy has no name for
        "FP32": "<f4",
        "FP64": "<f8",
    }.items()
}
_NAMED = {(dtype.kind, dtype.itemsize): name for name, dtype in _DTYPES.items() if name != "BF16"}
_OF_TORCH = {"float16": "FP16", "bfloat16": "BF16", "float32": "FP32", "float64": "FP64"}
_JSON_KINDS = {"b": "b", "u": "iu", "i": "iu", "f": "fiu"}


def of_array(array: NDArray[np.generic]) -> str:
    """The datatype of an array of a reply."""
    return _NAMED.get((array.dtype.kind, array.dtype.itemsize), TEXT)


def of_input(dtype: str) -> str:
    """The datatype of a network's input, from its name in the manifest."""
    return _OF_TORCH.get(dtype, dtype.upper())


def item_bytes(datatype: str) -> int:
    """Bytes of one number."""
    return _DTYPES[datatype].itemsize


def from_bytes(
    content: bytes | memoryview, datatype: str, shape: list[int], name: str
) -> NDArray[np.generic]:
    """The array of a tensor in the binary form.

    Args:
        content: its bytes, no more and no fewer.
        datatype: of the tensor.
        shape: of the tensor, the rows first.
        name: of the tensor, for the message.

    Raises:
        InputError: text, or another number of bytes than the shape needs.
    """
    _refuse_text(datatype, name)
    wanted = math.prod(shape) * item_bytes(datatype)
    if len(content) != wanted:
        raise InputError(
            f"input `{name}` expects {wanted} bytes for shape {shape} of {datatype}, got "
            f"{len(content)}: correct its shape, its datatype or its `binary_data_size`"
        )
    array = np.frombuffer(content, np.uint8 if datatype == "BOOL" else _DTYPES[datatype])
    if datatype == "BOOL" and (array > 1).any():
        raise InputError(f"input `{name}` expects a byte 0 or 1 for each BOOL, got another one")
    if datatype == "BF16":
        array = (array.astype("<u4") << 16).view("<f4")
    return array.reshape(shape)


def from_json(data: object, datatype: str, shape: list[int], name: str) -> NDArray[np.generic]:
    """The array of a tensor in JSON: all numbers in one list, or nested lists of its shape.

    Args:
        data: the field `data` as it came.
        datatype: of the tensor.
        shape: of the tensor, the rows first.
        name: of the tensor, for the message.

    Raises:
        InputError: text, ragged lists, numbers of another kind, or of another shape.
    """
    _refuse_text(datatype, name)
    try:
        array = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"input `{name}` expects lists of equal length, got ragged ones or numbers out of "
            "range: send all numbers in one list, or a rectangle of them"
        ) from error
    kinds = _JSON_KINDS[_DTYPES[datatype].kind] if datatype != "BF16" else "fiu"
    if array.size and array.dtype.kind not in kinds:
        raise InputError(
            f"input `{name}` expects values of {datatype}, got others: send plain numbers, or true "
            "and false for BOOL, without null or text"
        )
    if array.size != math.prod(shape) or (array.ndim != 1 and list(array.shape) != shape):
        raise InputError(
            f"input `{name}` expects {math.prod(shape)} values for shape {shape}, got "
            f"{array.size} in shape {list(array.shape)}: correct `shape` or `data`"
        )
    _check_range(array, datatype, name)
    return array.reshape(shape)


def to_bytes(array: NDArray[np.generic]) -> bytes:
    """The binary form of an array of a reply."""
    if of_array(array) != TEXT:
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    texts = (str(text).encode() for text in array.reshape(-1))
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def to_json(array: NDArray[np.generic]) -> NDArray[np.generic] | list[str]:
    """The values of an array in one list; orjson reads numbers where they lie."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.tolist() if of_array(array) == TEXT else flat


def _check_range(array: NDArray[np.generic], datatype: str, name: str) -> None:
    if "INT" not in datatype or not array.size:
        return
    bits = int(datatype.rpartition("INT")[2])
    is_signed = not datatype.startswith("U")
    lowest, highest = -(2 ** (bits - 1)) if is_signed else 0, 2 ** (bits - is_signed) - 1
    low, high = int(array.min()), int(array.max())
    if low < lowest or high > highest:
        raise InputError(
            f"input `{name}` expects {datatype} in [{lowest}, {highest}], got {low} to {high}: "
            "choose a wider datatype"
        )


def _refuse_text(datatype: str, name: str) -> None:
    if datatype == TEXT:
        raise InputError(f"input `{name}` expects numbers, got BYTES: send the rows as numbers")
