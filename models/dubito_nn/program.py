"""A lifted graph as data: nodes, their JSON, and the interpreter that runs them.

Its job: hold f(x, ω) as a list of nodes in order of execution, write it as JSON, read it back from
a stranger's file without evaluating anything, and run it.

A node's `op` is an allowed operator (`dubito_nn.operators`) or one of three of our own:

    input    args (name,)                 one of the network's inputs, rows first
    weight   args (key,)                  a tensor of the bundle, by its name in the network
    site     args (index, size, dtype)    the draw ω of one site, in the full size with the rows
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from dubito_nn.errors import BundleError
from dubito_nn.operators import (
    ALLOWED,
    MAX_INTEGER,
    RESTRICTED,
    argument_names,
    makes_from_nothing,
    marked_arguments,
    resolve,
)

OWN_OPS = frozenset({"input", "weight", "site"})
MAX_NODES = 20_000  # a proof looks at each several times
MAX_NAME = 256
MAX_NESTING = 4
MAX_LIST = 100_000

_DTYPES = (
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
    *("float16", "bfloat16", "float32", "float64"),
)
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in _DTYPES}
_FORMATS: dict[str, torch.memory_format] = {
    name: getattr(torch, name) for name in ("contiguous_format", "preserve_format", "channels_last")
}


@dataclass(frozen=True, slots=True)
class Ref:
    """The value of an earlier node."""

    name: str


@dataclass(frozen=True, slots=True)
class OnDevice:
    """Stands where a graph names a device: the one the graph runs on."""


Argument: TypeAlias = (
    "bool | int | float | str | Ref | OnDevice | torch.dtype | torch.layout"
    " | torch.memory_format | tuple[Argument, ...] | None"
)
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Value: TypeAlias = "Tensor | int | float | bool | tuple[Value, ...] | list[Value] | None"
SiteSource: TypeAlias = Callable[[int, tuple[int, ...], torch.dtype], Tensor]


@dataclass(frozen=True, slots=True)
class Node:
    """One step: the name of its value, its operator and its arguments."""

    name: str
    op: str
    args: tuple[Argument, ...] = ()
    kwargs: Mapping[str, Argument] = field(default_factory=dict)

    def references(self) -> Iterator[str]:
        """Names of the nodes whose values this one reads."""
        yield from references((*self.args, *self.kwargs.values()))


@dataclass(frozen=True)
class Program:
    """A pure function of inputs, weights and draws: nodes in order, and what they return."""

    nodes: tuple[Node, ...]
    outputs: Mapping[str, str]

    def of_kind(self, op: str) -> tuple[Node, ...]:
        """All nodes with that operator, in order."""
        return tuple(node for node in self.nodes if node.op == op)

    def run(
        self,
        inputs: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        draws: SiteSource | None = None,
        *,
        device: str | torch.device = "cpu",
        watch: Callable[[Node, Value], None] | None = None,
    ) -> dict[str, Tensor]:
        """Run every node once and return the outputs by name.

        Args:
            inputs: tensors by input name, rows first.
            weights: tensors by weight key.
            draws: gives ω for (site index, full size, dtype); needed where the graph has sites.
            device: where constants are made.
            watch: is shown every node with its value, in order.
        """
        values: dict[str, Value] = {}
        last_use = self.last_uses
        for position, node in enumerate(self.nodes):
            values[node.name] = step(node, values, inputs, weights, draws, device)
            if watch is not None:
                watch(node, values[node.name])
            for name in last_use.get(position, ()):
                del values[name]
        return {key: _as_tensor(values[name]) for key, name in self.outputs.items()}

    @cached_property
    def last_uses(self) -> Mapping[int, Sequence[str]]:
        """Names of the values that are read for the last time, by position of the reader."""
        last = {node.name: position for position, node in enumerate(self.nodes)}
        for position, node in enumerate(self.nodes):
            for name in node.references():
                last[name] = position
        served = set(self.outputs.values())
        dying: dict[int, list[str]] = {}
        for name, position in last.items():
            if name not in served:
                dying.setdefault(position, []).append(name)
        return dying


def step(
    node: Node,
    values: Mapping[str, Value],
    inputs: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    draws: SiteSource | None,
    device: str | torch.device,
) -> Value:
    """The value of one node, given those before it."""
    if node.op == "input":
        return inputs[_text(node.args[0])]
    if node.op == "weight":
        return weights[_text(node.args[0])]
    args = [bind(argument, values, device) for argument in node.args]
    if node.op == "site":
        if draws is None:
            raise ValueError(f"the graph draws at `{node.name}`, but no source of draws was given")
        index, size, dtype = args
        return draws(index, tuple(size), dtype)  # type: ignore[arg-type]
    kwargs = {key: bind(argument, values, device) for key, argument in node.kwargs.items()}
    result: Value = resolve(node.op)(*args, **kwargs)  # type: ignore[assignment]
    return result


def bind(argument: Argument, values: Mapping[str, Value], device: str | torch.device) -> object:
    """An argument with references replaced by values."""
    if isinstance(argument, Ref):
        return values[argument.name]
    if isinstance(argument, tuple):
        return [bind(item, values, device) for item in argument]
    return torch.device(device) if isinstance(argument, OnDevice) else argument


def references(argument: Argument) -> Iterator[str]:
    """Names that an argument refers to, at any depth."""
    if isinstance(argument, Ref):
        yield argument.name
    elif isinstance(argument, tuple):
        for item in argument:
            yield from references(item)


def doubled(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inputs or weights with their floating-point numbers in float64."""
    return {k: x.double() if x.is_floating_point() else x for k, x in tensors.items()}


def pruned(program: Program) -> Program:
    """The program without the nodes that no output depends on; inputs stay."""
    needed = set(program.outputs.values())
    nodes: list[Node] = []
    for node in reversed(program.nodes):
        if node.name in needed or node.op == "input":
            nodes.append(node)
            needed.update(node.references())
    return Program(tuple(reversed(nodes)), program.outputs)


def to_json(program: Program) -> dict[str, Json]:
    """The program as plain JSON values."""
    nodes: list[Json] = []
    for node in program.nodes:
        entry: dict[str, Json] = {"name": node.name, "op": node.op}
        entry["args"] = [_encode(argument) for argument in node.args]
        if node.kwargs:
            entry["kwargs"] = {key: _encode(value) for key, value in node.kwargs.items()}
        nodes.append(entry)
    return {"nodes": nodes, "outputs": dict(program.outputs)}


def from_json(raw: object, *, where: str) -> Program:
    """Read a program from parsed JSON, trusting nothing.

    Raises:
        BundleError: naming the first node that breaks a rule.
    """
    table = _object(raw, where, {"nodes", "outputs"})
    entries = table["nodes"]
    if not isinstance(entries, list) or not entries or len(entries) > MAX_NODES:
        raise BundleError(f"{where}: expects 1 to {MAX_NODES} nodes in a list: export it again")
    defined: set[str] = set()
    nodes = [_read_node(entry, defined, where) for entry in entries]
    outputs = _object(table["outputs"], f"{where}: outputs", None)
    if "output" not in outputs or not set(outputs) <= {"output", "features"}:
        raise BundleError(f"{where}: outputs expects `output` and at most `features`")
    named = {key: _name(value, f"{where}: outputs") for key, value in outputs.items()}
    for name in named.values():
        if name not in defined:
            raise BundleError(f"{where}: outputs name `{name[:80]}`, which no node defines")
    return Program(tuple(nodes), named)


def _read_node(raw: object, defined: set[str], where: str) -> Node:
    """Read one node, which may name no other than those `defined` before it."""
    table = _object(raw, f"{where}: a node", None)
    if not {"name", "op", "args"} <= set(table) <= {"name", "op", "args", "kwargs"}:
        raise BundleError(f"{where}: a node expects the fields name, op, args and maybe kwargs")
    name, op = _name(table["name"], where), _name(table["op"], where)
    where = f"{where}: node `{name[:80]}`"
    if name in defined:
        raise BundleError(f"{where} is defined twice")
    if op not in OWN_OPS and op not in ALLOWED:
        raise BundleError(
            f"{where} names the operator `{op[:80]}`, which is not on the allow-list:"
            " export the network with this version of dubito_nn"
        )
    raw_args, raw_kwargs = table["args"], _object(table.get("kwargs", {}), where, None)
    if not isinstance(raw_args, list):
        raise BundleError(f"{where}: args expects a list, got {type(raw_args).__name__}")
    args = tuple(_decode(item, defined, where, 0) for item in raw_args)
    kwargs = {_name(key, where): _decode(x, defined, where, 0) for key, x in raw_kwargs.items()}
    if op not in OWN_OPS and makes_from_nothing(op):
        kwargs["device"] = OnDevice()  # where the graph runs, also when it runs without numbers
    node = Node(name, op, args, kwargs)
    _check_own_arguments(node, where)
    _check_marked(node, where)
    _check_restricted(node, where)
    if op == "aten.instance_norm.default":
        _check_instance_norm(node, where)
    defined.add(name)
    return node


def _check_own_arguments(node: Node, where: str) -> None:
    if node.op not in OWN_OPS:
        return
    shape = tuple(type(argument) for argument in node.args)
    expected = (int, tuple, torch.dtype) if node.op == "site" else (str,)
    if node.kwargs or shape != expected:
        raise BundleError(f"{where}: `{node.op}` expects {[t.__name__ for t in expected]}")
    if node.op == "site":
        size = node.args[1]
        if not isinstance(size, tuple) or not all(type(d) in (int, Ref) for d in size):
            raise BundleError(f"{where}: a site's size expects integers or sizes of earlier nodes")


def _check_marked(node: Node, where: str) -> None:
    """What is a type, a layout or a memory format is given as one, never as a number."""
    marked = {} if node.op in OWN_OPS else marked_arguments(node.op)
    if not marked:
        return
    arguments = {**dict(zip(argument_names(node.op), node.args, strict=False)), **node.kwargs}
    for name, kind in marked.items():
        if arguments.get(name) is not None and not isinstance(arguments[name], kind):
            raise BundleError(f"{where}: `{node.op}` expects {name} as a {kind.__name__}")


def _check_restricted(node: Node, where: str) -> None:
    for name, position, allowed in RESTRICTED.get(node.op, ()):
        positional = node.args[position] if len(node.args) > position else allowed[0]
        for value in (positional, node.kwargs.get(name, allowed[0])):
            if value not in allowed:
                raise BundleError(
                    f"{where}: `{node.op}` expects {name} in {list(allowed)}, got {value}"
                )


def _check_instance_norm(node: Node, where: str) -> None:
    """With statistics of its input it would write to the running ones."""
    arguments = {**dict(zip(argument_names(node.op), node.args, strict=False)), **node.kwargs}
    if arguments.get("use_input_stats", True) is not False and any(
        arguments.get(name) is not None for name in ("running_mean", "running_var")
    ):
        raise BundleError(f"{where}: `{node.op}` expects use_input_stats false, or no statistics")


def _encode(argument: Argument) -> Json:
    if isinstance(argument, Ref):
        return {"ref": argument.name}
    if isinstance(argument, OnDevice):
        return {"device": None}
    if isinstance(argument, tuple):
        return [_encode(item) for item in argument]
    for kind in (torch.dtype, torch.layout, torch.memory_format):
        if isinstance(argument, kind):
            return {kind.__name__: str(argument).removeprefix("torch.")}
    if isinstance(argument, float) and not math.isfinite(argument):
        return {"float": str(argument)}
    if argument is None or isinstance(argument, (bool, int, float, str)):
        return argument
    raise TypeError(f"a graph cannot hold an argument of type {type(argument).__name__}")


def _decode(raw: object, defined: set[str], where: str, depth: int) -> Argument:
    if raw is None or isinstance(raw, (bool, float)):
        return raw
    if isinstance(raw, int):
        if abs(raw) > MAX_INTEGER:
            raise BundleError(f"{where}: expects integers of at most 64 bits")
        return raw
    if isinstance(raw, str):
        return _name(raw, where)
    if isinstance(raw, list):
        if depth >= MAX_NESTING or len(raw) > MAX_LIST:
            raise BundleError(f"{where}: a list too long or nested deeper than {MAX_NESTING}")
        return tuple(_decode(item, defined, where, depth + 1) for item in raw)
    return _decode_mark(_object(raw, where, None), defined, where)


def _decode_mark(mark: dict[str, object], defined: set[str], where: str) -> Argument:
    """Read an argument that JSON has no form for: a reference, a type, a number not finite."""
    if len(mark) != 1:
        raise BundleError(f"{where}: an argument object expects one key, got {len(mark)}")
    ((kind, value),) = mark.items()
    if kind == "device" and value is None:
        return OnDevice()
    text = _name(value, where)
    if kind == "ref":
        if text not in defined:
            raise BundleError(f"{where} refers to `{text[:80]}`, which no earlier node defines")
        return Ref(text)
    if kind == "dtype" and text in DTYPES:
        return DTYPES[text]
    if kind == "layout" and text == "strided":
        return torch.strided
    if kind == "memory_format" and text in _FORMATS:
        return _FORMATS[text]
    if kind == "float" and text in ("inf", "-inf", "nan"):
        return float(text)
    raise BundleError(f"{where}: unknown argument {{{kind[:40]!r}: {text[:40]!r}}}")


def _object(raw: object, where: str, keys: set[str] | None) -> dict[str, object]:
    if not isinstance(raw, dict):
        raise BundleError(f"{where}: expects an object, got {type(raw).__name__}")
    if keys is not None and set(raw) != keys:
        raise BundleError(f"{where}: expects the fields {sorted(keys)}, got {sorted(raw)[:10]}")
    return raw


def _name(raw: object, where: str) -> str:
    if not isinstance(raw, str) or not 0 < len(raw) <= MAX_NAME:
        raise BundleError(f"{where}: expects a text of 1 to {MAX_NAME} characters")
    return raw


def _text(argument: Argument) -> str:
    assert isinstance(argument, str)
    return argument


def _as_tensor(value: Value) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def sites_in(nodes: Sequence[Node]) -> list[int]:
    """Indices of the sites that the nodes draw at, in order."""
    return [int(node.args[0]) for node in nodes if node.op == "site"]  # type: ignore[arg-type]
