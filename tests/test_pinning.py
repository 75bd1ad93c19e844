"""An engine pinned to a choice computes the same bits whatever the clock says elsewhere."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dubito.engine import Engine, Sampling
from dubito.engine.kernels.machine import arithmetic
from dubito.engine.pinning import FormChoice, choose, pinned
from dubito_nn import export

from .conftest import NUM_FEATURES, Bundles

ROWS = torch.randn(40, NUM_FEATURES, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", ["mc", "point", "moments"])
def test_two_engines_with_one_choice_give_the_same_bits(bundles: Bundles, method: str) -> None:
    sampling = Sampling(1 if method != "mc" else 32, method=method)  # type: ignore[arg-type]
    first, second = (Engine.load(bundles("first")) for _ in range(2))
    read = first.read_inputs(ROWS)
    count = len(first.pieces("shared", read).options)
    choice = FormChoice(tuple(range(count)), 0.5)
    assert FormChoice.from_json(choice.to_json()) == choice
    one, other = (
        pinned(engine, read, sampling, choice).predict(read, sampling=sampling)
        for engine in (first, second)
    )
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.variance, other.variance)
    free = first.predict(read, sampling=sampling)
    np.testing.assert_allclose(one.mean, free.mean, rtol=1e-4, atol=1e-6)


def test_what_an_engine_chooses_is_what_it_does(bundles: Bundles) -> None:
    engine, sampling = Engine.load(bundles("second")), Sampling(32)
    read = engine.read_inputs(ROWS)
    found = pinned(engine, read, sampling, choose(engine, read, sampling))
    np.testing.assert_array_equal(
        found.predict(read, sampling=sampling).mean, engine.predict(read, sampling=sampling).mean
    )
    assert arithmetic(engine.device)["threads"] == torch.get_num_threads()


def test_masks_that_are_not_shared_are_those_of_the_rows_places(bundles: Bundles) -> None:
    engine, sampling = Engine.load(bundles("first")), Sampling(16, masks="independent")
    whole = engine.predict(ROWS, sampling=sampling)
    read = engine.read_inputs(ROWS[25:])
    choice = choose(engine, read, sampling)
    for first, is_same in ((25, True), (0, False)):
        part = pinned(engine, read, sampling, choice, first=first).predict(read, sampling=sampling)
        assert np.allclose(part.mean, whole.mean[25:], rtol=1e-4, atol=1e-6) == is_same


@pytest.fixture(scope="module")
def perceptron(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose plan allows a thinned form."""
    path = tmp_path_factory.mktemp("pinning") / "perceptron.dubito"
    torch.manual_seed(0)
    layers = (nn.Linear(NUM_FEATURES, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 32), nn.ReLU())
    network = nn.Sequential(*layers, nn.Dropout(), nn.Linear(32, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(network, ROWS[:3], path, task="classification", output="logits")
    return path


def test_a_pinned_engine_keeps_the_weights_that_its_forms_gather_for_any_seed(
    perceptron: Path,
) -> None:
    engine, sampling = Engine.load(perceptron), Sampling(8, seed=5)
    read = engine.read_inputs(ROWS)
    fixed = pinned(engine, read, sampling, FormChoice((0,), 1.0))
    found = fixed.predict(read, sampling=sampling)
    assert fixed.pieces("shared", read).packs
    assert not engine.pieces("shared", read).packs
    free = engine.predict(read, sampling=sampling)
    np.testing.assert_allclose(found.mean, free.mean, rtol=1e-4, atol=1e-6)


def test_a_bundle_that_is_loaded_again_uses_the_forms_it_used_before(perceptron: Path) -> None:
    first, second = (Engine.load(perceptron, num_samples=9) for _ in range(2))
    timings = [
        [option.timings for option in engine.pieces("shared", engine.read_inputs(ROWS)).options]
        for engine in (first, second)
    ]
    assert timings[0]
    assert timings[0] == timings[1]
    np.testing.assert_array_equal(first.predict(ROWS).mean, second.predict(ROWS).mean)
