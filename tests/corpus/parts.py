"""A small good bundle, taken apart: hostile cases change a part and seal the whole again."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from dubito_nn import Manifest, Program, Site
from dubito_nn.bundle import bundle_bytes
from dubito_nn.manifest import InputSpec
from dubito_nn.program import Node, Ref, to_json

MANIFEST, SAMPLING, POINT, WEIGHTS = (
    "manifest.json",
    "sampling.json",
    "point.json",
    "weights.safetensors",
)
Json = dict[str, Any]
F32 = {"dtype": "float32"}
ON = {"device": {"device": None}}


@dataclass
class Entry:
    """One zip entry; every field of its headers can lie.

    Args:
        name: in the central directory.
        content: what is stored.
        central: fields of the central directory that differ from the truth.
        local: fields of the local header that differ from the truth.
    """

    name: bytes
    content: bytes
    central: Json = field(default_factory=dict)
    local: Json = field(default_factory=dict)


@dataclass
class Parts:
    """A good bundle in parts.

    Args:
        canary: a file that a payload would write, if anything ran it.
    """

    canary: Path
    manifest: Json
    sampling: Json
    point: Json
    weights: dict[str, torch.Tensor]

    def entries(self) -> dict[str, bytes]:
        """The four entries with digests that are right."""
        return with_digests(
            {
                MANIFEST: dumped(self.manifest),
                SAMPLING: dumped(self.sampling),
                POINT: dumped(self.point),
                WEIGHTS: safetensors.torch.save(self.weights),
            }
        )

    def sealed(self, **replaced: bytes) -> bytes:
        """The file; `sampling`, `point` and `weights` may be given as bytes."""
        names = {"manifest": MANIFEST, "sampling": SAMPLING, "point": POINT, "weights": WEIGHTS}
        given = {names[key]: content for key, content in replaced.items()}
        entries = self.entries() | given
        return zipped(entries if MANIFEST in given else with_digests(entries))

    def grown(self, *nodes: Json, in_point: bool = False) -> bytes:
        """The file with nodes behind the graph, the last of which is added to the output."""
        graph = self.point if in_point else self.sampling
        last = node("hostile_sum", "aten.add.Tensor", ref(graph["outputs"]["output"]), nodes[-1])
        graph["nodes"] += [*nodes, last]
        graph["outputs"]["output"] = "hostile_sum"
        return self.sealed()

    def appended(self, *nodes: Json) -> bytes:
        """The file with nodes behind the graph that nothing reads."""
        self.sampling["nodes"] += nodes
        return self.sealed()

    def payload(self) -> object:
        """An object whose unpickling writes the canary."""
        return Payload(self.canary)


class Payload:
    """Writes the canary where it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self._canary}'",)


def good_parts(canary: Path) -> Parts:
    """A perceptron of four features, one dropout and three classes."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        "0.weight": torch.randn(8, 4, generator=generator),
        "0.bias": torch.zeros(8),
        "3.weight": torch.randn(3, 8, generator=generator),
        "3.bias": torch.zeros(3),
    }
    before = (
        Node("x", "input", ("x",)),
        *(Node(f"w{key[0]}{key[2]}", "weight", (key,)) for key in weights),
        Node("rows", "aten.sym_size.int", (Ref("x"), 0)),
        Node("hidden", "aten.linear.default", (Ref("x"), Ref("w0w"), Ref("w0b"))),
        Node("active", "aten.relu.default", (Ref("hidden"),)),
    )
    dropped = (
        Node("keep", "site", (0, (Ref("rows"), 8), torch.float32)),
        Node("masked", "aten.mul.Tensor", (Ref("active"), Ref("keep"))),
        Node("scaled", "aten.div.Scalar", (Ref("masked"), 0.5)),
    )

    def head(name: str) -> Node:
        return Node("y", "aten.linear.default", (Ref(name), Ref("w3w"), Ref("w3b")))

    site = Site(
        *(0, "aten.native_dropout.default", "bernoulli", 0.5, False, (8,), "element", "2", 0)
    )
    manifest = Manifest(
        task="classification",
        output="logits",
        inputs=(InputSpec("x", "float32", (4,)),),
        num_outputs=3,
        sites=(site,),
        torch_version="2.13.0",
        classes=("ant", "bee", "cat"),
    )
    sampling = Program((*before, *dropped, head("scaled")), {"output": "y"})
    point = Program((*before, head("active")), {"output": "y"})
    entries = unzipped(bundle_bytes(manifest, sampling, point, weights))
    return Parts(
        canary,
        json.loads(entries[MANIFEST]),
        json.loads(json.dumps(to_json(sampling))),
        json.loads(json.dumps(to_json(point))),
        weights,
    )


def dumped(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def with_digests(entries: dict[str, bytes]) -> dict[str, bytes]:
    manifest = json.loads(entries[MANIFEST])
    manifest["digests"] = {
        name: hashlib.sha256(entries[name]).hexdigest() for name in (SAMPLING, POINT, WEIGHTS)
    }
    return entries | {MANIFEST: dumped(manifest)}


def ref(to: str | Json) -> Json:
    return {"ref": to if isinstance(to, str) else to["name"]}


def node(name: str, op: str, *args: object, **kwargs: object) -> Json:
    """A node; arguments that are nodes become references to them."""

    def argument(value: object) -> object:
        is_node = isinstance(value, dict) and "op" in value
        return ref(value) if is_node else value

    made: Json = {"name": name, "op": op, "args": [argument(value) for value in args]}
    if kwargs:
        made["kwargs"] = {key: argument(value) for key, value in kwargs.items()}
    return made


def zeros(name: str, *size: int) -> Json:
    return node(name, "aten.zeros.default", list(size), dtype=F32, **ON)


_CENTRAL = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s2B4HL2L2H")
_END = struct.Struct("<4s4H2LH")


def zipped(entries: dict[str, bytes], **end: int) -> bytes:
    """A zip of stored entries in that order, as the exporter writes it."""
    return raw_zip([Entry(name.encode(), content) for name, content in entries.items()], **end)


def raw_zip(
    entries: list[Entry], *, before: bytes = b"", between: bytes = b"", **end: int | bytes
) -> bytes:
    """A zip written field by field.

    Args:
        entries: in order.
        before: in front of the first.
        between: behind each.
        end: fields of the end record that differ from the truth; `comment` is its comment.
    """
    file, central = bytearray(before), bytearray()
    for entry in entries:
        offset = len(file)
        truth: Json = {
            "name": entry.name,
            "flags": 0,
            "method": 0,
            "crc": zlib.crc32(entry.content),
            "stored": len(entry.content),
            "size": len(entry.content),
            "extra": b"",
            "attributes": 0o600 << 16,
            "offset": offset,
            "disk": 0,
        }
        file += _local(truth | entry.local) + entry.content + between
        central += _in_directory(truth | entry.central)
    comment = end.get("comment", b"")
    assert isinstance(comment, bytes)
    record = {
        "disk": 0,
        "first_disk": 0,
        "here": len(entries),
        "entries": len(entries),
        "size": len(central),
        "offset": len(file),
        "comment_length": len(comment),
    } | {key: value for key, value in end.items() if key != "comment"}
    return bytes(file + central + _END.pack(b"PK\x05\x06", *record.values()) + comment)


def _local(f: Json) -> bytes:
    head = (20, 0, f["flags"], f["method"], 0, 33, f["crc"], f["stored"], f["size"])
    lengths = (len(f["name"]), len(f["extra"]))
    return _LOCAL.pack(b"PK\x03\x04", *head, *lengths) + f["name"] + f["extra"]


def _in_directory(f: Json) -> bytes:
    head = (20, 3, 20, 0, f["flags"], f["method"], 0, 33, f["crc"], f["stored"], f["size"])
    lengths = (len(f["name"]), len(f["extra"]), 0, f["disk"], 0)
    packed = _CENTRAL.pack(b"PK\x01\x02", *head, *lengths, f["attributes"], f["offset"])
    return packed + f["name"] + f["extra"]


def unzipped(content: bytes) -> dict[str, bytes]:
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
