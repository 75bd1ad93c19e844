"""Hostile files: what is not a zip, damaged ones, and zip directories that lie."""

from __future__ import annotations

import bz2
import io
import lzma
import pickle
import stat
import struct
import zipfile
import zlib

import torch

from .cases import hostile
from .parts import MANIFEST, POINT, SAMPLING, WEIGHTS, Entry, Parts, raw_zip, with_digests, zipped

WHOLE = "send the file that `dubito_nn.export` wrote, whole"


def _listed(parts: Parts) -> list[Entry]:
    return [Entry(name.encode(), content) for name, content in parts.entries().items()]


def _with(parts: Parts, name: str, **changes: object) -> bytes:
    """The file with one entry's headers changed: `central_...`, `local_...`, or both."""
    entries = _listed(parts)
    entry = next(entry for entry in entries if entry.name == name.encode())
    for key, value in changes.items():
        side, _, rest = key.partition("_")
        for table in [entry.central] * (side != "local") + [entry.local] * (side != "central"):
            table[rest or side] = value
    return raw_zip(entries)


@hostile(WHOLE)
def an_empty_file(parts: Parts) -> bytes:
    return b""


@hostile(WHOLE)
def text(parts: Parts) -> bytes:
    return b"import os\nos.system('true')\n" * 1000


@hostile(WHOLE)
def a_gzip_file(parts: Parts) -> bytes:
    return b"\x1f\x8b\x08\x00" + zlib.compress(bytes(10_000))


@hostile(WHOLE)
def a_pickle(parts: Parts) -> bytes:
    return pickle.dumps(parts.payload())


@hostile(WHOLE)
def an_old_pickle_of_torch(parts: Parts) -> bytes:
    file = io.BytesIO()
    torch.save(parts.payload(), file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@hostile("entries|" + WHOLE)
def a_saved_object_of_torch(parts: Parts) -> bytes:
    file = io.BytesIO()
    torch.save({"weights": parts.weights, "more": parts.payload()}, file)
    return file.getvalue()


@hostile("entries|" + WHOLE)
def an_exported_program_of_torch(parts: Parts) -> bytes:
    entries = {"archive/version": b"0", "archive/models/model.json": b"{}"}
    return zipped(entries | {"archive/data/weights.pt": pickle.dumps(parts.payload())})


@hostile("expects 4 entries")
def an_end_record_alone(parts: Parts) -> bytes:
    return b"PK\x05\x06" + bytes(18)


for _place, _share in (("its first entry", 0.01), ("a graph", 0.3), ("its directory", 0.97)):

    @hostile(WHOLE, f"cut in {_place}")
    def _cut(parts: Parts, share: float = _share) -> bytes:
        content = parts.sealed()
        return content[: int(share * len(content))]


@hostile(WHOLE)
def without_its_last_byte(parts: Parts) -> bytes:
    return parts.sealed()[:-1]


@hostile(WHOLE)
def without_its_first_byte(parts: Parts) -> bytes:
    return parts.sealed()[1:]


@hostile(WHOLE)
def with_bytes_missing_in_the_middle(parts: Parts) -> bytes:
    content = parts.sealed()
    return content[:1000] + content[1100:]


@hostile("expects 4 entries")
def a_pickle_beside_the_entries(parts: Parts) -> bytes:
    return zipped(parts.entries() | {"data.pkl": pickle.dumps(parts.payload())})


@hostile("weights.safetensors")
def a_pickle_for_weights(parts: Parts) -> bytes:
    file = io.BytesIO()
    torch.save({"0.weight": parts.payload()}, file)
    return parts.sealed(weights=file.getvalue())


@hostile("manifest.json is not readable JSON")
def a_pickle_for_a_manifest(parts: Parts) -> bytes:
    return parts.sealed(manifest=pickle.dumps(parts.payload()))


@hostile("sampling.json is not readable JSON")
def python_for_a_graph(parts: Parts) -> bytes:
    return parts.sealed(sampling=f"__import__('os').system('touch {parts.canary}')".encode())


for _title, _name in {
    "a name that climbs": "../weights.safetensors",
    "an absolute name": "/weights.safetensors",
    "a name of a drive": "C:\\weights.safetensors",
    "a name that goes down and up": "a/../weights.safetensors",
    "an unknown name": "notes.txt",
    "a name in capitals": "WEIGHTS.SAFETENSORS",
    "a name with a byte of 0": "weights.safetensors\0.pkl",
    "a name with a look-alike letter": "w\u0435ights.safetensors",
    "an empty name": "",
    "a folder": "weights.safetensors/",
}.items():

    @hostile("expects the entry `weights.safetensors`", _title)
    def _named(parts: Parts, name: str = _name) -> bytes:
        entries = parts.entries()
        weights = entries.pop(WEIGHTS)
        return zipped(entries | {name: weights})


@hostile("expects 4 entries")
def an_entry_missing(parts: Parts) -> bytes:
    entries = parts.entries()
    del entries[POINT]
    return zipped(entries)


@hostile("expects the entry `manifest.json`")
def entries_in_another_order(parts: Parts) -> bytes:
    return zipped(dict(reversed(parts.entries().items())))


@hostile("expects 4 entries")
def an_entry_twice(parts: Parts) -> bytes:
    entries = _listed(parts)
    return raw_zip([*entries, entries[1]])


@hostile("expects the entry `point.json`")
def an_entry_twice_for_another(parts: Parts) -> bytes:
    entries = _listed(parts)
    return raw_zip([entries[0], entries[1], entries[1], entries[3]])


@hostile("expects 4 entries")
def a_million_entries(parts: Parts) -> bytes:
    few = raw_zip([Entry(b"a", b"") for _ in range(1000)])
    start = few.index(b"PK\x01\x02")
    many = few[start:-22] * 1000
    record = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(many), start, 0)
    return few[:start] + many + record


@hostile(WHOLE)
def a_directory_that_says_four_of_a_million_entries(parts: Parts) -> bytes:
    few = raw_zip([Entry(b"a", b"") for _ in range(1000)])
    start = few.index(b"PK\x01\x02")
    many = few[start:-22] * 1000
    record = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 4, 4, len(many), start, 0)
    return few[:start] + many + record


@hostile("is a link or a folder")
def a_link(parts: Parts) -> bytes:
    entries = _listed(parts)
    entries[3] = Entry(b"weights.safetensors", b"/etc/passwd")
    entries[3].central["attributes"] = (stat.S_IFLNK | 0o777) << 16
    return raw_zip(entries)


@hostile("is a link or a folder")
def a_device(parts: Parts) -> bytes:
    return _with(parts, WEIGHTS, central_attributes=(stat.S_IFCHR | 0o666) << 16)


def _packed(parts: Parts, method: int, compress: object, swollen: bytes | None = None) -> bytes:
    entries = _listed(parts)
    for entry in entries:
        plain = entry.content if swollen is None or entry.name != WEIGHTS.encode() else swollen
        entry.content = compress(plain)  # type: ignore[operator]
        true = {"method": method, "size": len(plain), "crc": zlib.crc32(plain)}
        entry.local |= true
        entry.central |= true
    return raw_zip(entries)


def _deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


@hostile("is compressed")
def entries_deflated(parts: Parts) -> bytes:
    return _packed(parts, zipfile.ZIP_DEFLATED, _deflate)


@hostile("is compressed")
def a_bomb_of_zeros(parts: Parts) -> bytes:
    return _packed(parts, zipfile.ZIP_DEFLATED, _deflate, bytes(200 * 2**20))


@hostile("is compressed")
def a_bomb_of_bzip2(parts: Parts) -> bytes:
    return _packed(parts, zipfile.ZIP_BZIP2, bz2.compress, bytes(20 * 2**20))


@hostile("is compressed")
def a_bomb_of_lzma(parts: Parts) -> bytes:
    return _packed(parts, zipfile.ZIP_LZMA, lzma.compress, bytes(20 * 2**20))


@hostile("is compressed")
def a_compressed_entry_that_says_it_is_stored(parts: Parts) -> bytes:
    return _with(parts, WEIGHTS, size=2**31)


@hostile("headers disagree")
def an_entry_compressed_by_its_own_header_alone(parts: Parts) -> bytes:
    return _with(parts, WEIGHTS, local_method=8)


@hostile("is encrypted")
def an_encrypted_entry(parts: Parts) -> bytes:
    return _with(parts, SAMPLING, flags=1)


@hostile("flags")
def an_entry_whose_size_follows_it(parts: Parts) -> bytes:
    return _with(parts, SAMPLING, flags=8)


@hostile("flags")
def an_entry_with_a_masked_header(parts: Parts) -> bytes:
    return _with(parts, SAMPLING, flags=1 << 13)


@hostile("headers disagree")
def an_entry_with_two_names(parts: Parts) -> bytes:
    return _with(parts, WEIGHTS, local_name=b"/etc/ld.so.preload.")


@hostile("headers disagree|overlap")
def an_entry_with_two_sizes(parts: Parts) -> bytes:
    return _with(parts, WEIGHTS, local_stored=3, local_size=3)


@hostile("overlap")
def an_entry_longer_than_the_file(parts: Parts) -> bytes:
    return _with(parts, WEIGHTS, stored=2**32 - 2, size=2**32 - 2)


@hostile("checksum")
def an_entry_with_a_wrong_checksum(parts: Parts) -> bytes:
    return _with(parts, MANIFEST, crc=7)


@hostile("overlap")
def entries_that_overlap(parts: Parts) -> bytes:
    entries = _listed(parts)
    first = 30 + len(MANIFEST) + len(entries[0].content)
    entries[2].central["offset"] = first
    return raw_zip(entries)


@hostile("overlap")
def an_entry_inside_another(parts: Parts) -> bytes:
    return _with(parts, POINT, central_offset=40)


@hostile("overlap")
def an_entry_beyond_the_end(parts: Parts) -> bytes:
    return _with(parts, POINT, central_offset=2**32 - 1)


@hostile("overlap")
def bytes_hidden_between_the_entries(parts: Parts) -> bytes:
    return raw_zip(_listed(parts), between=pickle.dumps(parts.payload()))


@hostile("overlap")
def a_script_in_front_of_the_zip(parts: Parts) -> bytes:
    return raw_zip(_listed(parts), before=f"#!/bin/sh\ntouch '{parts.canary}'\n".encode())


@hostile(WHOLE)
def a_script_in_front_with_the_old_offsets(parts: Parts) -> bytes:
    return f"#!/bin/sh\ntouch '{parts.canary}'\n".encode() + parts.sealed()


@hostile(WHOLE)
def bytes_behind_the_zip(parts: Parts) -> bytes:
    return parts.sealed() + pickle.dumps(parts.payload())


@hostile(WHOLE)
def a_comment(parts: Parts) -> bytes:
    return raw_zip(_listed(parts), comment=pickle.dumps(parts.payload()))


@hostile(WHOLE)
def a_comment_that_is_another_zip(parts: Parts) -> bytes:
    return raw_zip(_listed(parts), comment=zipped({"evil.pkl": b"x"}))


@hostile("4 GiB|extra")
def sizes_of_zip64(parts: Parts) -> bytes:
    extra = struct.pack("<2H2Q", 1, 16, 2**63, 2**63)
    return _with(parts, WEIGHTS, extra=extra, stored=2**32 - 1, size=2**32 - 1)


@hostile(WHOLE)
def an_end_record_of_zip64(parts: Parts) -> bytes:
    content = parts.sealed()
    end = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 4, 4, 2**62, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(content) - 22, 1)
    return content[:-22] + end + locator + content[-22:]


@hostile("extra")
def a_unicode_name_in_an_extra_field(parts: Parts) -> bytes:
    name = b"../evil.pkl"
    field = struct.pack("<BL", 1, zlib.crc32(WEIGHTS.encode())) + name
    return _with(parts, WEIGHTS, central_extra=struct.pack("<2H", 0x7075, len(field)) + field)


@hostile("leave bytes")
def an_extra_field_before_the_content(parts: Parts) -> bytes:
    return _with(parts, WEIGHTS, local_extra=b"\xff\xff\x04\x00evil")


@hostile(WHOLE)
def several_disks(parts: Parts) -> bytes:
    return raw_zip(_listed(parts), disk=1, first_disk=1)


@hostile(WHOLE)
def a_directory_beyond_the_end(parts: Parts) -> bytes:
    return raw_zip(_listed(parts), offset=2**32 - 1)


@hostile(r"sampling.json does not have the SHA-256")
def a_graph_exchanged(parts: Parts) -> bytes:
    entries = parts.entries()
    return zipped(entries | {SAMPLING: entries[SAMPLING].replace(b"relu", b"tanh")})


@hostile(r"weights.safetensors does not have the SHA-256")
def weights_exchanged(parts: Parts) -> bytes:
    entries = parts.entries()
    return zipped(entries | {WEIGHTS: entries[WEIGHTS][:-1] + b"\x01"})


@hostile(r"sampling.json does not have the SHA-256")
def digests_of_another_file(parts: Parts) -> bytes:
    own = with_digests(parts.entries())
    parts.sampling["nodes"] += [{"name": "more", "op": "aten.relu.default", "args": [{"ref": "x"}]}]
    return zipped(parts.entries() | {MANIFEST: own[MANIFEST]})
