"""Measuring a bundle: turns, fresh rows, errors against closed forms. No time is asserted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dubito.bench import BenchOrder, Limits, StudyRows, Timing, interleaved, study
from dubito.bench.accuracy import accuracy, method_error, methods_without_sampling, reference
from dubito.bench.latency import plain_forward
from dubito.engine import Engine, Sampling
from dubito.errors import InputError
from dubito_nn import export

from .conftest import NUM_FEATURES, Bundles
from .fields import SIDE, exported, network


def _clock(*ticks: float) -> Callable[[], float]:
    """A clock that advances by the ticks given, then by the last one."""
    times = iter(ticks)
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += next(times, ticks[-1])
        return now

    return clock


def _linear(tmp_path: Path) -> Engine:
    """y = Σ x_i m_i / (1 - p) with p = .5: mean Σ x_i, variance Σ x_i²."""
    head = nn.Linear(NUM_FEATURES, 1, bias=False)
    nn.init.ones_(head.weight)
    bundle = export(
        nn.Sequential(nn.Dropout(0.5), head),
        torch.randn(3, NUM_FEATURES),
        tmp_path / "linear.dubito",
        task="regression",
        output="mean",
    )
    return Engine.load(bundle, draw="iid")


def test_a_timing_gives_minimum_and_median() -> None:
    timing = Timing((0.3, 0.1, 0.2, 0.9))
    assert timing.minimum_s == 0.1
    assert timing.median_s == pytest.approx(0.25)


def test_sides_take_turns_and_never_see_the_same_rows_twice() -> None:
    calls: list[tuple[str, int]] = []
    numbers = iter(range(100))
    sides = {name: lambda rows, name=name: calls.append((name, rows)) for name in "ab"}
    steps: list[int] = []
    timings = interleaved(
        sides, lambda: next(numbers), Limits(repeats=2, least=2), step=lambda: steps.append(1)
    )
    assert [name for name, _ in calls] == ["a", "b"] * 3
    assert len({rows for _, rows in calls}) == len(calls) == len(steps)
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"a": 2, "b": 2}


def test_the_first_call_of_a_side_does_not_count() -> None:
    clock = _clock(0, 0, 50, 0, 1, 0, 2)
    timings = interleaved({"a": lambda rows: None}, lambda: 0, Limits(2, 1, 1e9), clock=clock)
    assert 50 not in timings["a"].seconds


def test_rounds_end_at_the_limit_but_not_before_the_least() -> None:
    timings = interleaved(
        {"a": lambda rows: None}, lambda: 0, Limits(repeats=9, least=3, limit_s=1), clock=_clock(5)
    )
    assert timings["a"].seconds == (5, 5, 5)


@pytest.mark.parametrize("limits", [{"repeats": 0}, {"least": 0}])
def test_no_rounds_at_all_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least 1 round"):
        Limits(**limits)


def test_rows_of_a_person_are_drawn_anew_for_every_batch(bundles: Bundles) -> None:
    rows = np.arange(10 * NUM_FEATURES, dtype=np.float32).reshape(10, NUM_FEATURES)
    pool = StudyRows.of(Engine.load(bundles("first")), rows)
    batches = pool.batches(64)
    (first,), (second,) = next(batches).values(), next(batches).values()
    assert not pool.is_made_up
    assert first.shape == (64, NUM_FEATURES)
    assert not torch.equal(first, second)
    assert set(map(tuple, first.tolist())) <= set(map(tuple, rows.tolist()))


def test_made_up_rows_say_so_and_wrong_ones_are_refused(bundles: Bundles) -> None:
    engine = Engine.load(bundles("first"))
    assert StudyRows.of(engine).is_made_up
    assert len(StudyRows.of(engine)) == 256
    with pytest.raises(InputError, match="expects rows of shape"):
        StudyRows.of(engine, np.zeros((2, NUM_FEATURES + 1)))


def test_the_plain_forward_pass_is_the_point_method(bundles: Bundles) -> None:
    engine = Engine.load(bundles("first"))
    rows = StudyRows.of(engine).first(5)
    point = engine.sample(rows, sampling=Sampling(1, method="point"))[0]
    torch.testing.assert_close(plain_forward(engine, rows), point)


def test_the_reference_has_the_mean_and_variance_of_the_passes_of_all_its_blocks(
    tmp_path: Path,
) -> None:
    engine = _linear(tmp_path)
    rows = StudyRows.of(engine, torch.randn(4, NUM_FEATURES)).first(4)
    found = reference(engine, rows, 800, limit_s=1e9)
    passes = torch.cat(
        [engine.sample(rows, sampling=Sampling(400, seed, draw="iid")) for seed in (1000, 1001)]
    ).double()
    assert found.num_samples == 800
    np.testing.assert_allclose(found.mean, passes.mean(0).numpy(), rtol=1e-6)
    np.testing.assert_allclose(found.variance, passes.var(0, correction=0).numpy(), rtol=1e-6)


def test_the_reference_stops_at_its_limit_with_the_passes_that_it_has(tmp_path: Path) -> None:
    engine = _linear(tmp_path)
    steps: list[int] = []
    rows = StudyRows.of(engine).first(2)
    found = reference(engine, rows, 4000, limit_s=2, step=steps.append, clock=_clock(0, 1))
    assert steps == [400, 800, 1200]
    assert found.num_samples == 1200


def test_stated_and_actual_error_agree_with_the_closed_form(tmp_path: Path) -> None:
    """σ / √T with σ² = Σ x²; 4 seeds x 64 rows whose masks are shared: within a factor of 2."""
    engine = _linear(tmp_path)
    rows = StudyRows.of(engine).first(64)
    (x,) = rows.values()
    many = reference(engine, rows, 8000, limit_s=1e9)
    found = accuracy(engine, rows, 256, many)
    true = x.square().sum(1).mean().sqrt().item() / 16
    assert found.error == pytest.approx(true, rel=0.5)
    assert found.standard_error_median == pytest.approx(x.norm(dim=1).median().item() / 16, rel=0.1)
    assert found.standard_error_max == pytest.approx(x.norm(dim=1).max().item() / 16, rel=0.2)
    assert many.error == pytest.approx(true * 16 / 8000**0.5, rel=0.05)


def test_weight_scaling_is_exact_on_a_linear_network(tmp_path: Path) -> None:
    engine = _linear(tmp_path)
    rows = StudyRows.of(engine).first(16)
    many = reference(engine, rows, 8000, limit_s=1e9)
    assert "point" in methods_without_sampling()
    found = method_error(engine, rows, "point", many)
    assert found.error is not None
    assert found.error < 5 * many.error
    assert (found.refused, found.deviation_error) == (None, None)


def test_numbers_at_positions_are_measured_by_every_position(tmp_path: Path) -> None:
    engine = Engine.load(exported(network(), tmp_path / "fields.dubito"))
    rows = StudyRows.of(engine).first(4)
    many = reference(engine, rows, 800, limit_s=1e9)
    assert many.mean.shape == many.variance.shape == (4, SIDE, SIDE, 2)
    found = method_error(engine, rows, "mc", many)
    assert found.deviation_error is not None
    assert 0 < found.deviation_error < 1


@pytest.mark.parametrize("name", ["first", "regression"])
def test_a_study_has_a_figure_for_every_t_and_b_and_method(bundles: Bundles, name: str) -> None:
    engine = Engine.load(bundles(name), seed=3)
    order = BenchOrder(samples=[8, 4, 8], batch=[3, 1], repeats=1, rows=5, reference=400)
    steps: list[tuple[str, int, int]] = []
    found = study(engine, StudyRows.of(engine), order, lambda *told: steps.append(told))
    assert [one.num_samples for one in found.accuracies] == [4, 8]
    allowed = [one.method for one in found.methods if one.refused is None]
    assert [(one.batch, one.method, one.num_samples) for one in found.latencies] == [
        (batch, method, count)
        for batch in (1, 3)
        for method, count in [
            ("plain", 1),
            *((method, 1) for method in allowed),
            ("mc", 4),
            ("mc", 8),
        ]
    ]
    assert found.at(1, "plain").forwards == 1.0
    for one in found.latencies:
        assert 0 < one.minimum_s <= one.median_s
    assert found.num_rows == 5
    assert {title for title, done, total in steps if done == total} == {
        *("reference", "errors", "latency, B = 1", "latency, B = 3")
    }


def test_without_a_reference_there_is_no_actual_error(bundles: Bundles) -> None:
    engine = Engine.load(bundles("first"))
    order = BenchOrder(samples=[4], batch=[1], repeats=1, rows=2, reference=0)
    found = study(engine, StudyRows.of(engine), order)
    assert (found.reference, found.reference_error) == (0, None)
    assert found.accuracies[0].error is None
    assert found.accuracies[0].standard_error_median > 0
    assert found.methods[0].error is None


def test_the_largest_t_within_a_budget_is_the_largest_whose_median_fits(bundles: Bundles) -> None:
    engine = Engine.load(bundles("first"))
    order = BenchOrder(samples=[4, 8], batch=[1], repeats=1, rows=2, reference=0)
    found = study(engine, StudyRows.of(engine), order)
    best = found.largest_within(1, 3600)
    assert best is not None
    assert best.num_samples == 8
    assert found.largest_within(1, 0) is None


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"samples": [1, 8]}, "`samples` expects numbers of at least 2, got 1"),
        ({"batch": []}, "`batch` expects numbers of at least 1, got none"),
        ({"rows": 0}, "`rows` expects numbers of at least 1"),
        ({"reference": 1}, "`reference` expects at least 2 passes"),
    ],
)
def test_an_order_out_of_bounds_is_refused(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        BenchOrder(**wrong)  # type: ignore[arg-type]
