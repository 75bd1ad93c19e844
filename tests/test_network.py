"""One engine or several: what can be asked of both, and the view whose calls wait their turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest
import torch

from dubito.engine import Engine, Ensemble, Sampling
from dubito.engine.network import Behind, Check, Network, num_values
from dubito_nn import Bundle, export
from dubito_nn.networks import MLP

T = TypeVar("T")
ROWS = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
SAMPLING = Sampling(4, 3)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, ...]:
    made = []
    for seed in range(2):
        torch.manual_seed(seed)
        path = tmp_path_factory.mktemp("networks") / "network.dubito"
        asked = {"task": "classification", "output": "logits", "features": "body"}
        made.append(export(MLP(5, (8,), 3), torch.randn(4, 5), path, **asked))
    return tuple(made)


def networks(bundles: tuple[Bundle, ...]) -> list[Network]:
    one, other = (Engine.load(bundle) for bundle in bundles)
    return [one, Ensemble((one, other))]


@pytest.mark.parametrize("at", [0, 1])
def test_a_network_tells_its_size_whatever_it_is_made_of(
    bundles: tuple[Bundle, ...], at: int
) -> None:
    network = networks(bundles)[at]
    assert len(network.members) == at + 1
    assert network.device == torch.device("cpu")
    assert network.shares_features == (at == 0)
    assert num_values(network, SAMPLING, 6) == network.sample(ROWS, sampling=SAMPLING).numel()
    same = network.with_members(network.members)
    got = [one.predict(ROWS, sampling=SAMPLING).mean for one in (network, same)]
    np.testing.assert_array_equal(*got)


@pytest.mark.parametrize("at", [0, 1])
def test_every_call_behind_others_is_one_turn_with_the_check_of_that_turn(
    bundles: tuple[Bundle, ...], at: int
) -> None:
    network = networks(bundles)[at]
    turns, checks = 0, 0

    def turn(task: Callable[[Check], T]) -> T:
        nonlocal turns
        turns += 1
        return task(count)

    def count() -> None:
        nonlocal checks
        checks += 1

    def never() -> None:
        raise AssertionError("a turn has a check of its own")

    view = Behind(network, turn)
    read = view.read_inputs(ROWS)
    assert view.numbers_per_row() == 3
    assert (turns, checks) == (0, 0)
    got = view.predict(read, sampling=SAMPLING, keep_samples=True, check=never)
    wanted = network.predict(read, sampling=SAMPLING, keep_samples=True)
    assert got.samples is not None
    np.testing.assert_array_equal(got.samples, wanted.samples)
    assert torch.equal(
        view.sample(read, sampling=SAMPLING, check=never), network.sample(read, sampling=SAMPLING)
    )
    assert turns == 2
    assert checks >= 2 * len(network.members)
    if network.shares_features:
        assert torch.equal(view.features(read, check=never), network.features(read))
        assert turns == 3
