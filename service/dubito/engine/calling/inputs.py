"""Rows as they come, checked against what the network takes.

Its job: nested lists, arrays and tensors become tensors of the right type and shape, or an error
that says what was expected, what was got, and the remedy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dubito.errors import InputError
from dubito.preprocess import is_made, prepare
from dubito_nn import InputSpec, Manifest
from dubito_nn.manifest import MAX_FREE_SIZE
from dubito_nn.program import DTYPES

_SMALL = 8192
"""Numbers that are copied without letting other threads in between."""

_HELD = 500
"""Numbers at once, with which numpy keeps the interpreter."""

Rows: TypeAlias = NDArray[np.generic] | Tensor | Sequence[object]
Inputs: TypeAlias = Rows | Mapping[str, Rows]


def read_inputs(
    inputs: Inputs,
    specs: Sequence[InputSpec],
    free_sizes: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, Tensor]:
    """Check rows against the network's inputs.

    Args:
        inputs: rows first; by name where the network takes several inputs.
        specs: the network's inputs.
        free_sizes: least and most of free dimensions that have limits.

    Returns:
        CPU tensors by input name, all with the same number of rows.

    Raises:
        InputError: for a missing or unknown name, ragged or empty rows, a wrong shape or type, or
            numbers that are not finite.
    """
    names = [spec.name for spec in specs]
    if not isinstance(inputs, Mapping):
        if len(specs) != 1:
            raise InputError(
                f"the model takes the inputs {names}, got one unnamed: send rows by name, in Python"
                " a dictionary"
            )
        inputs = {names[0]: inputs}
    if set(inputs) != set(names):
        raise InputError(
            f"the model takes the inputs {names}, got {sorted(map(str, inputs))[:64]}: name them so"
            + (", or send the rows as `inputs` alone" if len(names) == 1 else "")
        )
    tensors = {spec.name: _read(inputs[spec.name], spec) for spec in specs}
    _check_rows({name: tensor.shape[0] for name, tensor in tensors.items()})
    _check_free_dims(tensors, specs, free_sizes or {})
    return tensors


def read_rows(inputs: Inputs, manifest: Manifest) -> dict[str, Tensor]:
    """Check rows, made of what the manifest declares of them if it does.

    Args:
        inputs: as `read_inputs` takes them; with a declaration as `dubito.preprocess` does, but
            for tensors of torch by input.
        manifest: of the network.

    Raises:
        InputError: rows that cannot be used.
    """
    if manifest.preprocess is not None and not is_made(inputs):
        inputs = prepare(inputs, manifest).arrays
    return read_inputs(inputs, manifest.inputs, manifest.free_sizes)


def _read(rows: Rows, spec: InputSpec) -> Tensor:
    array = _as_array(rows, spec)
    if array.size == 0 or not _fits(array.shape, spec):
        raise _misshapen(array.shape, spec)
    return _as_tensor(array, spec)


def _fits(shape: tuple[int, ...], spec: InputSpec) -> bool:
    if shape[1:] == spec.shape:
        return True
    return len(shape) == len(spec.shape) + 1 and all(
        isinstance(wanted, str) or wanted == size
        for wanted, size in zip(spec.shape, shape[1:], strict=True)
    )


def _misshapen(shape: tuple[int, ...], spec: InputSpec) -> InputError:
    if math.prod(shape) == 0:
        none = "an empty one" if shape[0] else "none"
        return InputError(
            f"input `{spec.name}` expects at least one row, got {none}: send {_expected(spec)}"
        )
    return InputError(
        f"input `{spec.name}` expects rows of shape {_shape(spec.shape)}, got"
        f" {_shape(shape[1:])} ({len(shape)} axes with the rows, {_expected(spec)}"
        f" wanted): {_remedy(shape, spec)}"
    )


def _as_array(rows: Rows, spec: InputSpec) -> NDArray[np.generic]:
    if isinstance(rows, Tensor):
        if rows.layout != torch.strided or rows.is_meta or rows.is_complex():
            raise InputError(
                f"input `{spec.name}` expects dense real numbers, got a tensor of {rows.dtype} with"
                f" layout {rows.layout} on {rows.device}: convert it first"
            )
        rows = rows.detach().cpu()
        return (rows.float() if rows.dtype == torch.bfloat16 else rows).numpy()
    try:
        array = np.asarray(rows)
    except (ValueError, OverflowError, TypeError) as error:
        raise InputError(
            f"input `{spec.name}` expects rows of equal length, got ragged ones or numbers out of"
            " range: send a rectangle of numbers"
        ) from error
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"input `{spec.name}` expects numbers, got values of another type{_where(array)}: send"
            " an array or"
            " nested lists of plain numbers, without null or text"
        )
    if array.ndim == 0:
        raise InputError(
            f"input `{spec.name}` expects a list of rows, got a single number: send a list per row"
        )
    return array


def _as_tensor(array: NDArray[np.generic], spec: InputSpec) -> Tensor:
    dtype = DTYPES[spec.dtype]
    if dtype is torch.float32 and array.size <= _SMALL and (held := _as_float32(array)) is not None:
        return torch.from_numpy(held)
    if dtype.is_floating_point:
        # a copy, which the caller may not change while a pass of it runs, laid out row by row:
        # the same numbers are answered with the same bits
        numbers = array.astype(np.float32 if array.dtype == np.float32 else np.float64, order="C")
        tensor = torch.from_numpy(numbers).to(dtype)
        ends = torch.aminmax(tensor)  # nan goes to both
        if not all(map(isfinite, map(float, ends))):
            position = tuple(int(i) for i in (~tensor.isfinite()).nonzero()[0])
            is_large = isfinite(numbers[position])
            kind = f"numbers that {spec.dtype} holds" if is_large else "finite numbers"
            raise InputError(
                f"input `{spec.name}` expects {kind}, got {numbers[position]} at position"
                f" {list(position)}: replace missing or overflowing values first"
            )
        return tensor
    if array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.floor(array))).all():
        is_whole = np.isfinite(array) & (array == np.floor(array))
        position = np.argwhere(~is_whole)[0]
        raise InputError(
            f"input `{spec.name}` expects whole numbers ({spec.dtype}), got"
            f" {array[tuple(position)]} at position {position.tolist()}: send integers"
        )
    info = np.iinfo(spec.dtype) if spec.dtype != "bool" else np.iinfo(np.uint8)
    low, high = (info.min, info.max) if spec.dtype != "bool" else (0, 1)
    if int(array.min()) < low or int(array.max()) > high:  # exactly: 2**63 - 1 is no float64
        raise InputError(
            f"input `{spec.name}` expects {spec.dtype} in [{low}, {high}], got"
            f" {array.min()} to {array.max()}: send numbers within"
        )
    return torch.from_numpy(array.astype(spec.dtype, order="C"))


def _as_float32(array: NDArray[np.generic]) -> NDArray[np.float32] | None:
    """A copy, row by row, in pieces so short that no other thread gets the interpreter meanwhile.

    Beside a thread that computes, every time that it is let go costs a turn to get it back.

    Returns:
        None where a number is not finite.
    """
    numbers = np.empty(array.shape, np.float32)
    if array.dtype == np.float32 and array.size <= _HELD:
        numbers[...] = array
        return numbers if np.isfinite(numbers).all() else None
    source, target = array.reshape(-1), numbers.reshape(-1)
    with np.errstate(over="ignore"):
        for start in range(0, len(source), _HELD):
            piece = target[start : start + _HELD]
            piece[...] = source[start : start + _HELD].astype(np.float64, copy=False)
            if not np.isfinite(piece).all():
                return None
    return numbers


def _where(array: NDArray[np.generic]) -> str:
    """Where the first value is that is no number; nothing where numpy made text of all."""
    if array.dtype.kind != "O":
        return ""
    places = (
        place
        for place, value in np.ndenumerate(array)
        if not isinstance(value, int | float | np.number)
    )
    return f" at position {list(next(places, ()))}"


def _check_rows(rows: Mapping[str, int]) -> None:
    if len(rows) > 1 and len(set(rows.values())) != 1:
        raise InputError(
            f"all inputs expect the same number of rows, got {dict(rows)}: leave the rest"
            " out, or send what is missing"
        )


def _check_free_dims(
    tensors: Mapping[str, Tensor],
    specs: Sequence[InputSpec],
    free_sizes: Mapping[str, tuple[int, int]],
) -> None:
    sizes: dict[str, int] = {}
    for spec in specs:
        for wanted, size in zip(spec.shape, tensors[spec.name].shape[1:], strict=True):
            if isinstance(wanted, str) and sizes.setdefault(wanted, size) != size:
                raise InputError(
                    f"dimension `{wanted}` expects one size in all inputs, got {sizes[wanted]} and"
                    f" {size}: pad them to the same"
                )
    for name, (least, most) in free_sizes.items():
        if not least <= sizes.get(name, least) <= most:
            limits = f"from {least} to {most}" if most < MAX_FREE_SIZE else f"{least} at least"
            raise InputError(
                f"dimension `{name}` expects a size of {limits}, got {sizes[name]}: the network"
                " computes something else beyond, or nothing; cut or pad the rows"
            )


def _shape(shape: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _expected(spec: InputSpec) -> str:
    """The axes of the rows of an input."""
    return f"({', '.join(['rows', *map(str, spec.shape)])})"


def _remedy(shape: tuple[int, ...], spec: InputSpec) -> str:
    sizes = [size for size in spec.shape if isinstance(size, int)]
    if len(sizes) == len(spec.shape):
        wanted = int(np.prod(sizes)) if sizes else 1
        if len(shape) == len(spec.shape) and shape == tuple(sizes):
            return "one row still needs an axis for the rows, send [row]"
        if int(np.prod(shape[1:])) == wanted:
            return "flatten each row" if len(spec.shape) == 1 else "reshape each row"
    return "send rows as the network was trained on"
