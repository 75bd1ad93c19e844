"""What an engine is given wrongly is refused by name, and the next call works."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from dubito.engine import Engine, Sampling
from dubito.errors import InputError

from .conftest import NUM_FEATURES, Bundles

ROWS = torch.zeros(2, NUM_FEATURES)
BAD_LOADS: dict[str, Callable[[str], object]] = {
    "num_samples": lambda path: Engine.load(path, num_samples=0),
    "num_samples of text": lambda path: Engine.load(path, num_samples="8"),  # type: ignore[arg-type]
    "seed": lambda path: Engine.load(path, seed=-1),
    "masks": lambda path: Engine.load(path, masks="z"),  # type: ignore[arg-type]
    "draw": lambda path: Engine.load(path, draw="z"),  # type: ignore[arg-type]
    "memory_budget_bytes": lambda path: Engine.load(path, memory_budget_bytes=0),
    "memory_budget_bytes of 1e6": lambda path: Engine.load(path, memory_budget_bytes=1e6),  # type: ignore[arg-type]
    "memory_budget_bytes of True": lambda path: Engine.load(path, memory_budget_bytes=True),
    "proof_limit_s": lambda path: Engine.load(path, proof_limit_s="x"),  # type: ignore[arg-type]
    "device": lambda path: Engine.load(path, device="gpu"),
    "device without numbers": lambda path: Engine.load(path, device="meta"),
    "source": lambda path: Engine.load(3),  # type: ignore[arg-type]
}
BAD_CALLS: dict[str, Callable[[Engine], object]] = {
    "sampling": lambda engine: engine.predict(ROWS, sampling=64),  # type: ignore[arg-type]
    "sampling, an empty one": lambda engine: engine.predict(ROWS, sampling={}),  # type: ignore[arg-type]
    "temperature": lambda engine: engine.predict(ROWS, temperature="1"),  # type: ignore[arg-type]
    "temperature beyond floats": lambda engine: engine.predict(ROWS, temperature=10**400),
    "temperature of True": lambda engine: engine.predict(ROWS, temperature=True),
    "temperature below floats": lambda engine: engine.predict(ROWS, temperature=1e-310),
    "input": lambda engine: engine.predict(ROWS + 5j),
    "input without entries": lambda engine: engine.predict(ROWS.to_sparse()),
    "input without numbers": lambda engine: engine.predict(ROWS.to("meta")),
}


@pytest.mark.parametrize("case", BAD_LOADS)
def test_a_wrong_argument_of_load_is_named_and_not_blamed_on_the_bundle(
    case: str, bundles: Bundles
) -> None:
    with pytest.raises(InputError, match=f"`{case.split()[0].rstrip(',')}` expects"):
        BAD_LOADS[case](str(bundles("first")))


@pytest.mark.parametrize("case", BAD_CALLS)
def test_a_wrong_argument_of_predict_is_named_and_the_next_call_works(
    case: str, bundles: Bundles
) -> None:
    engine = Engine.load(bundles("first"), num_samples=4)
    with pytest.raises(InputError, match=rf"{case.split()[0].rstrip(',')}.* expects"):
        BAD_CALLS[case](engine)
    assert np.isfinite(engine.predict(ROWS).mean).all()


def test_a_temperature_of_numpy_is_a_number(bundles: Bundles) -> None:
    engine = Engine.load(bundles("first"), num_samples=4)
    one, other = (engine.predict(ROWS, temperature=at) for at in (2.0, np.float32(2)))
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-12)


@pytest.mark.parametrize("count", [2.0, 16.5, float("nan"), "16", None, True, 10**15])
def test_a_number_of_samples_that_is_none_is_refused(count: object) -> None:
    with pytest.raises(InputError, match="`num_samples` expects an integer"):
        Sampling(count)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [1.5, "1", None, True, 2**63])
def test_a_seed_that_is_no_integer_is_refused(seed: object) -> None:
    with pytest.raises(InputError, match="`seed` expects an integer"):
        Sampling(16, seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("tolerance", ["0.1", [0.1], True, 10**400, float("nan"), 0])
def test_a_tolerance_that_is_no_number_is_refused(tolerance: object) -> None:
    with pytest.raises(InputError, match="`tolerance` expects a number"):
        Sampling(16, tolerance=tolerance)  # type: ignore[arg-type]
