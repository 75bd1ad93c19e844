"""Archives of images, laid out as what can be memory-mapped: all bytes, where each begins, names.

Size and format of every image are looked at here; its pixels are decoded when a job reads it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dubito.arrays import write_header
from dubito.errors import InputError
from dubito.media import TAR, ZIP
from dubito.preprocess.images.archives import DAMAGE, Member, damaged, members_of
from dubito.preprocess.images.cells import StoredImages
from dubito.preprocess.images.decoding import need_pillow, opened
from dubito.preprocess.images.files import FILE, files_of
from dubito.registry import ColumnFact

FORMATS = {"zip": ZIP, "tar": TAR}
IMAGE = ColumnFact("image", "|O", ())
"""The files, in the list of a pool's arrays."""
_MARKS = {"png": b"\x89PNG", "jpeg": b"\xff\xd8", "webp": b"RIFF"}


class StoredFiles:
    """Files that lie one after the other; indexed like an array of N rows.

    Args:
        content: all bytes.
        ends: where each begins, and the last one ends, (N + 1,).
        names: of the files, (N,), in UTF-8.
    """

    def __init__(
        self,
        content: NDArray[np.uint8],
        ends: NDArray[np.int64],
        names: NDArray[np.bytes_],
    ) -> None:
        self._content = content
        self._ends = ends
        self._names = names

    def num_bytes(self, rows: NDArray[np.int64]) -> int:
        """Size of some files together."""
        return int(np.diff(self._ends)[rows].sum())

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> StoredImages:
        """Copies of some files."""
        spans = zip(self._ends[:-1][rows].tolist(), self._ends[1:][rows].tolist(), strict=True)
        names = [name.decode() for name in self._names[rows].tolist()]
        files = (self._content[start:stop].tobytes() for start, stop in spans)
        return StoredImages(files, names)


def data_url(content: bytes) -> str:
    """A file of an image as text, as predictions take it and browsers show it."""
    kind = next((kind for kind, mark in _MARKS.items() if content.startswith(mark)), "tiff")
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


@contextmanager
def open_images(path: Path, format: str, limit_bytes: int) -> Iterator[Sequence[Member]]:
    """The files of an archive that are images, by name.

    Raises:
        InputError: no archive, or one with other files in it.
        TooLargeError: longer than the limit.
    """
    need_pillow()
    with path.open("rb") as file:
        try:
            yield files_of(members_of(file, FORMATS[format], limit_bytes))
        except DAMAGE as error:
            raise damaged(error, FORMATS[format]) from error


def lay_out(members: Sequence[Member], paths: Sequence[Path], most_pixels: int) -> ColumnFact:
    """Write the files, where they begin, and their names.

    Args:
        members: the files.
        paths: of the three arrays.
        most_pixels: of an image.

    Returns:
        What is known of the names.

    Raises:
        InputError: a file is no image.
        TooLargeError: an image has too many pixels.
    """
    ends = np.zeros(len(members) + 1, np.int64)
    ends[1:] = np.cumsum([member.size for member in members])
    with paths[0].open("wb") as file:
        write_header(file, "|u1", (int(ends[-1]),))
        for member in members:
            content = member.read()
            opened(content, most_pixels, f"`{member.name[:80]}`")
            if len(content) != member.size:
                raise InputError(f"`{member.name[:80]}`: expected {member.size} bytes, got others")
            file.write(content)
    names = np.array([member.name.encode() for member in members])
    for path, array in zip(paths[1:], (ends, names), strict=True):
        with path.open("wb") as file:
            write_header(file, array.dtype.str, array.shape)
            file.write(array.data)
    return ColumnFact(FILE, names.dtype.str, ())
