"""Numbers at every position: what the engine says of them, and what is promised."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dubito import ties
from dubito.calibration.choices import Choices
from dubito.calibration.heads import head_of
from dubito.calibration.heads.number_positions import NumberPositionHead
from dubito.calibration.promises.policy import Target
from dubito.calibration.promises.positions import Positions
from dubito.calibration.reading import Written
from dubito.calibration.record import Calibration
from dubito.calibration.sampled import Sampled
from dubito.calibration.terms import Terms
from dubito.engine import Engine, Ensemble, Regression, Sampling
from dubito.engine.draws.masks import draw
from dubito.errors import BundleRefusedError, InputError
from dubito.report import no_check, number_positions
from dubito.report.statistics import RowCounts
from dubito_nn import Bundle, export, load_bundle
from dubito_nn.bundle import bundle_bytes

from .fields import NOISE, SCALE, SIDE, exported, fields, network, trained
from .fits import fitted, judged, regression_figures, served_scores
from .test_coverage import check, coverages

Floats = NDArray[np.float64]
TOLERANCE = 1e-5
T = 16
SAMPLING = Sampling(T)
TERMS: dict[str, Any] = {"sampling": SAMPLING, "alpha": 0.1, "coverage": 0.9, "seed": 0}
HEAD = "dense_regression"
MEASURES = ("variance", "epistemic_variance", "aleatoric_variance", "standard_error")


class Forecast(nn.Module):
    """Series (B, S, 3) to a mean and a log-variance of every step, two of (B, S, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Dropout(0.3))
        self.head = nn.Linear(16, 2)

    def forward(self, series: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.head(self.body(series)).split(1, dim=-1)
        return mean, log_variance


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fields")


@pytest.fixture(scope="module")
def net() -> nn.Sequential:
    return trained()


@pytest.fixture(scope="module")
def bundle(folder: Path, net: nn.Sequential) -> Bundle:
    return exported(net, folder / "fields.dubito", target_scale=SCALE)


@pytest.fixture(scope="module")
def pair(folder: Path) -> Bundle:
    torch.manual_seed(1)
    return exported(
        network(4), folder / "pair.dubito", target_scale=SCALE, output="mean_and_log_variance"
    )


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return Engine.load(bundle, num_samples=T)


@dataclasses.dataclass(frozen=True)
class Passed:
    """Passes over rows with their targets, as `Sampled` has them."""

    passes: tuple[Floats, ...]
    target: Floats

    def rows(self, some: slice) -> tuple[tuple[Floats, ...], Floats]:
        return tuple(one[:, some] for one in self.passes), self.target[some]


@pytest.fixture(scope="module")
def passed(engine: Engine) -> Passed:
    rows, target = fields(900, seed=3)
    raw = engine.sample(rows, sampling=SAMPLING)
    parts = head_of(engine.manifest).parts(raw, engine.manifest)
    return Passed(tuple(part.numpy() for part in parts), target.reshape(len(target), -1, 2))


def by_hand(net: nn.Sequential, bundle: Bundle, rows: Tensor, sampling: Sampling) -> Tensor:
    """The network's own passes in float64, its one dropout replaced by the engine's masks."""
    first, relu, dropout, last = (module.double() for module in net)
    (site,) = bundle.sites
    size, independent = (12, 1, 1), sampling.masks == "independent"
    omega = draw(
        site,
        sampling.seed,
        range(sampling.num_samples),
        size,
        masks=sampling.masks,
        rows=range(len(rows)) if independent else range(1),
        kind=sampling.draw,
        dtype=torch.float64,
    )
    mask = omega if independent else omega.unsqueeze(1)
    with torch.no_grad():
        hidden = relu(first(rows.double())) * mask / (1 - dropout.p)
        raw: Tensor = last(hidden.flatten(0, 1))
    net.float()
    return raw.unflatten(0, (sampling.num_samples, len(rows)))


@pytest.mark.parametrize("masks", ["shared", "independent"])
@pytest.mark.parametrize("is_pair", [False, True])
def test_predictions_are_those_of_eager_passes_sampled_by_hand(
    net: nn.Sequential, bundle: Bundle, pair: Bundle, masks: Any, is_pair: bool
) -> None:
    """In float64, in target units; both variances add up, row by row and position by position."""
    if is_pair:
        torch.manual_seed(1)
        net, bundle = network(4), pair
    sampling, rows = Sampling(T, 5, masks), torch.from_numpy(fields(6, seed=9)[0])
    raw = by_hand(net, bundle, rows, sampling).movedim(2, -1)
    shift, factor = (torch.tensor(one, dtype=torch.float64) for one in SCALE)
    mean = shift + factor * raw[..., :2]
    noise = factor.square() * raw[..., 2:].exp() if is_pair else torch.zeros_like(mean)
    found = Engine.load(bundle).predict(rows, sampling=sampling, keep_samples=True)
    assert isinstance(found, Regression)
    assert found.positions is not None
    expected = {
        "epistemic_variance": mean.var(0, correction=0),
        "aleatoric_variance": noise.mean(0),
        "variance": mean.var(0, correction=0) + noise.mean(0),
    }
    close = {"atol": TOLERANCE, "rtol": TOLERANCE}
    np.testing.assert_allclose(found.mean, mean.mean(0), **close)
    np.testing.assert_allclose(found.samples, mean, **close)
    np.testing.assert_allclose(found.noise_samples, noise, **close)
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(found.positions, name), value, **close)
        np.testing.assert_allclose(getattr(found, name), value.mean((1, 2)), **close)
    each, row = found.positions.standard_error, found.standard_error
    assert each.shape == (6, SIDE, SIDE, 2)
    np.testing.assert_allclose(row, np.sqrt(np.square(each).mean((1, 2))))


def test_the_standard_error_of_independent_draws_is_that_of_the_samples(engine: Engine) -> None:
    rows = fields(3, seed=9)[0]
    found: Any = engine.predict(rows, sampling=Sampling(T, draw="iid"), keep_samples=True)
    expected = found.samples.std(0, ddof=1) / np.sqrt(T)
    np.testing.assert_allclose(found.positions.standard_error, expected, rtol=1e-9)


def test_the_point_method_is_the_network_in_evaluation_mode(
    net: nn.Sequential, engine: Engine
) -> None:
    rows = fields(3, seed=9)[0]
    found: Any = engine.predict(rows, sampling=Sampling(1, method="point"))
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(rows)).movedim(1, -1).numpy()
    np.testing.assert_allclose(found.mean, expected * SCALE[1] + SCALE[0], atol=TOLERANCE)
    assert not found.variance.any()


def test_moments_are_refused(engine: Engine) -> None:
    with pytest.raises(InputError, match=rf"{HEAD} head.*: use `mc`"):
        engine.predict(fields(1, seed=0)[0], sampling=Sampling(method="moments"))


def test_rows_answer_alone_as_they_do_together_and_within_any_budget(
    bundle: Bundle, engine: Engine
) -> None:
    rows = fields(80, seed=2)[0]
    tight = Engine.load(bundle, memory_budget_bytes=2**20)
    pieces = tight.pieces("shared", {"x": torch.from_numpy(rows)})
    assert pieces.most_rows < len(rows)
    full = tight.head.sum_bytes((2, 3, 512, 512), is_lean=False)
    together, few = (one.predict(rows, sampling=Sampling(32)) for one in (engine, tight))
    for name in ("mean", *MEASURES):
        np.testing.assert_allclose(getattr(together, name), getattr(few, name), atol=TOLERANCE)
    with pytest.raises(InputError, match=r"sums over the positions.*DUBITO_MEMORY_BUDGET_BYTES"):
        _ = dataclasses.replace(pieces, sum_bytes=(full, full)).most_rows


def test_rows_stop_at_a_tolerance_that_every_position_keeps(engine: Engine) -> None:
    rows = fields(8, seed=2)[0]
    loose: Any = engine.predict(rows, sampling=Sampling(800, tolerance=0.1))
    assert (loose.num_samples_used < 800).all()
    assert loose.positions.standard_error.max() <= 0.1


def test_an_ensemble_mixes_position_by_position(folder: Path, engine: Engine) -> None:
    torch.manual_seed(5)
    other = Engine.load(exported(network(), folder / "other.dubito"))
    rows, members = fields(5, seed=2)[0], (engine, other)
    found: Any = Ensemble(members).predict(rows, sampling=SAMPLING)
    means = [
        head_of(one.manifest)
        .parts(one.sample(rows, sampling=dataclasses.replace(SAMPLING, seed=place)), one.manifest)[
            0
        ]
        .numpy()
        for place, one in enumerate(members)
    ]
    both = np.concatenate(means)
    np.testing.assert_allclose(found.mean, both.mean(0), atol=TOLERANCE)
    np.testing.assert_allclose(found.positions.variance, both.var(0), atol=TOLERANCE)
    np.testing.assert_allclose(found.variance, both.var(0).mean((1, 2)), atol=TOLERANCE)
    axis_last = exported(nn.Sequential(network(), Last()), folder / "last.dubito", output_axis=-1)
    with pytest.raises(InputError, match=r"same axis of the outputs, got 1 .* and 3"):
        Ensemble((engine, Engine.load(axis_last)))


class Last(nn.Module):
    """Moves the outputs to the last axis."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.movedim(1, -1)


def test_a_forecast_may_have_any_length(folder: Path) -> None:
    torch.manual_seed(2)
    bundle = exported_forecast(folder)
    engine = Engine.load(bundle)
    for length in (3, 12):
        found: Any = engine.predict(torch.randn(2, length, 3), sampling=Sampling(4))
        assert found.mean.shape == found.positions.variance.shape == (2, length, 1)
        assert found.variance.shape == (2, 1)
        assert (found.aleatoric_variance > 0).all()


def exported_forecast(folder: Path) -> Bundle:
    return export(
        Forecast(),
        torch.randn(4, 6, 3),
        folder / "forecast.dubito",
        task="regression",
        output="mean_and_log_variance",
        output_axis=-1,
        free_dims={"series": {1: "length"}},
    )


def test_a_bundle_that_states_other_outputs_is_refused(bundle: Bundle) -> None:
    for changed in ({"num_outputs": 3, "target_scale": None}, {"output_axis": 4}):
        manifest = dataclasses.replace(bundle.manifest, **changed)
        content = bundle_bytes(manifest, bundle.sampling, bundle.point, bundle.weights)
        with pytest.raises(BundleRefusedError, match=r"the graph returns .* the manifest states"):
            Engine.load(load_bundle(content))


def test_the_noise_of_either_output_is_found_and_the_report_gains(passed: Passed) -> None:
    found = fitted(HEAD, *passed.rows(slice(0, 700)), **TERMS)
    assert isinstance(found.head, NumberPositionHead)
    np.testing.assert_allclose(np.sqrt(found.head.noise.variance), NOISE, rtol=0.15)
    before, after = found.report.before, found.report.after
    assert before["nll"] is None
    assert (after["crps"] or 9) < (before["crps"] or 0)
    assert after["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(NOISE))), rel=0.15)
    assert (after["interval_coverage"] or 0) > 0.9 - 4 * np.sqrt(0.09 / 175 + 0.09 / 140)


def test_figures_of_positions_are_those_of_so_many_rows(passed: Passed) -> None:
    """Without a promise all but `ause` are those of a regression with a row for each position."""
    some, target = passed.rows(slice(0, 60))
    noisy = (some[0], np.full_like(some[0], -1.0))
    found = judged(HEAD, noisy, target, calibration=None).report
    flat = [one.reshape(T, -1, 2) for one in noisy]
    expected = regression_figures(flat[0], np.exp(flat[1]), target.reshape(-1, 2), None, None)
    for name in ("rmse", "nll", "crps"):
        assert found[name] == pytest.approx(expected[name], rel=1e-9), name


def test_positions_that_nobody_measured_count_nowhere(passed: Passed) -> None:
    some, target = passed.rows(slice(0, 400))
    torn, wild = target.copy(), tuple(one.copy() for one in some)
    torn[:, 1, 1] = np.nan  # of one output, so of both
    wild[0][:, :, 0, 1] += 1e3 * passed.passes[0][:, :400, 0, 1].mean()
    left = np.delete(some[0].reshape(T, 400, 16, 2), 1, axis=2)
    own = np.delete(target, 1, axis=1)
    asked = {**TERMS, "score": None}
    one, other = fitted(HEAD, some, torn, **asked), fitted(HEAD, (left,), own, **asked)
    assert one.head.noise == other.head.noise  # type: ignore[attr-defined]
    assert one.conformal == other.conformal
    for name in ("rmse", "nll", "crps", "interval_coverage", "position_coverage"):
        assert one.report.after[name] == pytest.approx(other.report.after[name]), name


@pytest.mark.parametrize("share", [1.0, 0.75])
def test_intervals_of_rows_cover_as_promised_over_1000_splits(passed: Passed, share: float) -> None:
    """Coverage of rows, for each output on its own; 1 false alarm in 100,000 for each figure."""
    head = fitted(HEAD, *passed.rows(slice(0, 200)), **with_share(share)).head
    assert isinstance(head, NumberPositionHead)
    rows = head.checked(Sampled(*passed.rows(slice(200, 900))), None)
    mean_BPD, variance_BPD = rows.means.mean(axis=0), head.variance(rows)
    score_BPD = np.abs(rows.targets - mean_BPD) / np.sqrt(variance_BPD)
    place = int(np.ceil(share * 16)) - 1
    score_BD = np.sort(score_BPD, axis=1)[:, place]
    for output in range(2):
        for num_rows in (20, 100):
            covered_SA, _ = coverages(score_BD[:, output], num_rows, num_rows + output)
            check(covered_SA, num_rows)


def test_the_intervals_themselves_are_what_their_scores_promise(passed: Passed) -> None:
    """Splits through the head: a row is held exactly where its score is within the threshold."""
    head = fitted(HEAD, *passed.rows(slice(0, 200)), **with_share(0.8)).head
    assert isinstance(head, NumberPositionHead)
    rows = head.checked(Sampled(*passed.rows(slice(200, 900))), None)
    every = np.arange(len(rows))
    score_BD = scores_of(head, rows)
    terms = Terms(**with_share(0.8))
    for seed in range(20):
        order_B = np.random.default_rng(seed).permutation(every)
        known, asked = order_B[:100], order_B[100:]
        promised = head.promising(rows, known, terms)
        some = rows.take(asked)
        ends = promised.ends(some.means.mean(axis=0), head.variance(some), 0.9)
        held_BPD = (ends[0] <= some.targets) & (some.targets <= ends[1])
        needed = np.ceil(0.8 * 16)
        assert promised.promise is not None
        threshold_D = ties.raised(promised.promise.held_out.thresholds(0.9))
        is_within_BD = score_BD[asked] <= threshold_D
        np.testing.assert_array_equal(held_BPD.sum(axis=1) >= needed, is_within_BD)
    report = promised.judged(some, 0.9, no_check).statistics["interval_coverage"]
    assert report is not None
    assert report.value(RowCounts.once(len(some)))[0] == pytest.approx(is_within_BD.mean())


def scores_of(head: NumberPositionHead, rows: Sampled) -> Floats:
    """The score of each row and output for a share of 0.8, the slow way."""
    mean_BPD, variance_BPD = rows.means.mean(axis=0), head.variance(rows)
    score_BPD = np.abs(rows.targets - mean_BPD) / np.sqrt(variance_BPD)
    return np.sort(score_BPD, axis=1)[:, 12]


def with_share(share: float) -> dict[str, Any]:
    return {**TERMS, "choices": Choices(position_share=share)}


def test_no_promise_is_made_of_too_few_rows_and_every_width_is_infinite(passed: Passed) -> None:
    found = fitted(HEAD, *passed.rows(slice(0, 200)), **TERMS)
    report = judged(HEAD, *passed.rows(slice(200, 260)), calibration=found, coverage=0.999).report
    assert (report["interval_coverage"], report["position_coverage"]) == (1.0, 1.0)
    assert report["interval_width"] is None


def test_vast_maps_are_fitted_on_some_positions_of_every_row(
    passed: Passed, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "dubito.calibration.heads.number_positions._POSITIONS_FOR_NOISE"
    every = fitted(HEAD, *passed.rows(slice(0, 400)), **TERMS)
    monkeypatch.setattr(module, 500)
    monkeypatch.setattr(number_positions, "MOST_CELLS", 700)
    some, again = (fitted(HEAD, *passed.rows(slice(0, 400)), **TERMS) for _ in range(2))
    assert some == again
    noise = [np.array(one.head.noise.variance) for one in (every, some)]  # type: ignore[attr-defined]
    assert (noise[0] != noise[1]).all()
    np.testing.assert_allclose(noise[0], noise[1], rtol=0.3)
    assert some.report.after["crps"] == pytest.approx(every.report.after["crps"], rel=0.1)


@pytest.mark.parametrize("noise_precision", [None, 4.0])
def test_the_record_survives_and_serves_what_it_was_fitted_for(
    engine: Engine, passed: Passed, noise_precision: float | None
) -> None:
    choices = Choices(position_share=0.8, noise_precision=noise_precision)
    found = fitted(HEAD, *passed.rows(slice(0, 300)), **{**TERMS, "choices": choices})
    again = Calibration.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert isinstance(again.head, NumberPositionHead)
    assert again.head.positions == Positions(HEAD, 0.8)
    if noise_precision is not None:
        assert again.head.noise.variance == (0.25, 0.25)
    rows = fields(30, seed=8)[0]
    prediction = engine.predict(rows, sampling=SAMPLING)
    parts = again.head.parts(engine.sample(rows, sampling=SAMPLING), engine.manifest)
    sampled = again.head.checked(Sampled(tuple(part.numpy() for part in parts)), None)
    served = served_scores(again, prediction)
    np.testing.assert_allclose(served, again.ood_scores(again.head.source(sampled)), rtol=1e-9)
    for wrong in ({"noise_variance": [0.1]}, {"intervals": "cqr"}, {"task": "classification"}):
        with pytest.raises(InputError, match="calibrate the version again"):
            Calibration.from_json(found.to_json() | wrong)


def test_a_policy_with_a_share_accepts_that_share(passed: Passed) -> None:
    found = fitted(HEAD, *passed.rows(slice(0, 500)), **TERMS, target=Target(acceptance=0.6))
    assert found.policy.kind == "acceptance"
    assert (found.policy.acceptance or 0) >= 0.6


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"choices": Choices(intervals="cqr")}, "`intervals` expects `normalised`"),
        ({"choices": Choices(position_share=0.0)}, "`position_share` expects"),
        ({"target": Target(risk=0.1)}, "ask for `target_acceptance`"),
    ],
)
def test_what_has_no_meaning_for_them_is_refused(
    passed: Passed, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        fitted(HEAD, *passed.rows(slice(0, 200)), **TERMS | options)


@pytest.fixture
def written(bundle: Bundle) -> Iterator[Any]:
    def read(given: object, changed: dict[str, object] | None = None) -> Floats:
        manifest = dataclasses.replace(bundle.manifest, **(changed or {}))  # type: ignore[arg-type]
        asked = Written(manifest, 2, lambda: (SIDE, SIDE), targets=given)
        found: Floats = head_of(manifest).read(asked)  # type: ignore[assignment]
        return found

    return read


ONE = {"num_outputs": 1, "target_scale": None}


def test_targets_are_read_with_the_outputs_last(written: Any) -> None:
    target = fields(2, seed=0)[1]
    expected = target.reshape(2, 16, 2)
    for given in (target, target.tolist()):
        np.testing.assert_array_equal(written(given), expected)
    holed = target.tolist()
    holed[1][0][2][1] = None
    expected[1, 2] = np.nan
    np.testing.assert_array_equal(written(holed), expected)
    single = target[..., :1]
    for given in (single, single[..., 0], np.moveaxis(single, -1, 1)):
        np.testing.assert_array_equal(written(given, ONE), single.reshape(2, 16, 1))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            np.zeros((2, 2, SIDE, SIDE)),
            r"shape \(2, 4, 4, 2\), got \(2, 2, 4, 4\): .* outputs last",
        ),
        (np.zeros((2, SIDE, SIDE)), r"shape \(2, 4, 4, 2\), got \(2, 4, 4\)"),
        (np.zeros((1, SIDE, SIDE, 2)), r"got \(1, 4, 4, 2\)"),
        (np.full((2, SIDE, SIDE, 2), np.inf), "infinity in 2 rows, .* row 0: send null or NaN"),
        (np.full((2, SIDE, SIDE, 2), np.nan), "at least one position in every row .* row 0"),
        ([[0.0] * 4] * 2, r"got \(2, 4\)"),
        ([[[[0.0, 1.0]] * 4] * 4, [[[0.0, 1.0]] * 4] * 3], "got ragged lists"),
        ([[[["a", 1.0]] * 4] * 4] * 2, "got 'a': correct it"),
        ([[[[True, 1.0]] * 4] * 4] * 2, "got 'True': correct it"),
        ([[[[10**400, 1.0]] * 4] * 4] * 2, "a larger one"),
        (np.full((2, SIDE, SIDE, 2), "a"), "expects numbers, got text"),
        (3, "got ragged lists"),
        (None, "expected `targets`, got none"),
    ],
)
def test_targets_that_do_not_fit_are_refused(written: Any, given: object, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        written(given)


@pytest.mark.parametrize(
    ("passes", "reason"),
    [
        (np.zeros((T, 20, 2)), r"samples of shape \(T, B, P, D\)"),
        (np.full((T, 20, 3, 2), np.nan), "finite numbers, got NaN or infinity in 20 rows"),
        (np.zeros((T + 1, 20, 3, 2)), f"expects {T} samples"),
    ],
)
def test_passes_that_do_not_fit_are_refused(passes: Floats, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        fitted(HEAD, (passes,), np.zeros((20, 3, 2)), **TERMS)
