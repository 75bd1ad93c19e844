"""Archives of strangers: their files, found without taking a name or a size at its word.

Nothing is written anywhere. What a directory states is bounded before it is read, and links,
devices, names that lead elsewhere and names twice are refused. A file is taken by its ending.
"""

from __future__ import annotations

import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import IO

from dubito.errors import InputError, TooLargeError
from dubito.media import TAR, ZIP

MAX_FILES = 100_000
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
METADATA = "metadata.csv"
"""A table of the files, by their `file_name`."""

_DIRECTORY_BYTES = 2**25
_DIRECTORY_ENTRY = b"PK\x01\x02"
_END, _END_BYTES = b"PK\x05\x06", 22
_END64, _END64_BYTES = b"PK\x06\x06", 56
_LOCATOR, _LOCATOR_BYTES = b"PK\x06\x07", 20
_ENDS_BYTES = _END64_BYTES + _LOCATOR_BYTES + _END_BYTES
_LONGEST_READ = 2**20  # of what a tar says of a file
_STORED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, OSError, ValueError, EOFError, struct.error),
    *(NotImplementedError, RuntimeError, OverflowError, LookupError),
)
_PASSED_OVER = ("__MACOSX", "Thumbs.db")


@dataclass(frozen=True)
class Member:
    """A file of an archive.

    Args:
        name: with folders.
        size: bytes.
        read: its bytes.
    """

    name: str
    size: int
    read: Callable[[], bytes]


def members_of(
    file: IO[bytes], kind: str, limit_bytes: int, most_files: int = MAX_FILES
) -> list[Member]:
    """The images of an archive, by name, and its table of them; they are read while `file` is open.

    Args:
        file: that can be sought in.
        kind: `ZIP` or `TAR`.
        limit_bytes: most bytes of all of them.
        most_files: that it may have, with those that are passed over.

    Raises:
        InputError: damaged, or a file in it that is none of these.
        TooLargeError: too many files, or too long ones.
    """
    found: dict[str, Member] = {}
    total = 0
    try:
        for member in _READERS[kind](file, most_files):
            if member.name in found:
                raise InputError(f"archive: expected each file once, got {member.name!r} twice")
            found[member.name] = member
            total += member.size
            if total > limit_bytes:
                raise TooLargeError(
                    f"archive: expected files of at most {limit_bytes} bytes together, got more: "
                    "send them in several"
                )
    except DAMAGE as error:
        raise damaged(error, kind) from error
    if not any(name.lower().endswith(ENDINGS) for name in found):
        raise InputError(
            f"archive: expected files that end in {', '.join(ENDINGS)}, got none: put images in it"
        )
    return [found[name] for name in sorted(found)]


def damaged(error: Exception, kind: str) -> InputError:
    """The refusal of an archive that cannot be read."""
    said = " ".join(str(error).split())[:160] or type(error).__name__
    return InputError(
        f"archive: expected {kind} of images, got something else ({said}): pack it anew"
    )


def _zip(file: IO[bytes], most_files: int) -> Iterator[Member]:
    _check_directory(file, most_files)
    archive = zipfile.ZipFile(file)
    for info in archive.infolist():
        if info.is_dir() or not _is_wanted(info.filename):
            continue
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise InputError(f"archive: expected files, got a link {info.filename[:80]!r}")
        if info.compress_type not in _STORED or info.flag_bits & 1:
            raise InputError(
                f"archive: expected stored or deflated files, got {info.filename[:80]!r} "
                "encrypted or in another compression: pack it anew"
            )
        yield Member(info.filename, info.file_size, partial(archive.read, info))


def _check_directory(file: IO[bytes], most_files: int) -> None:
    """Refuse a directory that would take long to read, by its own bytes.

    The records at the end are looked for where zipfile looks first; they may have no comment.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - _ENDS_BYTES))
    ends = file.read().rjust(_ENDS_BYTES, b"\0")
    record, locator, end = ends[:56], ends[56:76], ends[76:]
    if not end.startswith(_END) or end[-2:] != b"\0\0":
        raise InputError("archive: expected a ZIP archive without a comment, got something else")
    num_bytes = struct.unpack_from("<I", end, 12)[0]
    if locator.startswith(_LOCATOR):
        at = struct.unpack_from("<Q", locator, 8)[0]
        if not record.startswith(_END64) or at != size - _ENDS_BYTES:
            raise InputError("archive: expected a ZIP archive, got one whose end is damaged")
        num_bytes = struct.unpack_from("<Q", record, 40)[0]
    if num_bytes > _DIRECTORY_BYTES:
        raise _too_many(most_files)
    file.seek(max(0, size - num_bytes - _ENDS_BYTES))
    if file.read().count(_DIRECTORY_ENTRY) > most_files:
        raise _too_many(most_files)


def _too_many(most_files: int) -> TooLargeError:
    return TooLargeError(f"archive: expected at most {most_files} files, got more: send several")


def _tar(file: IO[bytes], most_files: int) -> Iterator[Member]:
    archive = tarfile.TarFile(fileobj=_Bounded(file), errorlevel=2)  # type: ignore[arg-type]
    count = 0
    while (info := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # else all are kept
        count += 1
        if count > most_files:
            raise _too_many(most_files)
        if info.isdir() or (info.isreg() and not _is_wanted(info.name)):
            continue
        if info.size < 0:
            raise InputError(f"archive: expected files of a size, got {info.size}: pack it anew")
        if not info.isreg() or info.issparse():
            raise InputError(
                f"archive: expected plain files, got a link or a device {info.name[:80]!r}"
            )
        piece = partial(_piece, file, info.offset_data, info.size)
        yield Member(info.name, info.size, piece)


class _Bounded:
    """A file of which only little is read at once: what a tar says of a file has no bound."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > _LONGEST_READ:
            raise ValueError("a description of a file that is too long")
        return self._file.read(size)


def _piece(file: IO[bytes], start: int, size: int) -> bytes:
    file.seek(start)
    content = file.read(size)
    if len(content) < size:
        raise InputError("archive: expected a whole TAR archive, got the beginning of one")
    return content


def _is_wanted(name: str) -> bool:
    """Whether a file is an image, or the table of them; files that systems leave are passed over.

    Raises:
        InputError: a name that leads elsewhere, or of another kind of file.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not name.isprintable():
        raise InputError(f"archive: expected names below it, got {name[:80]!r}: pack it anew")
    if any(part in _PASSED_OVER or part.startswith(".") for part in path.parts):
        return False
    if name == METADATA or path.suffix.lower() in ENDINGS:
        return True
    raise InputError(
        f"archive: expected files that end in {', '.join(ENDINGS)}, and {METADATA}, got "
        f"{name[:80]!r}: leave it out"
    )


_READERS: dict[str, Callable[[IO[bytes], int], Iterator[Member]]] = {ZIP: _zip, TAR: _tar}
