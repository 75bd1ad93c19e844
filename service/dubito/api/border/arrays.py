"""`.npy` and `.npz` bodies, read without pickle and within a limit, and `.npz` replies.

What a header promises is checked against what is there before anything is allocated.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from dubito.api.border.errors import FieldProblem, FieldsError
from dubito.errors import InputError, TooLargeError
from dubito.pools.numpy_files import read_header

_MAX_ENTRIES = 64
_KINDS = "biufU"  # booleans, integers, floats, text


def read_npy(body: bytes, name: str = "body") -> NDArray[np.generic]:
    """One array.

    Args:
        body: a `.npy` file.
        name: what it is, for the message.

    Raises:
        InputError: damaged, not numeric or text, or with Python objects.
    """
    file = io.BytesIO(body)
    try:
        shape, _, dtype = read_header(file)
        expected = math.prod(shape) * dtype.itemsize
        got = len(body) - file.tell()
        if dtype.hasobject:
            raise ValueError("Python objects, such as pandas' text: convert them by .astype(str)")
        if dtype.kind not in _KINDS or any(size < 0 for size in shape):
            raise ValueError(f"dtype {dtype}, shape {shape}")
        if got != expected:
            raise ValueError(f"shape {shape} of {dtype} needs {expected} bytes, {got} are there")
        file.seek(0)
        array: NDArray[np.generic] = np.load(file, allow_pickle=False)
    except Exception as error:  # numpy's reader of headers lets its tokenizer's errors through too
        raise InputError(
            f"{name}: expected a .npy array of numbers or text, got something else "
            f"({str(error)[:160]}): write it with numpy.save and allow_pickle=False"
        ) from error
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def read_npz(body: bytes, limit_bytes: int) -> dict[str, NDArray[np.generic]]:
    """The named arrays of a `.npz` file.

    Args:
        body: the file.
        limit_bytes: most bytes of all arrays together, decompressed.

    Raises:
        InputError: damaged, or an array in it is.
        TooLargeError: longer than the limit once decompressed.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            entries = archive.infolist()
            _check_entries(entries, limit_bytes)
            return {
                entry.filename.removesuffix(".npy"): read_npy(
                    _read_entry(archive, entry), f"`{entry.filename[:80]}`"
                )
                for entry in entries
            }
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        NotImplementedError,
        RuntimeError,
        ValueError,
        LookupError,
        EOFError,
        OSError,
    ) as error:  # zipfile lets all of these through on damaged archives
        raise InputError(
            f"body: expected a .npz file, got something else ({str(error)[:160]}): "
            "write it with numpy.savez"
        ) from error


def named(
    arrays: Mapping[str, NDArray[np.generic]], names: tuple[str, ...]
) -> dict[str, NDArray[np.generic] | dict[str, NDArray[np.generic]]]:
    """Arrays by field; `inputs.NAME` and the like are gathered to one object.

    Args:
        arrays: of an archive.
        names: of the fields; `inputs`, the first, has to be there.

    Raises:
        FieldsError: an array of another name, one beside its parts, or no inputs.
    """
    fields: dict[str, NDArray[np.generic] | dict[str, NDArray[np.generic]]] = {}
    for name, array in arrays.items():
        field, dot, part = name.partition(".")
        if field not in names:
            raise FieldsError([FieldProblem(name[:80], f"unknown array: known are {names}")])
        if dot and field in arrays:
            problem = f"expected `{field}` or parts of it, got both: leave one out"
            raise FieldsError([FieldProblem(name[:80], problem)])
        if not dot:
            fields[field] = array
        else:
            parts = fields.setdefault(field, {})
            assert isinstance(parts, dict)
            parts[part] = array
    if "inputs" not in fields:
        raise FieldsError([FieldProblem("inputs", "expected rows, got nothing: add the array")])
    return fields


def write_npz(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """A `.npz` file; the same arrays give the same bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            part = io.BytesIO()
            npy.write_array(part, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), part.getvalue())
    return file.getvalue()


def _check_entries(entries: list[zipfile.ZipInfo], limit_bytes: int) -> None:
    if len(entries) > _MAX_ENTRIES:
        raise InputError(f"body: expected at most {_MAX_ENTRIES} arrays, got {len(entries)}")
    if len({entry.filename.removesuffix(".npy") for entry in entries}) != len(entries):
        raise InputError("body: expected each array once, got a name twice: rename one")
    total = sum(entry.file_size for entry in entries)
    if total > limit_bytes:
        raise TooLargeError(
            f"body: expected at most {limit_bytes} bytes once decompressed, got {total}: "
            "send fewer rows at once"
        )


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as file:
        return file.read(entry.file_size)  # never more than was announced and added up
