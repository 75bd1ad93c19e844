"""Quantiles: what is said of passes drawn by hand, and what a calibration promises."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from scipy.special import ndtri
from torch import Tensor, nn

from dubito.calibration.choices import Choices
from dubito.calibration.fit import fit
from dubito.calibration.heads import head_of
from dubito.calibration.heads.quantiles import QuantileHead
from dubito.calibration.judge import judge
from dubito.calibration.promises.conformal import ConformalScores, Promise, order
from dubito.calibration.promises.policy import Target
from dubito.calibration.record import Calibration
from dubito.calibration.sampled import Sampled
from dubito.calibration.terms import Terms
from dubito.engine import Engine, Ensemble, Regression, Sampling
from dubito.engine.draws.masks import draw
from dubito.engine.heads.quantiles import aleatoric_variance
from dubito.errors import InputError
from dubito.report import figures, quantile_statistics
from dubito_nn import export
from dubito_nn.training import pinball_loss, seeded

from .fits import served_scores
from .quantiles import LEVELS, exported, rows, target
from .test_coverage import ALPHAS, check, permutations

SCALE = ([10.0, -5.0], [2.0, 0.5])
SAMPLING = Sampling(num_samples=48, seed=3)


class Crossing(nn.Module):
    """Quantiles of two numbers, without training: many of them cross."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 40), nn.ReLU(), nn.Dropout(0.3), nn.Linear(40, 8))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 2, 4)."""
        return self.body(x).view(-1, 2, 4)


CROSSING = (0.1, 0.3, 0.5, 0.8)


def untrained(seed: int) -> Crossing:
    with seeded(seed):
        return Crossing()


@cache
def crossing(seed: int, levels: tuple[float, ...] = CROSSING) -> Engine:
    asked = {"task": "regression", "output": "quantiles", "quantile_levels": levels}
    with TemporaryDirectory() as folder:
        file, example = Path(folder) / "crossing.dubito", torch.randn(4, 3)
        return Engine.load(export(untrained(seed), example, file, target_scale=SCALE, **asked))  # type: ignore[arg-type]


def by_hand(raw: Tensor) -> dict[str, np.ndarray]:
    """What the passes say, from their numbers in float64."""
    shift, factor = (np.array(part)[:, None] for part in SCALE)
    quantile_TBDQ = shift + factor * raw.double().numpy()
    quantiles = np.sort(quantile_TBDQ.mean(0), axis=-1)
    epistemic = quantile_TBDQ[..., 2].var(axis=0)
    deviation = (quantiles[..., 3] - quantiles[..., 0]) / (ndtri(0.8) - ndtri(0.1))
    return {
        "mean": quantile_TBDQ[..., 2].mean(0),
        "quantiles": quantiles,
        "epistemic_variance": epistemic,
        "aleatoric_variance": deviation**2,
        "variance": epistemic + deviation**2,
    }


def ordered_means(rows: Sampled) -> np.ndarray:
    """Quantiles (B, D, Q) as fits and reports see them."""
    return np.sort(rows.passes[1].mean(0), axis=-1)


def agree(got: object, expected: dict[str, np.ndarray]) -> None:
    for name, column in expected.items():
        np.testing.assert_allclose(getattr(got, name), column, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "sampling",
    [
        SAMPLING,
        replace(SAMPLING, draw="iid"),
        replace(SAMPLING, masks="independent"),
        replace(SAMPLING, method="point"),
    ],
    ids=["stratified", "iid", "independent", "point"],
)
@pytest.mark.parametrize("count", [3, 400])
def test_predictions_are_those_of_the_passes_by_hand(sampling: Sampling, count: int) -> None:
    """Few rows are summed in numpy, many in torch; some averages cross in both."""
    engine, x = crossing(0), torch.randn(count, 3)
    got, raw = engine.predict(x, sampling=sampling), engine.sample(x, sampling=sampling)
    assert isinstance(got, Regression)
    agree(got, by_hand(raw))
    assert got.levels is not None
    assert (np.diff(got.levels, axis=-1) < 0).any()
    if sampling.draw == "iid":
        medians = by_hand(raw)["epistemic_variance"]
        error = np.sqrt(medians / (sampling.num_samples - 1))
        np.testing.assert_allclose(got.standard_error, error, rtol=1e-9)


def test_passes_are_those_of_the_network_itself_in_float64() -> None:
    """The masks of the bundle's only site, put into the network by hand."""
    engine, x = crossing(0), torch.randn(5, 3)
    got = engine.predict(x, sampling=SAMPLING, keep_samples=True)
    first, relu, _, last = untrained(0).double().eval().body
    (site,) = engine.manifest.sites
    masks_T1H = draw(site, SAMPLING.seed, range(48), (1, 40), kind="stratified").double()
    hidden_TBH = relu(first(x.double())) * masks_T1H.view(48, 1, 40) / 0.7
    raw_TBDQ = last(hidden_TBH).view(48, 5, 2, 4)
    for name, column in by_hand(raw_TBDQ.detach()).items():
        np.testing.assert_allclose(getattr(got, name), column, rtol=1e-5, atol=1e-5)
    assert isinstance(got, Regression)
    assert got.samples is not None
    np.testing.assert_allclose(got.samples.mean(0), got.mean)


def test_rows_stop_by_the_error_of_the_median() -> None:
    engine, x = crossing(0), torch.randn(20, 3)
    sampling = replace(SAMPLING, num_samples=128, tolerance=0.05, draw="iid")
    got = engine.predict(x, sampling=sampling)
    assert len(set(got.num_samples_used.tolist())) > 2
    for row, used in enumerate(got.num_samples_used.tolist()):
        own = replace(sampling, num_samples=used, tolerance=None)
        alone = engine.predict(x[row : row + 1], sampling=own)
        assert isinstance(alone, Regression)
        assert isinstance(got, Regression)
        np.testing.assert_allclose(got.quantiles[row], alone.quantiles[0], rtol=1e-5)  # type: ignore[index]


def test_an_ensemble_answers_by_all_passes_of_all_members() -> None:
    ensemble, x = Ensemble(tuple(crossing(seed) for seed in range(3))), torch.randn(6, 3)
    got = ensemble.predict(x, sampling=SAMPLING)
    agree(got, by_hand(ensemble.sample(x, sampling=SAMPLING)))
    head = head_of(ensemble.manifest)
    of_members = [
        head.parts(member.sample(x, sampling=own), member.manifest)
        for member, own in ensemble.drawn(SAMPLING)
    ]
    taken = Sampled(tuple(torch.cat(parts).numpy() for parts in zip(*of_members, strict=True)))
    np.testing.assert_allclose(ordered_means(taken), got.quantiles)  # type: ignore[union-attr]
    other = crossing(1, (0.2, 0.3, 0.5, 0.8))
    with pytest.raises(InputError, match="the same quantile levels"):
        Ensemble((ensemble.members[0], other))


def test_moments_are_refused() -> None:
    engine = crossing(0)
    with pytest.raises(InputError, match="got a quantiles head: use `mc`"):
        engine.predict(torch.randn(2, 3), sampling=replace(SAMPLING, method="moments"))


def test_an_output_that_overflows_in_one_level_has_no_quantiles() -> None:
    engine, x = crossing(0), torch.randn(2, 3)
    x[1] = 3e38
    got = engine.predict(x, sampling=SAMPLING)
    assert isinstance(got, Regression)
    assert got.quantiles is not None
    assert np.isfinite(got.quantiles[0]).all()
    assert not np.isfinite(got.quantiles[1]).any()
    assert np.isnan(got.aleatoric_variance[1]).all()


def test_the_noise_is_that_of_a_normal_through_the_outermost_pair() -> None:
    levels = (0.02, 0.3, 0.5, 0.9)
    quantile_BDQ = np.array([[3.0], [-1.0]])[..., None] + 1.7 * ndtri(levels)
    np.testing.assert_allclose(aleatoric_variance(quantile_BDQ, levels), 1.7**2)


@pytest.mark.parametrize(
    ("coverage", "pair"),
    [(0.9, (0, 4)), (0.5, (1, 3)), (0.7, (0, 4)), (0.6, (1, 3)), (0.01, (2, 2)), (0.999, (0, 4))],
)
def test_intervals_take_the_levels_nearest_to_both_ends(
    coverage: float, pair: tuple[int, int]
) -> None:
    """At .7 both of two levels are as near, and the outer one is taken on either side."""
    found = QuantileHead(levels=LEVELS).pair(np.arange(5.0).reshape(1, 1, 5), coverage)
    assert (found[0].item(), found[1].item()) == pair


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Trained on rows like those that tests draw."""
    return Engine.load(exported(tmp_path_factory.mktemp("quantiles") / "trained.dubito"))


def sampled(engine: Engine, count: int, seed: int) -> Sampled:
    inputs, targets = rows(count, seed)
    raw = engine.sample(inputs, sampling=SAMPLING)
    passes = head_of(engine.manifest).parts(raw, engine.manifest)
    return Sampled(tuple(part.numpy() for part in passes), targets)


def terms(**asked: object) -> Terms:
    return Terms(**({"sampling": SAMPLING, "alpha": 0.1, "coverage": 0.9, "seed": 0} | asked))  # type: ignore[arg-type]


def test_a_trained_network_knows_the_true_quantiles(engine: Engine) -> None:
    inputs, _ = rows(500, 1)
    got = engine.predict(inputs, sampling=SAMPLING)
    assert isinstance(got, Regression)
    assert got.quantiles is not None
    true_BQ = np.concatenate([target(inputs.astype(np.float64), level) for level in LEVELS], axis=1)
    assert np.abs(got.quantiles[:, 0] - true_BQ).mean() < 0.15 * true_BQ.std()


def test_a_report_has_the_loss_of_training_and_a_share_for_each_level(engine: Engine) -> None:
    held_out, head = sampled(engine, 400, 2), head_of(engine.manifest)
    found = judge(head, held_out, None)
    raw_BDQ = torch.from_numpy(ordered_means(held_out))
    loss = pinball_loss(LEVELS)(raw_BDQ, torch.from_numpy(held_out.targets)).item()
    assert found.report["pinball"] == pytest.approx(loss)
    assert found.report["nll"] is None
    assert found.report["interval_coverage"] is None
    error = held_out.means.mean(0) - held_out.targets
    assert found.report["rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    line = found.curves.coverage
    assert line is not None
    assert line.x == LEVELS
    share = (held_out.targets[..., None] <= raw_BDQ.numpy()).mean((0, 1))
    np.testing.assert_allclose(line.y, share)
    np.testing.assert_allclose(line.y, LEVELS, atol=0.15)


def test_the_loss_of_several_outputs_is_their_sum() -> None:
    generator = np.random.default_rng(0)
    quantile_BDQ = np.sort(generator.normal(size=(30, 3, 5)), axis=-1)
    target_BD = generator.normal(size=(30, 3))
    error_BD = quantile_BDQ[..., 2] - target_BD
    loss = quantile_statistics(
        quantile_BDQ, LEVELS, target_BD, error_BD, np.ones((30, 3)), None, None
    )["pinball"]
    expected = pinball_loss(LEVELS)(torch.from_numpy(quantile_BDQ), torch.from_numpy(target_BD))
    assert figures({"pinball": loss}, 30)["pinball"] == pytest.approx(expected.item())


@pytest.mark.parametrize("num_rows", [20, 100, 200])
def test_intervals_cover_as_promised_and_are_no_wider_than_need_be(
    engine: Engine, num_rows: int
) -> None:
    """Over 1,000 splits, as in `test_coverage`; width within 5 % of what all rows would give."""
    of_all, head = sampled(engine, 600, 3), head_of(engine.manifest)
    assert isinstance(head, QuantileHead)
    quantile_BDQ, target_BD = ordered_means(of_all), of_all.targets
    score_B = np.maximum(
        quantile_BDQ[:, 0, 0] - target_BD[:, 0], target_BD[:, 0] - quantile_BDQ[:, 0, 4]
    )
    order_SB = permutations(len(target_BD), num_rows)
    held_out = ConformalScores.of(list(score_B[order_SB[:, :num_rows]]))
    acting = replace(head, promise=Promise(0.9, held_out))
    covered, widths = [], []
    for alpha in ALPHAS:
        low_BS, high_BS = acting.ends(quantile_BDQ, 1 - alpha)
        is_in_SB = ((low_BS <= target_BD) & (target_BD <= high_BS)).T
        rest_SB = order_SB[:, num_rows:]
        covered.append(np.take_along_axis(is_in_SB, rest_SB, axis=1).mean(axis=1))
        widths.append((high_BS - low_BS).mean())
    check(np.stack(covered, axis=1), num_rows)
    if num_rows == 200:
        best = [
            (quantile_BDQ[:, 0, 4] - quantile_BDQ[:, 0, 0]).mean()
            + 2 * np.quantile(score_B, order(num_rows, 1 - alpha) / (num_rows + 1))
            for alpha in ALPHAS
        ]
        assert (np.array(widths) <= 1.05 * np.array(best)).all()


def fitted(engine: Engine, **asked: object) -> Calibration:
    return fit(head_of(engine.manifest), sampled(engine, 400, 4), terms(**asked))


def test_a_record_is_read_as_it_was_written_and_names_its_levels(engine: Engine) -> None:
    record = fitted(engine, target=Target(acceptance=0.8))
    written = record.to_json()
    assert (written["task"], written["intervals"]) == ("regression", "cqr")
    assert record.splits["fit"] == 0
    assert record.splits["conformal"] == record.conformal.num_rows
    assert tuple(written["quantile_levels"]) == LEVELS  # type: ignore[arg-type]
    again = Calibration.from_json(written)
    assert again == record
    assert isinstance(again.head, QuantileHead)
    for changed in ({"quantile_levels": [0.5]}, {"ood_reference": [0.0]}, {"intervals": "x"}):
        with pytest.raises(InputError, match="calibrate the version again"):
            Calibration.from_json(written | changed)


def test_a_report_on_fresh_rows_keeps_what_was_promised(engine: Engine) -> None:
    """The thresholds of 180 held-out rows miss .9 by .023 and .5 by .037, the flag's by .027.

    Beside them 2,000 rows miss by .007 to .011: within four of both by all but 1 in 10,000 draws.
    """
    record, fresh = fitted(engine), sampled(engine, 2000, 5)
    found = judge(head_of(engine.manifest), fresh, record)
    assert found.report["interval_coverage"] == pytest.approx(0.9, abs=0.1)
    assert found.report["ood_flag_rate"] < 0.1 + 0.12  # type: ignore[operator]
    narrow = judge(head_of(engine.manifest), fresh, record, coverage=0.5)
    assert narrow.report["interval_coverage"] == pytest.approx(0.5, abs=0.16)
    assert narrow.report["interval_width"] < found.report["interval_width"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"choices": Choices(intervals="normalised")},
            r"expects `cqr`.*got `normalised`.*leave it",
        ),
        ({"choices": Choices(noise_precision=1.0)}, "got one with quantiles.*leave it out"),
        ({"choices": Choices(position_share=0.5)}, "got a quantiles: leave it out"),
        ({"target": Target(risk=0.1)}, "ask for `target_acceptance`"),
    ],
)
def test_choices_without_a_meaning_are_refused(
    engine: Engine, asked: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        fitted(engine, **asked)


def test_rows_that_cannot_be_used_are_refused(engine: Engine) -> None:
    held_out, head = sampled(engine, 200, 6), head_of(engine.manifest)
    with pytest.raises(InputError, match=r"`targets` expects shape \(200, 1\)"):
        judge(head, replace(held_out, truth=held_out.targets[:9]), None)
    held_out.passes[1][0, 7, 0, 1] = np.inf
    with pytest.raises(InputError, match=r"`quantiles` expects finite numbers.*row 7"):
        judge(head, held_out, None)


def test_a_network_without_noise_counts_in_units_of_the_targets(engine: Engine) -> None:
    held_out = sampled(engine, 200, 6)
    held_out.passes[1][:] = 20.0
    record = fit(head_of(engine.manifest), held_out, terms())
    assert isinstance(record.head, QuantileHead)
    assert record.head.reference == (pytest.approx(held_out.targets.var()),)


def test_every_output_has_levels_ends_and_units_of_its_own() -> None:
    """Of a network that knows nothing, whose quantiles cross: the promise holds all the same.

    Coverage of 180 held-out rows within four standard errors of theirs and of 500 fresh rows.
    """
    engine, head, generator = crossing(0), head_of(crossing(0).manifest), np.random.default_rng(0)
    x, fresh_x = torch.randn(400, 3), torch.randn(500, 3)

    def of(x: Tensor) -> Sampled:
        raw = engine.sample(x, sampling=SAMPLING)
        passes = tuple(part.numpy() for part in head.parts(raw, engine.manifest))
        noise_B2 = generator.normal(size=(len(x), 2)) * (3.0, 0.1)
        return Sampled(passes, x[:, :2].double().numpy() + noise_B2)

    record, fresh = fit(head, of(x), terms()), of(fresh_x)
    assert len(record.conformal.columns) == 2
    acting = record.head
    assert isinstance(acting, QuantileHead)
    got = engine.predict(fresh_x, sampling=SAMPLING)
    assert isinstance(got, Regression)
    lower_BD, upper_BD = acting.ends(ordered_means(fresh), None)
    is_in_BD = (lower_BD <= fresh.targets) & (fresh.targets <= upper_BD)
    np.testing.assert_allclose(is_in_BD.mean(0), 0.9, atol=4 * 0.027)
    score_B = (got.epistemic_variance / np.array(acting.reference)).mean(-1)
    np.testing.assert_allclose(served_scores(record, got), score_B)
    np.testing.assert_allclose(record.ood_scores(acting.source(fresh)), score_B)
