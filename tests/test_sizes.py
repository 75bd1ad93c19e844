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


@pytest.mark.parametrize("addition", list(ADDITIONS))
@pytest.mark.parametrize("graph", ["sampling", "point"])
def test_a_value_of_terabytes_is_refused_before_it_is_made(
    bundle: Bundle, addition: str, graph: str
) -> None:
    program = with_nodes(getattr(bundle, graph), *ADDITIONS[addition]())
    with pytest.raises(BundleRefusedError, match=r"node `huge` .* makes \d{13,} bytes"):
        Engine.load(replace(bundle, **{graph: program}))


def test_a_graph_that_does_not_fit_together_is_refused_with_the_node_before(
    bundle: Bundle,
) -> None:
    program = with_nodes(bundle.sampling, zeros((5, 7)))
    with pytest.raises(BundleRefusedError, match="the node after `huge` fails"):
        Engine.load(replace(bundle, sampling=program))


def test_a_bundle_in_a_file_of_its_own_still_loads(bundle: Bundle, tmp_path: Path) -> None:
    assert Engine.load(bundle).predict(torch.randn(2, 6)).mean.shape == (2, 3)
