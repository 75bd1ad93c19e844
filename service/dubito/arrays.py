"""Arrays as `.npy` and `.npz`, read without pickle and within a limit, and written.

What a header promises is checked against what is there before anything is allocated. The same
arrays give the same bytes.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import IO, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from dubito.errors import InputError, TooLargeError

Arrays = dict[str, NDArray[np.generic]]

DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError),
    *(ValueError, LookupError, EOFError, OSError),
)
"""What zipfile lets through on damaged archives."""

_LONGEST_KNOWN = 512  # bytes of a header
_MAX_ENTRIES = 64
_KINDS = "biufU"  # booleans, integers, floats, text
_HEADERS = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
    (3, 0): npy.read_array_header_2_0,  # as 2.0, but for names of fields, which no array here has
}


class DamagedArrayError(ValueError):
    """An array that cannot be read; `name` where it is one of several."""

    def __init__(self, reason: str, name: str | None = None) -> None:
        super().__init__(reason)
        self.name = name


def load(file: IO[bytes]) -> NDArray[np.generic] | Arrays:
    """Return the array of a `.npy` file, or the arrays of a `.npz` file by name.

    Raises:
        DamagedArrayError: the file is damaged, or holds Python objects or an array twice.
        OSError: the file cannot be read.
    """
    name = None
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        arrays: Arrays = {}
        with loaded:
            for name in loaded.files:
                if name in arrays:
                    raise DamagedArrayError("an array twice")
                arrays[name] = loaded[name]
        return arrays
    except (OSError, DamagedArrayError):
        raise
    except Exception as error:  # numpy's reader of headers lets its tokenizer's errors through
        raise DamagedArrayError(explained(error), name) from error


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Shape, whether in Fortran's order, and type of a `.npy` file, read up to its numbers.

    Raises:
        DamagedArrayError: the header is damaged, or of an unknown version.
    """
    try:
        version = npy.read_magic(file)
    except ValueError as error:
        raise DamagedArrayError("it does not begin as one") from error
    if version not in _HEADERS:
        major, minor = version
        raise DamagedArrayError(f"version {major}.{minor} of the format; known are 1.0 to 3.0")
    try:
        shape, is_fortran, dtype = _HEADERS[version](file)
    except Exception as error:  # its tokenizer's errors too
        raise DamagedArrayError("a header that cannot be read") from error
    return shape, is_fortran, dtype


def _header(body: bytes) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
    """As `read_header`, and where the numbers begin; a header that came before is known by then."""
    count = 2 if body[6:7] == b"\x01" else 4
    start = 8 + count + int.from_bytes(body[8 : 8 + count], "little")
    if start <= min(len(body), _LONGEST_KNOWN):
        return (*_known_header(body[:start]), start)
    file = io.BytesIO(body)
    return (*read_header(file), file.tell())


@lru_cache(maxsize=1024)
def _known_header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """A header read: numpy has Python's parser do it, which takes longer than a small request."""
    return read_header(io.BytesIO(head))


def explained(error: Exception) -> str:
    """Why an array or archive cannot be read, in our words: those of libraries name their parts."""
    match error:
        case DamagedArrayError():
            return str(error)
        case NotImplementedError():
            return "a compression that is not read here"
        case RuntimeError():  # what zipfile raises of a password
            return "an encrypted array"
        case ValueError() if "Object arrays" in str(error):
            return "Python objects, such as pandas' text"
        case zipfile.BadZipFile():
            return "no archive, or a damaged one"
    return "damaged, or cut short"


def check_size(shape: tuple[int, ...], dtype: np.dtype[np.generic], num_bytes: int) -> None:
    """Compare what a header promises with what is there.

    Raises:
        DamagedArrayError: an array of that shape and type has another number of bytes.
    """
    expected = math.prod(shape) * dtype.itemsize
    if num_bytes != expected:
        raise DamagedArrayError(
            f"shape {shape} of {dtype} needs {expected} bytes, {num_bytes} are there"
        )


def read_npy(body: bytes, name: str = "body") -> NDArray[np.generic]:
    """Return the array of a `.npy` file.

    Args:
        body: a `.npy` file.
        name: what it is, for the message.

    Raises:
        InputError: damaged, not numeric or text, or with Python objects.
    """
    try:
        shape, is_fortran, dtype, start = _header(body)
        if dtype.hasobject:
            raise DamagedArrayError(
                "Python objects, such as pandas' text: convert them by .astype(str)"
            )
        if dtype.kind not in _KINDS or any(size < 0 for size in shape):
            raise DamagedArrayError(f"dtype {dtype}, shape {shape}")
        check_size(shape, dtype, len(body) - start)
        order: Literal["F", "C"] = "F" if is_fortran else "C"
        array: NDArray[np.generic] = np.ndarray(shape, dtype, body, start, order=order).copy("K")
    except (*DAMAGE, MemoryError) as error:
        raise InputError(
            f"{name}: expected a .npy array of numbers or text, got something else "
            f"({explained(error)[:160]}): write it with numpy.save and allow_pickle=False"
        ) from error
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def read_npz(body: bytes, limit_bytes: int) -> Arrays:
    """Return the arrays of a `.npz` file by name.

    Args:
        body: the file.
        limit_bytes: maximum number of bytes of all arrays together, decompressed.

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
    except DAMAGE as error:
        raise InputError(
            f"body: expected a .npz file, got something else ({explained(error)}): "
            "write it with numpy.savez"
        ) from error


def write_npy(array: NDArray[np.generic]) -> bytes:
    """Return an array as a `.npy` file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def write_npz(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return named arrays as a `.npz` file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            content = write_npy(np.asarray(array, order="C"))
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content)
    return file.getvalue()


def write_header(file: IO[bytes], dtype: str, shape: tuple[int, ...]) -> None:
    """Begin a `.npy` file of an array in C's order, whose numbers follow."""
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(file, header)


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
