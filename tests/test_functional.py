"""Graphs of plain layers are made functional without another recording, as torch makes them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from dubito_nn.capturing.capture import Captured, capture
from dubito_nn.capturing.declared import Declared
from dubito_nn.capturing.example import read_example
from dubito_nn.capturing.isolation import isolated
from dubito_nn.lifting.evaluated import evaluated
from dubito_nn.lifting.functional import functional
from dubito_nn.lifting.lift import lift
from dubito_nn.lifting.lower import _allowed_composites, lower_by_torch
from dubito_nn.program import to_json


class Residual(nn.Module):
    """A sum, whose name torch gives to its own sums of sizes first."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.dropout = nn.Linear(4, 4), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.inner(x))


class Written(nn.Module):
    """Writes in place, which a graph may not."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu_(x * 2)


def with_masks_of_channels() -> nn.Module:
    """Which torch makes of noise in a size of its own, and leaves out where nothing is dropped."""
    maps = nn.Sequential(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 2, 3), nn.Dropout2d(0.2))
    return nn.Sequential(*maps, nn.Flatten(), nn.AlphaDropout(0.1), nn.Linear(8, 2))


PLAIN = {
    "perceptron": lambda: (
        nn.Sequential(
            nn.Linear(4, 8), nn.GELU(), nn.Dropout(0.3), nn.LayerNorm(8), nn.Linear(8, 2)
        ),
        torch.randn(4, 4),
    ),
    "dropout at both ends, and none": lambda: (
        nn.Sequential(nn.Dropout(0.2), nn.Dropout(0.0), nn.Linear(4, 2), nn.Dropout(0.4)),
        torch.randn(4, 4),
    ),
    "maps": lambda: (
        nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.2)),
            *(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3)),
            *(nn.Linear(8, 3), nn.Softmax(-1)),
        ),
        torch.randn(4, 1, 8, 8),
    ),
}
OTHER = {
    "a sum": lambda: (Residual(), torch.randn(4, 4)),
    "written in place": lambda: (
        nn.Sequential(nn.Dropout(0.2), Written(), nn.Linear(4, 2)),
        torch.randn(4, 4),
    ),
    "masks of channels": lambda: (with_masks_of_channels(), torch.randn(4, 16)),
    "weights made of others": lambda: (
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)), nn.Dropout(0.2)),
        torch.randn(4, 4),
    ),
}


def captured_of(network: nn.Module, example: Tensor) -> Captured:
    declared = Declared("classification", "logits", None)
    inputs = read_example(network, example, None)
    return capture(network, inputs, declared=declared, output_name=None, features=None)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_graph_of_plain_layers_is_that_of_another_recording(kind: str) -> None:
    with isolated():
        captured = captured_of(*PLAIN[kind]())
        sampling = captured.trace("sampling")
        point = evaluated(sampling, captured)
        assert point is not None
        assert_same(sampling, captured, draw=True)
        assert_same(point, captured, draw=False)


def assert_same(recorded: ExportedProgram, captured: Captured, *, draw: bool) -> None:
    made = functional(recorded, _allowed_composites())
    assert made is not None
    found = lift(made, captured, draw=draw)
    expected = lift(lower_by_torch(recorded), captured, draw=draw)
    assert to_json(found.program) == to_json(expected.program)
    assert (found.sites, found.paths) == (expected.sites, expected.paths)
    assert found.weights.keys() == expected.weights.keys()


def test_masks_of_channels_are_left_to_torch_only_where_they_are_drawn() -> None:
    with isolated():
        captured = captured_of(*OTHER["masks of channels"]())
        assert_same(captured.trace("evaluation"), captured, draw=False)


@pytest.mark.parametrize("kind", OTHER)
def test_what_torch_would_record_otherwise_is_left_to_it(kind: str) -> None:
    with isolated():
        captured = captured_of(*OTHER[kind]())
        assert functional(captured.trace("sampling"), _allowed_composites()) is None
