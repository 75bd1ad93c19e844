"""Torch walks once over a graph that plainly writes to nothing, and its result is the same."""

from __future__ import annotations

import gc

import pytest
import torch
import torch.fx.config
from torch import Tensor, fx, nn

from dubito_nn.capturing.isolation import isolated
from dubito_nn.lifting.unwritten import results_of, written_nowhere

from .test_functional import captured_of


class Called(nn.Module):
    """A function of the rows, behind a layer of weights."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.inner = name, nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = getattr(self, self.name)(x)
        return result

    def residual(self, x: Tensor) -> Tensor:
        """A sum, of which torch names others that no output reads."""
        return x + nn.functional.dropout(self.inner(x), 0.3, self.training)

    def in_place(self, x: Tensor) -> Tensor:
        """Writes to what it has made itself."""
        y = nn.functional.relu_(self.inner(x) * 2)
        y += x
        return y * 3

    def attended(self, x: Tensor) -> Tensor:
        """Sizes in views, and a copy where they cannot be views."""
        y = self.inner(x).view(x.shape[0], 2, 2).transpose(1, 2)
        return torch.softmax(y.reshape(x.shape[0], 4), -1)

    def to_the_input(self, x: Tensor) -> Tensor:
        """Writes to what the caller holds."""
        x.mul_(2)
        return self.inner(x)

    def to_a_view(self, x: Tensor) -> Tensor:
        """Writes to a part of what the caller holds."""
        x[:, 0] = 1.0
        return self.inner(x)

    def a_view(self, x: Tensor) -> Tensor:
        """Returns memory that it shares."""
        return self.inner(x).view(x.shape[0], 2, 2)

    def the_input(self, x: Tensor) -> Tensor:
        """Returns what it is given."""
        return x.type_as(self.inner(x))


def graph_of(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[object], int]:
    """The nodes of a functional graph, and how many steps torch took."""
    captured = captured_of(Called(name), torch.randn(4, 4))
    recorded, steps = captured.trace("sampling"), list[fx.Node]()
    run_node = fx.Interpreter.run_node

    def counted(self: fx.Interpreter, node: fx.Node) -> object:
        steps.append(node)
        return run_node(self, node)

    with monkeypatch.context() as patched:
        patched.setattr(fx.Interpreter, "run_node", counted)
        made = recorded.run_decompositions({})
    told = [(n.name, str(n.target), str(n.args), str(n.kwargs)) for n in made.graph.nodes]
    return [*told, str(made.graph_signature)], len(steps)


@pytest.mark.parametrize("name", ["residual", "in_place", "attended"])
def test_a_graph_that_writes_to_its_own_is_walked_over_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with isolated():
        expected, steps = graph_of(name, monkeypatch)
        with written_nowhere():
            found, fewer = graph_of(name, monkeypatch)
    assert found == expected
    assert fewer == steps // 2


@pytest.mark.parametrize("name", ["to_the_input", "to_a_view", "a_view", "the_input"])
def test_what_writes_to_an_input_or_shares_memory_is_looked_at(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = torch.export.export(Called(name), (torch.randn(4, 4),)).graph
    assert results_of(graph) is None


def test_torch_and_the_collector_are_as_before_after_an_export() -> None:
    def settings() -> tuple[object, ...]:
        return gc.get_threshold(), torch.fx.config.do_not_emit_stack_traces

    before = settings()
    with isolated():
        changed = settings()
    assert settings() == before
    assert all(one != other for one, other in zip(before, changed, strict=True))
