"""Hostile safetensors."""

from __future__ import annotations

import struct

import torch

from .cases import hostile
from .parts import Json, Parts, dumped

NOT_READABLE = "weights.safetensors is not readable|weights.safetensors: "


def written(header: Json | bytes, data: bytes, length: int | None = None) -> bytes:
    """A safetensors file of that header, whose stated length may lie."""
    text = header if isinstance(header, bytes) else dumped(header)
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _layout(parts: Parts) -> tuple[Json, bytes]:
    """The honest header and data."""
    header: Json = {}
    data = b""
    for name, tensor in parts.weights.items():
        start = len(data)
        data += tensor.numpy().tobytes()
        offsets = [start, len(data)]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets}
    return header, data


def _lying(title: str, reason: str = NOT_READABLE, **fields: object) -> None:
    @hostile(reason, title)
    def build(parts: Parts) -> bytes:
        header, data = _layout(parts)
        header["3.bias"] |= fields
        return parts.sealed(weights=written(header, data))


_lying("offsets beyond the data", data_offsets=[268, 2**20])
_lying("offsets of 2^64", data_offsets=[2**64 - 12, 2**64])
_lying("offsets of 2^70", data_offsets=[2**70, 2**70 + 12])
_lying("negative offsets", data_offsets=[-12, 0])
_lying("offsets the wrong way round", data_offsets=[280, 268])
_lying("offsets that overlap another tensor", data_offsets=[0, 12])
_lying("offsets that are texts", data_offsets=["0", "12"])
_lying("offsets of three numbers", data_offsets=[0, 6, 12])
_lying("a shape larger than its bytes", shape=[300])
_lying("a shape whose size overflows", shape=[2**32, 2**32])
_lying("a shape of 2^63", shape=[2**63])
_lying("a negative shape", shape=[-3])
_lying("a shape of a thousand axes", shape=[1] * 1000 + [3])
_lying("a shape of an empty tensor with 2^62 columns", shape=[0, 2**62], data_offsets=[268, 268])
_lying("a shape that is a text", shape="3")
_lying("a type nobody knows", dtype="OBJECT")
_lying("a type that is a number", dtype=7)
_lying("a complex type", dtype="C64")
_lying("a type of 8 bits", dtype="F8_E4M3", shape=[12])
_lying("a field of its own", evil="x")


@hostile(NOT_READABLE)
def weights_of_no_bytes(parts: Parts) -> bytes:
    return parts.sealed(weights=b"")


@hostile(NOT_READABLE)
def a_header_longer_than_the_file(parts: Parts) -> bytes:
    return parts.sealed(weights=written(*_layout(parts), length=10**6))


@hostile(NOT_READABLE)
def a_header_of_2_to_the_63(parts: Parts) -> bytes:
    return parts.sealed(weights=written(*_layout(parts), length=2**63))


@hostile(NOT_READABLE)
def a_header_shorter_than_it_is(parts: Parts) -> bytes:
    return parts.sealed(weights=written(*_layout(parts), length=10))


@hostile(NOT_READABLE)
def a_header_that_is_not_json(parts: Parts) -> bytes:
    return parts.sealed(weights=written(b"{{{{{{{{", b""))


@hostile(NOT_READABLE)
def a_header_that_is_deep(parts: Parts) -> bytes:
    return parts.sealed(weights=written(b'{"a":' * 50_000 + b"1" + b"}" * 50_000, b""))


@hostile(NOT_READABLE)
def a_header_that_is_a_list(parts: Parts) -> bytes:
    return parts.sealed(weights=written(b"[]      ", b""))


@hostile(NOT_READABLE)
def a_tensor_twice(parts: Parts) -> bytes:
    header, data = _layout(parts)
    text = dumped(header)[:-1] + b',"3.bias":' + dumped(header["3.bias"]) + b"}"
    return parts.sealed(weights=written(text, data))


@hostile(NOT_READABLE)
def bytes_hidden_behind_the_tensors(parts: Parts) -> bytes:
    header, data = _layout(parts)
    return parts.sealed(weights=written(header, data + b"evil"))


@hostile(NOT_READABLE)
def bytes_hidden_between_the_tensors(parts: Parts) -> bytes:
    header, data = _layout(parts)
    header["3.bias"]["data_offsets"] = [272, 284]
    return parts.sealed(weights=written(header, data[:268] + b"evil" + data[268:]))


@hostile(NOT_READABLE)
def weights_cut_short(parts: Parts) -> bytes:
    header, data = _layout(parts)
    return parts.sealed(weights=written(header, data[:-5]))


@hostile("more than|larger than|tensors")
def a_million_tensors(parts: Parts) -> bytes:
    entry = b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    text = b"{" + b",".join(entry % i for i in range(10**6)) + b"}"
    return parts.sealed(weights=written(text, b""))


@hostile("more than|larger than|metadata")
def metadata_of_many_megabytes(parts: Parts) -> bytes:
    header, data = _layout(parts)
    header["__metadata__"] = {"evil": "x" * (30 * 2**20)}
    return parts.sealed(weights=written(header, data))


@hostile("name")
def a_tensor_of_a_long_name(parts: Parts) -> bytes:
    parts.weights["w" * 5000] = torch.zeros(1)
    return parts.sealed()


@hostile("holds NaN")
def weights_that_are_nan(parts: Parts) -> bytes:
    parts.weights["0.weight"][3, 2] = float("nan")
    return parts.sealed()


@hostile("holds NaN")
def weights_of_half_precision_that_are_nan(parts: Parts) -> bytes:
    parts.weights["3.bias"] = torch.full((3,), float("nan"), dtype=torch.float16)
    return parts.sealed()


@hostile("neither 0 nor 1")
def truth_values_that_are_neither(parts: Parts) -> bytes:
    own, data = _layout(parts)
    span = [len(data), len(data) + 4]
    header = {"flags": {"dtype": "BOOL", "shape": [4], "data_offsets": span}}
    return parts.sealed(weights=written(own | header, data + b"\x00\x01\x07\xff"))


@hostile("does not run")
def weights_of_another_shape(parts: Parts) -> bytes:
    parts.weights["0.weight"] = torch.zeros(4, 8)
    return parts.sealed()


@hostile("does not run")
def weights_of_another_type(parts: Parts) -> bytes:
    parts.weights["0.weight"] = torch.zeros(8, 4, dtype=torch.int64)
    return parts.sealed()


@hostile("weight `0.weight` is not declared")
def a_weight_missing(parts: Parts) -> bytes:
    del parts.weights["0.weight"]
    return parts.sealed()
