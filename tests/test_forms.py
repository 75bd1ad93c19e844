"""Every form against the graph's plain interpreter, with the same masks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dubito.engine import Engine, Sampling
from dubito.engine.choice import options, timed
from dubito.engine.draws.masks import draw
from dubito.engine.forms import Linear, Skipped, Thinned, thinned
from dubito.engine.kernels.rates import Rates, rates
from dubito.engine.running.fold import Form, Packs
from dubito.engine.running.options import FormTiming, Option, in_use
from dubito.engine.running.passes import BUDGET_PARTS
from dubito_nn import Bundle, ExportError, export
from dubito_nn.dropout import StochasticDepth

POINTWISE: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "leaky": lambda: nn.LeakyReLU(0.2),
}


def exported(network: nn.Module, shape: Sequence[int], folder: Path) -> Bundle:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return export(
            network.eval(),
            torch.randn(4, *shape),
            folder / "network.dubito",
            task="classification",
            output="logits",
        )


def drawn(network: nn.Module, shape: Sequence[int], folder: Path) -> Bundle:
    """A random network's bundle; one whose dropout does nothing, as behind dead units, is left."""
    try:
        return exported(network, shape, folder)
    except ExportError:
        reject()


def reference(bundle: Bundle, inputs: Tensor, sampling: Sampling) -> Tensor:
    """One sample after the other, dense."""

    def passes(t: int) -> Tensor:
        def source(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            site = bundle.sites[index]
            own = draw(
                site,
                sampling.seed,
                range(t, t + 1),
                (1, *size[1:]),
                kind=sampling.draw,
                dtype=dtype,
            )
            return own.reshape(1, *size[1:]).expand(size)

        name = bundle.manifest.inputs[0].name
        with torch.no_grad():
            return bundle.sampling.run({name: inputs}, bundle.weights, source)["output"]

    return torch.stack([passes(t) for t in range(sampling.num_samples)])


def with_forms(
    engine: Engine, inputs: Tensor, sampling: Sampling, kind: type, *, is_stacked: bool = False
) -> Tensor:
    """What the engine answers where it must use every form of a kind."""
    read = engine.read_inputs(inputs)
    pieces = engine.pieces("shared", read)
    forms = tuple(option.form for option in pieces.options if isinstance(option.form, kind))
    assert forms, f"the plan offers no {kind.__name__}"
    if is_stacked:
        forms = tuple(replace(form, is_stacked=True) for form in forms if isinstance(form, Thinned))
    with torch.no_grad():
        trial = replace(pieces, forced=forms, packs=Packs(is_kept=True))
        samples = range(sampling.num_samples)
        tiles = trial.tiles(read, sampling, None)
        return torch.cat([torch.cat(list(tile.passes(samples))) for tile in tiles], dim=1)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    widths=st.lists(st.integers(2, 24), min_size=2, max_size=4),
    rate=st.sampled_from([0.05, 0.3, 0.5, 0.9]),
    name=st.sampled_from(sorted(POINTWISE)),
    bias=st.booleans(),
    rows=st.integers(1, 9) | st.just(65),
    samples=st.integers(2, 19),
    is_stacked=st.booleans(),
    is_kept=st.booleans(),
    seed=st.integers(0, 2**63 - 2),
)
def test_thinned_layers_answer_as_dense_masked_ones(
    tmp_path_factory: pytest.TempPathFactory,
    widths: list[int],
    rate: float,
    name: str,
    bias: bool,
    rows: int,
    samples: int,
    is_stacked: bool,
    is_kept: bool,
    seed: int,
) -> None:
    layers: list[nn.Module] = []
    for into, out in zip([5, *widths], widths, strict=False):
        layers += [nn.Linear(into, out, bias=bias), POINTWISE[name](), nn.Dropout(rate)]
    network = nn.Sequential(*layers, nn.Linear(widths[-1], 3))
    bundle = drawn(network, (5,), tmp_path_factory.mktemp("thinned"))
    inputs, sampling = torch.randn(rows, 5), Sampling(samples, seed)
    engine = Engine.load(bundle, seed=seed if is_kept else seed + 1)
    got = with_forms(engine, inputs, sampling, Thinned, is_stacked=is_stacked)
    torch.testing.assert_close(got, reference(bundle, inputs, sampling), atol=1e-4, rtol=1e-4)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    channels=st.integers(1, 6),
    out=st.integers(1, 6),
    kernel=st.sampled_from([1, 2, 3, (3, 1)]),
    stride=st.integers(1, 2),
    padding=st.integers(0, 1),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
    rows=st.integers(1, 5),
    seed=st.integers(0, 2**63 - 1),
)
def test_linear_convolutions_answer_as_dense_masked_ones(
    tmp_path_factory: pytest.TempPathFactory,
    channels: int,
    out: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    bias: bool,
    rows: int,
    seed: int,
) -> None:
    network = nn.Sequential(
        nn.Conv2d(2, channels, 3, padding=1),
        nn.Dropout2d(0.3),
        nn.Conv2d(channels, out, kernel, stride, padding, dilation, bias=bias),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(out, 3),
    )
    bundle = drawn(network, (2, 9, 7), tmp_path_factory.mktemp("linear"))
    inputs, sampling = torch.randn(rows, 2, 9, 7), Sampling(6, seed)
    got = with_forms(Engine.load(bundle), inputs, sampling, Linear)
    torch.testing.assert_close(got, reference(bundle, inputs, sampling), atol=1e-4, rtol=1e-4)


class Block(nn.Module):
    """relu(x + drop(f(x))), with dropout of units inside the branch where asked for."""

    def __init__(self, width: int, drop_prob: float, *, inner: bool) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(0.2) if inner else nn.Identity(),
            nn.Linear(width, width),
        )
        self.path = StochasticDepth(drop_prob)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(x + self.path(self.branch(x)))


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    drop_prob=st.sampled_from([0.1, 0.5, 0.95]),
    inner=st.booleans(),
    depth=st.integers(2, 4),
    rows=st.integers(1, 5),
    seed=st.integers(0, 2**63 - 1),
)
def test_skipped_branches_answer_as_dense_masked_ones(
    tmp_path_factory: pytest.TempPathFactory,
    drop_prob: float,
    inner: bool,
    depth: int,
    rows: int,
    seed: int,
) -> None:
    blocks = [Block(6, drop_prob, inner=inner) for _ in range(depth)]
    network = nn.Sequential(nn.Linear(4, 6), *blocks, nn.Linear(6, 3))
    bundle = drawn(network, (4,), tmp_path_factory.mktemp("skipped"))
    inputs, sampling = torch.randn(rows, 4), Sampling(7, seed)
    got = with_forms(Engine.load(bundle), inputs, sampling, Skipped)
    torch.testing.assert_close(got, reference(bundle, inputs, sampling), atol=1e-4, rtol=1e-4)


class Skipping(nn.Module):
    """Layers that a drawn number skips, with dropout of units inside."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Dropout(p)) for p in (0.3, 0.2, 0.3, 0.2)
        )
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        for number, layer in enumerate(self.layers):
            if number in (1, 2):
                x = layer(x) if torch.rand([]) < 0.4 else x
            elif not torch.rand([]) < 0.3:
                x = layer(x)
        return self.head(x)


@pytest.mark.parametrize("seed", [1, 2])
def test_layers_that_a_drawn_number_skips_are_not_computed_and_answer_as_if(
    skipping: Engine, seed: int
) -> None:
    inputs, sampling = torch.randn(3, 4), Sampling(7, seed)
    got = with_forms(skipping, inputs, sampling, Skipped)
    dense = replace(skipping.pieces("shared", {"x": inputs}), forced=())
    assert [option.form.where for option in dense.options] == [False, True, True, False]
    (tile,) = dense.tiles({"x": inputs}, sampling, None)
    torch.testing.assert_close(got, torch.cat(list(tile.passes(range(7)))), atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def skipping(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("skipping")
    return Engine.load(exported(Skipping(), (4,), path), timing_limit_s=0)


class Windows(nn.Module):
    """Residual attention in windows, which lie on the axis of the rows, around stochastic depth."""

    def __init__(self, *, inner: bool) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.path = StochasticDepth(0.3)
        self.dropout = nn.Dropout(0.2) if inner else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.embed(x)
        for _ in range(2):
            query, key, value = self.qkv(self.norm(hidden).reshape(-1, 2, 8)).chunk(3, -1)
            weights = self.dropout((query @ key.mT).softmax(-1))
            hidden = hidden + self.path(self.out(weights @ value).view_as(hidden))
        return self.head(hidden.mean(1))


@pytest.mark.parametrize("inner", [False, True])
def test_branches_of_several_windows_per_row_are_skipped_and_answer_as_dense_ones(
    inner: bool, tmp_path: Path
) -> None:
    engine = Engine.load(exported(Windows(inner=inner), (8, 4), tmp_path))
    inputs, sampling = torch.randn(3, 8, 4), Sampling(7, 1)
    got = with_forms(engine, inputs, sampling, Skipped)
    dense = replace(engine.pieces("shared", {"x": inputs}), forced=())
    (tile,) = dense.tiles({"x": inputs}, sampling, None)
    torch.testing.assert_close(got, torch.cat(list(tile.passes(range(7)))), atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(8, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 512), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(512, 3),
    )  # fmt: skip
    return exported(network, (8,), tmp_path_factory.mktemp("wide"))


@pytest.fixture(scope="module")
def engine(wide: Bundle) -> Engine:
    return Engine.load(wide, num_samples=8)


def test_dropped_units_are_estimated_to_save_what_they_save(engine: Engine) -> None:
    execution = engine.pieces("shared", engine.read_inputs(torch.randn(1, 8))).execution
    only_flops = Rates(flops_per_s=1.0, bytes_per_s=1e30, operator_s=0.0)
    (option,) = options(execution, only_flops, 8)
    # all of 512 x 512 at a quarter and 512 x 3 at a half, give or take the draws
    expected = (512 * 512 + 512 * 3) / (512 * 512 / 4 + 512 * 3 / 2)
    assert all(abs(timing.estimated / expected - 1) < 0.1 for timing in option.timings)


def test_weights_that_outgrow_their_share_of_the_memory_are_not_gathered(engine: Engine) -> None:
    (option,) = engine.pieces("shared", engine.read_inputs(torch.randn(1, 8))).options
    pays = replace(option, timings=(FormTiming(1, 2.0, 2.0, 2.0),))
    assert in_use([pays], 4, 8, 8 * pays.packed_bytes, packed=True) == (option.form,)
    assert in_use([pays], 4, 9, 8 * pays.packed_bytes, packed=True) == ()


def test_a_form_pays_from_the_rows_on_from_which_it_always_did(engine: Engine) -> None:
    (option,) = engine.pieces("shared", engine.read_inputs(torch.randn(1, 8))).options
    clocked = (
        FormTiming(1, 3.0, 2.0, 2.0),
        FormTiming(4, 3.0, 0.5, 0.5),
        FormTiming(8, 3.0, 1.5, 0.7),
    )
    paying = replace(option, timings=clocked)
    # on the straight line between the logarithms: 4 rows · 2^(log(1.1 / .5) / log 3) = 6.6
    assert paying.least_rows() == 7
    assert paying.least_rows(packed=False) is None
    assert replace(option, timings=clocked[:1]).least_rows() == 1


def test_a_form_finds_its_rows_in_a_tile_or_is_not_used(engine: Engine) -> None:
    passes = engine.pieces("shared", engine.read_inputs(torch.randn(1, 8)))
    pays = replace(passes.options[0], timings=(FormTiming(16, 2.0, 2.0, 2.0),), packed_bytes=0)
    row_bytes = passes.execution.plan.suffix_row_bytes
    for in_tile, used in ((4, ()), (32, (pays.form,))):
        budget = BUDGET_PARTS * in_tile * row_bytes
        tiled = replace(passes, options=[pays], budget_bytes=budget)
        assert tiled.chosen(64, engine.defaults) == used


def test_the_clock_overrules_the_model(engine: Engine) -> None:
    (option,) = engine.pieces("shared", engine.read_inputs(torch.randn(1, 8))).options
    hopeful = replace(option, timings=(FormTiming(1, 5.0), FormTiming(4, 5.0)))

    def slower_with_forms(forms: tuple[Form, ...], rows: int, packed: bool) -> float:
        return 2.0e-3 if forms else 1.0e-3

    (checked,), is_whole = timed([hopeful], slower_with_forms)
    assert is_whole
    assert [timing.measured for timing in checked.timings] == [0.5, 0.5]
    assert checked.least_rows() is None


def test_a_form_without_hope_is_not_timed(engine: Engine) -> None:
    (option,) = engine.pieces("shared", engine.read_inputs(torch.randn(1, 8))).options
    hopeless = Option(option.form, (FormTiming(1, 0.1), FormTiming(4, 0.2)), 0)

    def never(forms: tuple[Form, ...], rows: int, packed: bool) -> float:
        raise AssertionError("timed all the same")

    assert timed([hopeless], never) == ([hopeless], True)


def test_what_there_was_no_time_for_is_left_to_the_model_and_timed_later(engine: Engine) -> None:
    (option,) = engine.pieces("shared", engine.read_inputs(torch.randn(1, 8))).options
    hopeful = replace(option, timings=(FormTiming(1, 5.0), FormTiming(4, 5.0)))
    calls: list[int] = []

    def run(forms: tuple[Form, ...], rows: int, packed: bool) -> float:
        calls.append(rows)
        return 1.0e-3 if forms else 2.0e-3

    assert timed([hopeful], run, lambda: True) == ([hopeful], False)
    assert not calls
    (half,), is_whole = timed([hopeful], run, lambda: bool(calls) and calls[-1] == 4)
    assert [timing.measured for timing in half.timings] == [2.0, None]
    assert not is_whole
    calls.clear()
    (done,), is_whole = timed([half], run)
    assert [timing.measured for timing in done.timings] == [2.0, 2.0]
    assert is_whole
    assert set(calls) == {4}


def test_slow_calls_are_timed_once_and_no_more_rows_are_tried(engine: Engine) -> None:
    (option,) = engine.pieces("shared", engine.read_inputs(torch.randn(1, 8))).options
    hopeful = replace(option, timings=(FormTiming(1, 5.0), FormTiming(4, 5.0)))
    calls: list[int] = []

    def slow(forms: tuple[Form, ...], rows: int, packed: bool) -> float:
        calls.append(rows)
        return 1.0 if forms else 3.0

    (checked,), is_whole = timed([hopeful], slow)
    assert is_whole
    assert [(timing.rows, timing.measured) for timing in checked.timings] == [(1, 3.0)]
    ways = 3 if hopeful.packed_bytes else 2
    assert calls == [1] * (2 * ways)  # the first of each way, and one turn


def test_weights_gathered_for_the_own_seed_are_kept_and_for_another_are_not(
    wide: Bundle,
) -> None:
    engine = Engine.load(wide, num_samples=4, seed=1)
    read = engine.read_inputs(torch.randn(3, 8))
    pieces = engine.pieces("shared", read)
    trial = replace(
        pieces, forced=tuple(option.form for option in pieces.options), packs=Packs(is_kept=True)
    )
    for seed, is_kept in ((2, False), (1, True)):
        for tile in trial.tiles(read, Sampling(4, seed), None):
            torch.cat(list(tile.passes(range(4))))
        assert bool(trial.packs) == is_kept


def test_few_rows_take_groups_of_samples_whose_weights_are_gathered_once(
    wide: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thinned, "has_fast_onednn", lambda: False)
    engine = Engine.load(wide, num_samples=20, timing_limit_s=0)
    pieces = engine.pieces("shared", engine.read_inputs(torch.randn(1, 8)))
    (option,) = pieces.options
    trial = replace(pieces, forced=(option.form,), packs=Packs(is_kept=True))
    for rows, samples, kept in ((1, 20, 3), (64, 20, 3), (9, 16, 3), (9, 12, 4), (65, 20, 24)):
        read = engine.read_inputs(torch.randn(rows, 8))
        for tile in trial.tiles(read, Sampling(samples), None):
            torch.cat(list(tile.passes(range(samples))))
        assert len(trial.packs) == kept, (rows, samples)


def test_a_device_is_measured_once_and_is_faster_than_nothing() -> None:
    found = rates(torch.device("cpu"))
    assert found is rates(torch.device("cpu"))
    assert min(found.flops_per_s, found.bytes_per_s, found.operator_s) > 0
