"""Tell what a network remembers from what it only scribbles on.

Its job: of the buffers that a functional graph writes to, those whose numbers its outputs read: a
state, which no served network has. What is overwritten before it is read (a buffer for noise), or
read by no output (a counter), is none, and the write is dropped.
"""

from __future__ import annotations

from torch import fx
from torch.export import ExportedProgram

from dubito_nn.operators import name_of

_OVERWRITING = """
normal_functional uniform exponential geometric cauchy log_normal random bernoulli.p
bernoulli.Tensor copy empty_like new_empty zeros_like ones_like full_like rand_like randn_like
randint_like new_zeros new_ones new_full sym_size
"""
_OVERWRITES = frozenset(_OVERWRITING.split())
"""Operators that read the size of their first argument alone."""


def remembered(program: ExportedProgram) -> list[str]:
    """Names of the buffers that the graph changes and whose numbers its outputs depend on."""
    signature = program.graph_signature
    changed = {target: name for name, target in signature.inputs_to_buffers.items()}
    read = _read_by(served_values(program))
    return [
        target for target in signature.buffers_to_mutate.values() if changed.get(target) in read
    ]


def served_values(program: ExportedProgram) -> list[object]:
    """What the graph returns, without what it writes to buffers and inputs."""
    (output,) = program.graph.find_nodes(op="output")
    specs = program.graph_signature.output_specs
    return [
        value
        for value, spec in zip(output.args[0], specs, strict=True)
        if spec.kind.name == "USER_OUTPUT"
    ]


def _read_by(values: list[object]) -> set[str]:
    """Names of the nodes whose numbers some values depend on."""
    waiting = [value for value in values if isinstance(value, fx.Node)]
    read = set[str]()
    while waiting:
        node = waiting.pop()
        if node.name not in read:
            read.add(node.name)
            waiting.extend(_sources(node))
    return read


def _sources(node: fx.Node) -> list[fx.Node]:
    parts = name_of(node.target).split(".") if node.op == "call_function" else []
    is_size_alone = bool(_OVERWRITES & {".".join(parts[1:2]), ".".join(parts[1:])})
    if not is_size_alone:
        return node.all_input_nodes
    first, rest = node.args[:1], node.args[1:]
    kept: list[fx.Node] = []
    fx.node.map_arg((rest, node.kwargs), kept.append)
    return [source for source in node.all_input_nodes if source in kept or source not in first]
