"""An engine pinned to a choice computes the same bits whatever the clock says elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dubito.engine import Engine, Sampling
from dubito.engine.pinning import Choice, arithmetic, choose, pinned

from .conftest import NUM_FEATURES, Bundles

ROWS = torch.randn(40, NUM_FEATURES, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", ["mc", "point", "moments"])
def test_two_engines_with_one_choice_give_the_same_bits(bundles: Bundles, method: str) -> None:
    sampling = Sampling(1 if method != "mc" else 32, method=method)  # type: ignore[arg-type]
    first, second = (Engine.load(bundles("first")) for _ in range(2))
    read = first.read_inputs(ROWS)
    count = len(first.pieces("shared", read).options)
    choice = Choice(tuple(range(count)), 0.5)
    assert Choice.from_json(choice.to_json()) == choice
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
