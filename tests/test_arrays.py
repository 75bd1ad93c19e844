"""Damaged `.npy` and `.npz` files are refused in our words, the same for the same bytes."""

from __future__ import annotations

import io
import re
import struct
import zipfile

import numpy as np
import pytest

from dubito.arrays import DamagedArrayError, load, read_npy, read_npz, write_npy
from dubito.errors import InputError

WHOLE = write_npy(np.zeros((2, 3), np.float32))


def with_header(text: str, version: tuple[int, int] = (1, 0)) -> bytes:
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(text)) + text.encode()


def archive(content: bytes, *, flags: int = 0, method: int = 0) -> bytes:
    """An archive of one stored array whose directory says otherwise."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as whole:
        whole.writestr("inputs.npy", content)
    body = bytearray(file.getvalue())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = body.index(signature) + place
        body[start : start + 4] = struct.pack("<HH", flags, method)
    return bytes(body)


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


UNREADABLE = "a header that cannot be read"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "it does not begin as one"),
        (b"hello", "it does not begin as one"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1+1j*x,)}"), UNREADABLE),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': ((9,0),)}"), UNREADABLE),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': ('a',)}"), UNREADABLE),
        (with_header("(" * 90), UNREADABLE),
        (with_header("{" + " " * 20000 + "}"), UNREADABLE),
        (with_header("{}", (9, 0)), "version 9.0 of the format; known are 1.0 to 3.0"),
        (WHOLE[:9], UNREADABLE),
        (WHOLE[:-1], "shape (2, 3) of float32 needs 24 bytes, 23 are there"),
        (saved(np.array([None])), "Python objects, such as pandas' text: convert them by .astype("),
    ],
)
def test_a_damaged_array_is_refused_in_our_words(body: bytes, reason: str) -> None:
    told = []
    for _ in range(2):
        with pytest.raises(InputError) as caught:
            read_npy(body)
        told.append(str(caught.value))
    assert told[0] == told[1]
    before = "body: expected a .npy array of numbers or text, got something else"
    assert told[0].startswith(f"{before} ({reason}")
    assert told[0].endswith("): write it with numpy.save and allow_pickle=False")
    with pytest.raises(DamagedArrayError) as of_file:
        load(io.BytesIO(body))
    foreign = ("allow_pickle=", "object at 0x", "max_header_size", "<", "ast")
    assert not any(word in str(of_file.value) for word in foreign)
    assert of_file.value.args[0]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"PK", "no archive, or a damaged one"),
        (archive(WHOLE, flags=1), "an encrypted array"),
        (archive(WHOLE, method=97), "a compression that is not read here"),
        (archive(WHOLE, method=8), "damaged"),
    ],
)
def test_a_damaged_archive_is_refused_in_our_words(body: bytes, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        read_npz(body, 10**6)
    assert re.fullmatch(
        rf"body: expected a .npz file, got something else \([^()]*{reason}[^()]*\): write it with "
        "numpy.savez",
        str(caught.value),
    )
    with pytest.raises(DamagedArrayError, match=reason):
        load(io.BytesIO(body if len(body) > 2 else b"PK\x03\x04"))
