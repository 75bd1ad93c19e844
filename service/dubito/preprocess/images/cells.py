"""What stands for an image in a row: its file as bytes or base64, or an image of Pillow."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from dubito.errors import InputError

_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]{1,40};base64,")
EXPECTED = "a PNG, JPEG, WebP or TIFF file"


class StoredImages(list[bytes]):
    """Files whose sizes were held against the bounds when they were stored.

    Args:
        files: their bytes.
        names: of the files, for a refusal.
    """

    def __init__(self, files: Iterable[bytes], names: Sequence[str]) -> None:
        super().__init__(files)
        self.names = names


def file_of(cell: object, where: str) -> bytes:
    """The file that a cell holds.

    Args:
        cell: bytes, base64 or, in Python, a path.
        where: the input and the row, for a refusal.

    Raises:
        InputError: it holds none.
    """
    if isinstance(cell, bytes | bytearray | memoryview):
        return bytes(cell)
    if isinstance(cell, str):
        return _of_base64(cell, where)
    if isinstance(cell, Path):
        return cell.read_bytes()
    got = "an empty cell" if cell is None else f"{type(cell).__name__} {str(cell)[:40]}"
    raise InputError(
        f"{where}: expected {EXPECTED} in base64, got {got}: the network's own tensors need "
        "`preprocess` false"
    )


def _of_base64(text: str, where: str) -> bytes:
    url = _DATA_URL.match(text)
    bare = text[url.end() :] if url else text
    if "\n" in bare:
        bare = "".join(bare.split())
    try:
        return binascii.a2b_base64(bare, strict_mode=True)
    except ValueError as error:  # of binascii, or no ASCII
        raise InputError(
            f"{where}: expected {EXPECTED} in base64, got other text ({str(error)[:60]}): encode "
            "the file's bytes"
        ) from error
