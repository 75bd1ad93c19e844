"""Mutations of good bundles: of the file's bytes, and of its parts with the digests made right."""

from __future__ import annotations

import copy
import json
import struct
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from dubito_nn.operators import ALLOWED

from .parts import MANIFEST, POINT, SAMPLING, WEIGHTS, dumped, unzipped, with_digests, zipped

_OPERATORS = sorted(ALLOWED)
_VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, 3, -1, -2, 7, 255, 2**31 - 1, 2**31, -(2**31), 2**40),
    *(2**62, 2**63 - 1, -(2**63) + 1, 2**63, 2**64, 0.0, -0.5, 1e-300, 1e300),
    *("", "x", "output", "\ud800", "\0", "float32", "int64", "a" * 300, "../x"),
    *([], [0], [-1], [[]], [2**40, 2**40], {}, {"ref": "x"}, {"dtype": "float64"}),
    *({"dtype": "bool"}, {"dtype": "int64"}, {"device": None}, {"float": "nan"}),
    *({"float": "inf"}, {"memory_format": "channels_last"}, {"ref": "nobody"}),
]


@st.composite
def mutated(draw: DrawFn, bundles: list[bytes]) -> bytes:
    """A good bundle with one to three mutations."""
    content = draw(st.sampled_from(bundles))
    kind = draw(st.sampled_from(["bytes", *["json"] * 5, *["nodes"] * 5, "weights", "header"]))
    count = draw(st.sampled_from([1, 1, 1, 2, 3]))
    if kind == "bytes":
        for _ in range(count):
            content = _cut(draw, content)
        return content
    entries = unzipped(content)
    for _ in range(count):
        if kind == "json":
            name = draw(st.sampled_from([MANIFEST, SAMPLING, POINT]))
            entries[name] = dumped(_changed(draw, json.loads(entries[name])))
        elif kind == "nodes":
            graph = json.loads(entries[SAMPLING])
            entries[SAMPLING] = dumped(_grown(draw, graph))
        elif kind == "weights":
            entries[WEIGHTS] = _cut(draw, entries[WEIGHTS])
        else:
            entries[WEIGHTS] = _with_header(draw, entries[WEIGHTS])
    try:
        return zipped(with_digests(entries))
    except (TypeError, ValueError, KeyError):  # the manifest is no object any more
        return zipped(entries)


def _place(draw: DrawFn, length: int) -> int:
    return draw(st.integers(0, max(0, length - 1)))


def _cut(draw: DrawFn, content: bytes) -> bytes:
    """Bytes flipped, put in, taken out, cut off, or copied from another place."""
    at, size = _place(draw, len(content)), draw(st.integers(1, 64))
    match draw(st.sampled_from(["flip", "put", "take", "end", "splice", "swap"])):
        case "flip":
            mask = draw(st.integers(1, 255))
            changed = bytearray(content or b"\0")
            changed[at] ^= mask
            return bytes(changed)
        case "put":
            return content[:at] + draw(st.binary(min_size=1, max_size=32)) + content[at:]
        case "take":
            return content[:at] + content[at + size :]
        case "end":
            return content[:at]
        case "splice":
            start = _place(draw, len(content))
            return content[:at] + content[start : start + size] + content[at:]
        case _:
            start = _place(draw, len(content))
            return content[:at] + content[start : start + size] + content[at + size :]


def _with_header(draw: DrawFn, weights: bytes) -> bytes:
    """Safetensors with a value of their header changed."""
    try:
        (length,) = struct.unpack("<Q", weights[:8])
        header = dumped(_changed(draw, json.loads(weights[8 : 8 + length])))
    except (ValueError, struct.error):
        return weights
    return struct.pack("<Q", len(header)) + header + weights[8 + length :]


def _changed(draw: DrawFn, root: Any) -> Any:
    """JSON with one value replaced, taken out, doubled, or exchanged for another of the same."""
    root = copy.deepcopy(root)
    places = _places(root)
    if not places:
        return draw(st.sampled_from(_VALUES))
    parent, key = draw(st.sampled_from(places))
    match draw(st.sampled_from(["value", "value", "take", "double", "swap", "operator", "near"])):
        case "value":
            parent[key] = copy.deepcopy(draw(st.sampled_from(_VALUES)))
        case "take":
            del parent[key]
        case "double" if isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        case "operator":
            nodes = [place for place in places if place[1] == "op"]
            if nodes:
                node, name = draw(st.sampled_from(nodes))
                node[name] = draw(st.sampled_from(_OPERATORS))
        case "near" if isinstance(parent[key], (int, float)):
            parent[key] = parent[key] + draw(st.sampled_from([-1, 1, 2, 10**6, -(10**6)]))
        case _:
            other, name = draw(st.sampled_from(places))
            parent[key] = copy.deepcopy(other[name])
    return root


def _grown(draw: DrawFn, graph: Any) -> Any:
    """The graph with a node of any allowed operator, whose arguments fit its schema by kind."""
    op = draw(st.sampled_from(_OPERATORS))
    names = [node["name"] for node in graph["nodes"]]
    arguments = []
    if op.startswith("aten."):
        _, packet, overload = op.split(".")
        schema = getattr(getattr(torch.ops.aten, packet), overload)._schema
        for argument in schema.arguments:
            if argument.kwarg_only or (argument.has_default_value() and draw(st.booleans())):
                break
            arguments.append(_argument(draw, str(argument.type), names))
    else:
        arguments = [draw(_NUMBERS | _references(names)) for _ in range(2)]
    made = {"name": f"made_{len(names)}", "op": op, "args": arguments}
    if draw(st.integers(0, 3)):
        made["kwargs"] = {}
    graph["nodes"].append(made)
    return graph


_NUMBERS = st.sampled_from(
    [-(2**63) + 1, -(2**31), -7, -2, -1, 0, 1, 2, 3, 4, 5, 8, 16, 1000, 2**31, 2**62, 2**63 - 1]
) | st.integers(-3, 9)
_SMALL = st.integers(-2, 6)
_FLOATS = st.sampled_from([0.0, -0.5, 0.5, 1.0, 2.0, 1e30, -1e30, 1e-30])


def _references(names: list[str]) -> st.SearchStrategy[Any]:
    return st.sampled_from(names).map(lambda name: {"ref": name})


def _argument(draw: DrawFn, kind: str, names: list[str]) -> Any:
    """A value for an argument of that type in a schema."""
    if kind.startswith("Optional[") and not draw(st.integers(0, 2)):
        return None
    inner = kind.removeprefix("Optional[").removesuffix("]") if "Optional[" in kind else kind
    if inner.startswith("List["):
        item = inner.removeprefix("List[").removesuffix("]")
        return [_argument(draw, item, names) for _ in range(draw(st.integers(0, 4)))]
    if "Tensor" in inner:
        return draw(_references(names))
    if inner == "bool":
        return draw(st.booleans())
    if inner == "str":
        return draw(st.sampled_from(["none", "floor", "trunc", "constant", "reflect", "same", ""]))
    if inner in ("float", "number"):
        return draw(_FLOATS | _SMALL)
    return draw(_SMALL | _SMALL | _NUMBERS)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every value inside, as its container and its key."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        inside = waiting.pop()
        keys = inside.keys() if isinstance(inside, dict) else range(len(inside))
        for key in keys if isinstance(inside, (dict, list)) else ():
            found.append((inside, key))
            if isinstance(inside[key], (dict, list)):
                waiting.append(inside[key])
    return found
