"""What both ways ask of a graph: what depends on what, and where its last softmax is."""

from __future__ import annotations

from collections.abc import Sequence

from dubito_nn import Program

SIZES = ("aten.sym_size.int", "aten.sym_numel.default")
"""Operators that read sizes alone."""
NORMALISERS = {
    "aten.log_softmax.int": ("log_probs", "logits"),
    "aten._log_softmax.default": ("log_probs", "logits"),
    "aten.softmax.int": ("probs",),
    "aten._softmax.default": ("probs",),
}
"""Last operators that change nothing under the softmax that follows, by what is declared."""


def before_softmax(program: Program, output: str) -> str:
    """The node whose value has the moments that are asked for.

    Args:
        program: whose output has rows and classes.
        output: what it is declared to be.
    """
    name = program.outputs["output"]
    (node,) = (node for node in program.nodes if node.name == name)
    is_last = output in NORMALISERS.get(node.op, ()) and node.args[1] in (-1, 1)
    return next(node.references()) if is_last else name


def dependent(program: Program, ops: Sequence[str], stop: Sequence[str] = ()) -> frozenset[str]:
    """Names of the nodes that depend on a node of that kind, not counting what `stop` reads."""
    found: set[str] = set()
    for node in program.nodes:
        reads = () if node.op in stop else node.references()
        if node.op in ops or any(name in found for name in reads):
            found.add(node.name)
    return frozenset(found)
