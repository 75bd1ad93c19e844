"""Drawn numbers that decide what a network computes: every way is in the graph, with its chance."""

import random
import threading
from itertools import product
from random import random as drawn_alone

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dubito.engine import Engine, Sampling
from dubito_nn import ExportError, export
from dubito_nn.capturing.branching.python import drawn_by_torch

CHANCES = (0.3, 0.4, 0.25, 0.5)  # of a turn, in the order of `Turning`
PASSES = 2048


class Turning(nn.Module):
    """Four blocks that drawn numbers of four kinds skip, keep, exchange or negate."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(5))
        self.told: tuple[bool, ...] | None = None

    def turns(self) -> list[bool]:
        """Which blocks are turned in this pass; drawn, unless a test tells."""
        if self.told is not None:
            return list(self.told)
        return [
            torch.rand([]) < CHANCES[0],
            drawn_alone() < CHANCES[1],
            not np.random.uniform(0, 1) > CHANCES[2],  # noqa: NPY002 - as libraries do
            torch.rand(1).item() < CHANCES[3],
        ]

    def forward(self, x: Tensor) -> Tensor:
        never = torch.rand([]) < 0.0  # as where a configuration turns it off
        turns = self.turns() if self.training else [False] * 4
        for block, turn in zip(self.blocks[:2], turns[:2], strict=True):
            if not turn and not never:
                x = x + block(x)
        x = self.blocks[4](x) if turns[2] else self.blocks[2](x)
        if turns[3]:
            x = -x
        return x + self.blocks[3](x)


def test_every_way_is_in_the_graph_with_its_chance(tmp_path):
    torch.manual_seed(0)
    network, rows = Turning(), torch.randn(3, 4)
    path = tmp_path / "x.dubito"
    bundle = export(network, rows, path, task="regression", output="mean")
    drawn = [site for site in bundle.sites if site.distribution == "uniform"]
    assert [(site.shape, site.batch_dim) for site in drawn] == [((), 0)] * 4
    engine = Engine.load(path, timing_limit_s=0)
    passes = engine.sample({"x": rows}, sampling=Sampling(PASSES, draw="iid"))
    network.train()
    left = torch.ones(PASSES, dtype=torch.bool)
    with torch.no_grad():
        for turns in product([False, True], repeat=4):
            network.told = turns
            is_way = (passes - network(rows)).abs().flatten(1).amax(1) < 1e-5
            left &= ~is_way
            chance = np.prod([c if t else 1 - c for c, t in zip(CHANCES, turns, strict=True)])
            error = (chance * (1 - chance) / PASSES) ** 0.5
            # sixteen shares: one beyond 5 standard errors in 100,000 runs
            assert abs(float(is_way.double().mean()) - chance) < 5 * error, turns
    assert not left.any()
    network.eval()
    point = bundle.point.run({"x": rows}, bundle.weights)["output"]
    with torch.no_grad():
        torch.testing.assert_close(point, network(rows), atol=1e-5, rtol=1e-5)


class Deciding(nn.Module):
    """Does what a test tells it to."""

    def __init__(self, step: object) -> None:
        super().__init__()
        self.inner, self.other, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.dropout, self._step = nn.Dropout(0.5), step

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self._step(self, x))


def test_a_decision_of_evaluation_mode_stands_at_its_mean_in_the_point_graph(tmp_path):
    torch.manual_seed(0)
    network = Deciding(lambda n, x: n.inner(x) if torch.rand([]) < 0.3 else n.dropout(n.other(x)))
    rows = torch.randn(3, 4)
    bundle = export(network, rows, tmp_path / "x.dubito", task="regression", output="mean")
    with torch.no_grad():
        mean = network.head(0.3 * network.inner(rows) + 0.7 * network.other(rows))
    point = bundle.point.run({"x": rows}, bundle.weights)["output"]
    torch.testing.assert_close(point, mean, atol=1e-5, rtol=1e-5)


def test_other_threads_draw_from_python_as_ever_meanwhile():
    inside, outside = [], []
    with drawn_by_torch(Turning(), as_tensors=True):
        inside.append(random.random())
        thread = threading.Thread(target=lambda: outside.append(random.random()))
        thread.start()
        thread.join()
    assert isinstance(inside[0], Tensor)
    assert isinstance(outside[0], float)
    assert isinstance(drawn_alone(), float)


def nested(network: nn.Module, x: Tensor) -> Tensor:
    if torch.rand([]) < 0.5 and torch.rand([]) < 0.5:
        return network.inner(x)
    return network.dropout(x)


def until(network: nn.Module, x: Tensor) -> Tensor:
    while not torch.rand([]) < 0.5:
        x = -x
    return network.dropout(x)


REFUSED = {
    "other shapes": (
        lambda n, x: n.dropout(x if torch.rand([]) < 0.5 else x[:, :1]).expand(-1, 4),
        r"one of two ways.*shape.*layerdrop=0",
    ),
    "a second decision in one way alone": (nested, r"decides more often.*layerdrop=0"),
    "a loop that a draw ends": (until, r"decides by drawn numbers more than 128 times"),
    "an array of NumPy": (
        lambda n, x: n.dropout(x * torch.tensor(np.random.rand(4).tolist())),  # noqa: NPY002
        r"Python's `random` or NumPy.*apply_spec_augment=False",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_one_graph_cannot_stand_for_is_refused(case, tmp_path):
    step, message = REFUSED[case]
    path = tmp_path / "x.dubito"
    with pytest.raises(ExportError, match=message):
        export(Deciding(step), torch.randn(4, 4), path, task="regression", output="mean")
    assert not path.exists()
