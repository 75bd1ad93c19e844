"""Graphs whose values would not fit are refused before anything is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dubito.engine import Engine
from dubito.errors import BundleRefusedError
from dubito_nn import Bundle, Program, export
from dubito_nn.program import Node, OnDevice, Ref


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    network = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    return export(
        network,
        torch.randn(4, 6),
        tmp_path_factory.mktemp("sizes") / "network.dubito",
        task="classification",
        output="logits",
    )


def with_nodes(program: Program, *nodes: Node) -> Program:
    """The program with nodes between it and its output, whose last value is added to the output."""
    last = Node("sum", "aten.add.Tensor", (Ref(program.outputs["output"]), Ref(nodes[-1].name)))
    return Program((*program.nodes, *nodes, last), {"output": "sum"})


def zeros(size: tuple[int, ...]) -> Node:
    kwargs = {"dtype": torch.float32, "device": OnDevice()}
    return Node("huge", "aten.zeros.default", (size,), kwargs)


HUGE = (10**6, 10**6)
ADDITIONS: dict[str, Callable[[], tuple[Node, ...]]] = {
    "zeros": lambda: (zeros(HUGE), Node("one", "aten.mean.default", (Ref("huge"),))),
    "arange": lambda: (
        Node("huge", "aten.arange.default", (10**12,), {"device": OnDevice()}),
        Node("one", "aten.amax.default", (Ref("huge"),)),
    ),
    "outer product": lambda: (
        Node("long", "aten.arange.default", (10**6,), {"device": OnDevice()}),
        Node("huge", "aten.outer.default", (Ref("long"), Ref("long"))),
        Node("one", "aten.amax.default", (Ref("huge"),)),
    ),
    "repeat": lambda: (
        Node("long", "aten.arange.default", (10**6,), {"device": OnDevice()}),
        Node("huge", "aten.repeat.default", (Ref("long"), (10**6,))),
        Node("one", "aten.amax.default", (Ref("huge"),)),
    ),
}


HOSTILE: dict[str, tuple[Node, ...]] = {
    "sizes multiplied for ever": (
        Node("n0", "aten.sym_size.int", (Ref("x0"), 0)),
        *(Node(f"n{i + 1}", "operator.mul", (Ref(f"n{i}"), Ref(f"n{i}"))) for i in range(40)),
        Node("one", "aten.scalar_tensor.default", (1.0,), {"device": OnDevice()}),
    ),
    "a size divided by zero": (
        Node("n0", "operator.floordiv", (1, 0)),
        Node("one", "aten.scalar_tensor.default", (1.0,), {"device": OnDevice()}),
    ),
    "an empty tensor in 10^8 parts": (
        zeros((0, 3)),
        Node("parts", "aten.chunk.default", (Ref("huge"), 10**8)),
        Node("one", "aten.scalar_tensor.default", (1.0,), {"device": OnDevice()}),
    ),
    "an empty tensor unbound to 10^8 parts": (
        zeros((10**8, 0)),
        Node("parts", "aten.unbind.int", (Ref("huge"),)),
        Node("one", "aten.scalar_tensor.default", (1.0,), {"device": OnDevice()}),
    ),
    "an expanded value summed over 10^12 entries": (
        zeros((1,)),
        Node("wide", "aten.expand.default", (Ref("huge"), (10**12,))),
        Node("one", "aten.sum.default", (Ref("wide"),)),
    ),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_what_would_never_end_is_refused_at_once(bundle: Bundle, name: str) -> None:
    first = bundle.sampling.of_kind("input")[0].name
    nodes = tuple(
        replace(node, args=tuple(Ref(first) if a == Ref("x0") else a for a in node.args))
        for node in HOSTILE[name]
    )
    with pytest.raises(BundleRefusedError):
        Engine.load(replace(bundle, sampling=with_nodes(bundle.sampling, *nodes)))


@pytest.mark.parametrize("addition", list(ADDITIONS))
@pytest.mark.parametrize("graph", ["sampling", "point"])
def test_a_value_of_terabytes_is_refused_before_it_is_made(
    bundle: Bundle, addition: str, graph: str
) -> None:
    program = with_nodes(getattr(bundle, graph), *ADDITIONS[addition]())
    with pytest.raises(
        BundleRefusedError, match=r"node `huge` .* brings two rows to \d{13,} bytes"
    ):
        Engine.load(replace(bundle, **{graph: program}))


def test_a_graph_that_does_not_fit_together_is_refused_with_the_node(
    bundle: Bundle,
) -> None:
    program = with_nodes(bundle.sampling, zeros((5, 7)))
    with pytest.raises(BundleRefusedError, match=r"its node `sum` \(aten.add.Tensor\) fails"):
        Engine.load(replace(bundle, sampling=program))


def test_a_bundle_in_a_file_of_its_own_still_loads(bundle: Bundle, tmp_path: Path) -> None:
    assert Engine.load(bundle).predict(torch.randn(2, 6)).mean.shape == (2, 3)


def test_a_larger_budget_takes_a_larger_graph(bundle: Bundle) -> None:
    nodes = (zeros((15 * 10**7,)), Node("one", "aten.mean.default", (Ref("huge"),)))
    large = replace(bundle, sampling=with_nodes(bundle.sampling, *nodes))
    with pytest.raises(BundleRefusedError, match="DUBITO_MEMORY_BUDGET_BYTES"):
        Engine.load(large, proof_limit_s=60)
    Engine.load(large, proof_limit_s=60, memory_budget_bytes=4 * 2**30)
