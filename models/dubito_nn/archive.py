"""The zip around a bundle, read so strictly that a file has one meaning.

Its job: give the entries of a zip of stored entries, and refuse whatever the writer never writes:
compression, encryption, links, comments, extra fields, entries that overlap, and bytes that belong
to no entry. Sizes are checked before anything of that size is read.

    local header, content     once for every entry, back to back from the first byte on
    directory                 one header for every entry, in the same order
    end record                22 bytes, the last of the file
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from dubito_nn.errors import BundleError

_END = struct.Struct("<4s4H2LH")
_DIRECTORY = struct.Struct("<4s4B4H3L5H2L")
_LOCAL = struct.Struct("<4s2B4H3L2H")
_MAX_BYTES = 2**32 - 2  # beyond it a zip needs its 64-bit records
_REGULAR = (0, 0o10)  # kinds of file in the attributes: unsaid, or an ordinary file


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the directory says of an entry."""

    name: str
    flags: int
    method: int
    crc: int
    size: int
    offset: int

    @property
    def length(self) -> int:
        """Of its local header and content."""
        return _LOCAL.size + len(self.name) + self.size


def read_archive(
    file: BinaryIO, size: int, limits: Mapping[str, int], *, optional: int = 0
) -> tuple[dict[str, bytes], str]:
    """The entries of a file, and the SHA-256 of the whole file.

    Args:
        file: open for reading.
        size: of the file, in bytes.
        limits: the names that must be there, in order, with the largest size of each in bytes.
        optional: how many of the last of them may be missing.

    Raises:
        BundleError: where a byte of the file is not as the writer writes it.
    """
    counts = range(len(limits) - optional, len(limits) + 1)
    count, start, directory, end = _read_directory(file, size, counts)
    entries = _parse_directory(directory, start, dict(islice(limits.items(), count)), counts[0])
    digest = hashlib.sha256()
    contents: dict[str, bytes] = {}
    file.seek(0)
    for entry in entries:
        header = file.read(_LOCAL.size + len(entry.name))
        _check_local(header, entry)
        content = file.read(entry.size)
        if len(content) != entry.size or zlib.crc32(content) != entry.crc:
            raise BundleError(f"entry `{entry.name}` does not have the checksum that is stated")
        digest.update(header)
        digest.update(content)
        contents[entry.name] = content
    digest.update(directory)
    digest.update(end)
    return contents, digest.hexdigest()


def _read_directory(file: BinaryIO, size: int, counts: range) -> tuple[int, int, bytes, bytes]:
    """How many entries there are, where the directory starts, its bytes, and the end record."""
    if size > _MAX_BYTES:
        raise BundleError(f"the file expects at most 4 GiB, got {size} bytes: serve a smaller one")
    if size < _END.size:
        raise _unreadable("too short")
    file.seek(size - _END.size)
    end = file.read(_END.size)
    if len(end) != _END.size or not end.startswith(b"PK\x05\x06"):
        raise _unreadable("no end record where the file ends")
    _, disk, first_disk, here, entries, length, start, comment = _END.unpack(end)
    if (disk, first_disk, comment) != (0, 0, 0) or here != entries:
        raise _unreadable("an end record with a comment, or of several disks")
    if start + length + _END.size != size:
        raise _unreadable("its directory does not end where the file ends")
    if entries not in counts:
        raise _miscounted(counts[0], entries)
    if length > 4096:
        raise _unreadable("its directory is too long for its entries")
    file.seek(start)
    return entries, start, file.read(length), end


def _parse_directory(
    directory: bytes, start: int, limits: Mapping[str, int], required: int
) -> list[_Entry]:
    """Read the entries of a zip directory, which must be those of a bundle, in order."""
    entries: list[_Entry] = []
    at = offset = 0
    for name, limit in limits.items():
        head = directory[at : at + _DIRECTORY.size]
        if len(head) != _DIRECTORY.size or not head.startswith(b"PK\x01\x02"):
            raise _unreadable("a directory cut short")
        fields = _DIRECTORY.unpack(head)
        flags, method, crc, stored, size = fields[5], fields[6], *fields[9:12]
        length, *further, _, attributes, header_offset = fields[12:]
        stored_name = directory[at + _DIRECTORY.size : at + _DIRECTORY.size + length]
        if stored_name != name.encode() and len(entries) == required:
            raise _miscounted(required, len(limits))
        if stored_name != name.encode():
            raise BundleError(
                f"a bundle expects the entry `{name}` in this place, got"
                f" `{stored_name.decode('utf-8', 'replace')[:80]}`: export it again"
            )
        entry = _Entry(name, flags, method, crc, size, header_offset)
        _check_entry(entry, stored, attributes >> 28, limit)
        if any(further):
            raise BundleError(f"entry `{name}` has an extra field, a comment or another disk")
        if entry.offset != offset or offset + entry.length > start:
            raise BundleError(f"entry `{name}` overlaps another, or leaves bytes between them")
        entries.append(entry)
        at += _DIRECTORY.size + length
        offset += entry.length
    if at != len(directory) or offset != start:
        raise BundleError("entries overlap the directory, or leave bytes in front of it")
    return entries


def _check_entry(entry: _Entry, stored: int, kind: int, limit: int) -> None:
    """Refuse an entry that the writer of bundles would not have written."""
    where = f"entry `{entry.name}`"
    if entry.method != 0 or stored != entry.size:
        raise BundleError(f"{where} is compressed: entries are stored as is")
    if entry.flags & 1:
        raise BundleError(f"{where} is encrypted: entries are stored as is")
    if entry.flags:
        raise BundleError(f"{where} has the flags {entry.flags:#x}: expected none")
    if kind not in _REGULAR:
        raise BundleError(f"{where} is a link or a folder: expected an ordinary file")
    if entry.size > limit:
        raise BundleError(f"{where} is larger than it may be, {limit} bytes")


def _check_local(header: bytes, entry: _Entry) -> None:
    """The entry's own header says what the directory says."""
    name = entry.name.encode()
    expected = (entry.flags, entry.method, entry.crc, entry.size, entry.size, len(name), 0)
    fields = _LOCAL.unpack(header[: _LOCAL.size]) if len(header) >= _LOCAL.size else ()
    if not fields or fields[0] != b"PK\x03\x04":
        raise _unreadable(f"entry `{entry.name}` has no header")
    if (*fields[3:5], *fields[7:]) != expected or header[_LOCAL.size :] != name:
        raise BundleError(f"entry `{entry.name}`: its two headers disagree")


def _miscounted(expected: int, got: int) -> BundleError:
    return BundleError(f"a bundle expects {expected} entries, got {got}: export it again")


def _unreadable(reason: str) -> BundleError:
    return BundleError(
        f"not a readable bundle, {reason}: send the file that `dubito_nn.export` wrote, whole"
    )
