"""The Gaussian over the last map: held against laplace-torch, closed forms, and its own draws."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from dubito.engine import Engine, Sampling
from dubito.engine.draws.masks import draw, normals
from dubito.engine.laplace import (
    CurvatureSums,
    FitResult,
    Labelled,
    Posterior,
    RowsAtMap,
    fit_classes,
    fit_numbers,
)
from dubito.engine.laplace.drawn_maps import DrawnMaps
from dubito.engine.laplace.posterior import probit
from dubito.errors import InputError
from dubito_nn import Site, export
from dubito_nn.manifest import Output

REFERENCE = Path(__file__).parent / "data/laplace/kron_last_layer.npz"
"""Made by `benchmarks/evidence/methods_reference.py` with laplace-torch 0.2.2.2 and curvlinops."""

Known = dict[str, NDArray[np.float64]]


@pytest.fixture(scope="module")
def known() -> Known:
    with np.load(REFERENCE) as stored:
        return dict(stored)


def _layer(weight: NDArray[np.float64], bias: NDArray[np.float64]) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    return layer


def _engine(known: Known, path: Path, output: Output = "logits", *more: nn.Module) -> Engine:
    hidden = _layer(known["hidden_weight"], known["hidden_bias"])
    last = _layer(known["last_weight"], known["last_bias"])
    rows = torch.from_numpy(known["rows"][:4]).float()
    network = nn.Sequential(hidden, nn.ReLU(), last, *more)
    export(network, rows, path, task="classification", output=output, deterministic=True)
    return Engine.load(path)


@pytest.fixture(scope="module")
def engine(known: Known, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return _engine(known, tmp_path_factory.mktemp("laplace") / "reference.dubito")


def _at_map(engine: Engine, rows: NDArray[np.float64], *, keeps_rows: bool = False) -> RowsAtMap:
    blocks = [{"input": torch.from_numpy(part).float()} for part in np.array_split(rows, 3)]
    return engine.fits.look(blocks, keeps_rows=keeps_rows, check=lambda: None)


def _fitted(engine: Engine, known: Known, prior: float | None = None) -> FitResult:
    seen = _at_map(engine, known["rows"]).seen
    return fit_classes(
        seen,
        num_training_rows=len(known["rows"]),
        has_bias=True,
        squared_norm=engine.fits.last_map.squared_norm(engine.made_up_rows()),
        prior_precision=prior,
    )


def _asked(engine: Engine, known: Known) -> tuple[torch.Tensor, torch.Tensor]:
    return engine.fits.last_map.run({"input": torch.from_numpy(known["asked"]).float()})


def test_functional_variances_are_those_of_laplace_torch(engine: Engine, known: Known) -> None:
    posterior = _fitted(engine, known, float(known["prior_precision"])).posterior
    features, _ = _asked(engine, known)
    covariance = posterior.covariances(features).numpy()
    scale = np.abs(known["covariance"]).max(axis=(1, 2), keepdims=True)
    np.testing.assert_array_less(np.abs(covariance - known["covariance"]) / scale, 1e-5)
    diagonal = known["covariance"].diagonal(axis1=1, axis2=2)
    np.testing.assert_allclose(posterior.variances(features), diagonal, rtol=1e-5)


def test_probit_probabilities_are_those_of_laplace_torch(engine: Engine, known: Known) -> None:
    posterior = _fitted(engine, known, float(known["prior_precision"])).posterior
    features, scores = _asked(engine, known)
    made = probit(scores.double(), posterior.variances(features))
    np.testing.assert_allclose(made, known["probit"], atol=1e-5)


def test_the_marginal_likelihood_is_largest_where_that_of_laplace_torch_is(
    engine: Engine, known: Known
) -> None:
    best = float(str(_fitted(engine, known).report["prior_precision"]))
    assert best == pytest.approx(float(known["best_prior_precision"]), rel=0.01)


def test_draws_have_the_covariance_of_the_posterior(engine: Engine, known: Known) -> None:
    """4,096 draws of 10 rows: a variance is known to 2.2 %, five of which are allowed."""
    result = _fitted(engine, known)
    engine.fits.put(1, result.posterior)
    rows = torch.from_numpy(known["asked"][:10]).float()
    sampling = Sampling(4096, draw="iid", method="laplace", fit=1)
    raw = engine.sample(rows, sampling=sampling).double()
    features, scores = engine.fits.last_map.run({"input": rows})
    expected = result.posterior.covariances(features)
    off = raw - raw.mean(0)
    found = torch.einsum("tbc,tbd->bcd", off, off) / len(raw)
    scale = expected.diagonal(dim1=1, dim2=2).sqrt()
    share = (found - expected) / (scale[:, :, None] * scale[:, None, :])
    assert share.abs().max() < 5 * math.sqrt(2 / 4096)
    error = (raw.mean(0) - scores) / scale * math.sqrt(4096)
    assert error.abs().max() < 5


def test_a_map_is_the_same_for_every_row_count_and_chunk(engine: Engine, known: Known) -> None:
    engine.fits.put(1, _fitted(engine, known).posterior)
    rows = torch.from_numpy(known["asked"]).float()
    whole = engine.sample(rows, sampling=Sampling(48, method="laplace", fit=1))
    few = engine.sample(rows[:3], sampling=Sampling(16, method="laplace", fit=1))
    torch.testing.assert_close(whole[:16, :3], few, atol=1e-5, rtol=1e-5)
    posterior = _fitted(engine, known).posterior
    assert isinstance(posterior, Posterior)
    engine.fits.held.put(2, DrawnMaps(posterior, engine.device, 0))  # none kept, in other pieces
    again = engine.sample(rows, sampling=Sampling(48, method="laplace", fit=2))
    torch.testing.assert_close(whole, again, atol=1e-5, rtol=1e-5)


def test_rows_share_the_maps_so_that_equal_rows_agree_in_every_sample(
    engine: Engine, known: Known
) -> None:
    engine.fits.put(1, _fitted(engine, known).posterior)
    rows = torch.from_numpy(known["asked"][[0, 0]]).float()
    raw = engine.sample(rows, sampling=Sampling(32, method="laplace", fit=1))
    torch.testing.assert_close(raw[:, 0], raw[:, 1])


def test_predictions_have_a_spread_with_an_error_that_shrinks(engine: Engine, known: Known) -> None:
    engine.fits.put(1, _fitted(engine, known).posterior)
    rows = torch.from_numpy(known["asked"]).float()
    many = engine.predict(rows, sampling=Sampling(1024, method="laplace", fit=1))
    few = engine.predict(rows, sampling=Sampling(32, method="laplace", fit=1))
    assert (many.mutual_information > 0).all()
    assert few.standard_error.max(-1).mean() > 2 * many.standard_error.max(-1).mean()
    open_BC = (many.mean > 0.05) & (many.mean < 0.95)  # elsewhere 32 draws miss the tail
    off = np.abs(few.mean - many.mean)[open_BC]
    assert open_BC.sum() > 20
    assert (off < 4 * few.standard_error[open_BC]).all()


@pytest.mark.parametrize("output", ["log_probs", "probs"])
def test_a_link_behind_the_map_is_taken_into_account(
    known: Known, engine: Engine, tmp_path: Path, output: Output
) -> None:
    link = nn.LogSoftmax(-1) if output == "log_probs" else nn.Softmax(-1)
    other = _engine(known, tmp_path / "x.dubito", output, link)
    posterior = _fitted(engine, known).posterior
    rows, sampling = torch.from_numpy(known["asked"]).float(), Sampling(64, method="laplace", fit=1)
    for one in (engine, other):
        one.fits.put(1, posterior)
    means = [one.predict(rows, sampling=sampling).mean for one in (engine, other)]
    np.testing.assert_allclose(*means, atol=1e-5)


def test_one_logit_is_the_second_of_two_classes(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    rows = torch.randn(200, 3)
    path = tmp_path / "x.dubito"
    task, output = "classification", "sigmoid_logits"
    export(network, rows[:4], path, task=task, output=output, deterministic=True)  # type: ignore[arg-type]
    engine = Engine.load(path)
    seen = _at_map(engine, rows.double().numpy()).seen
    result = fit_classes(seen, num_training_rows=200, has_bias=True, squared_norm=1.0)
    features, scores = engine.fits.last_map.run({"input": rows[:5]})
    p = scores.sigmoid().double()
    b = (
        float(
            (
                engine.fits.last_map.run({"input": rows})[1].sigmoid().double()
                * (1 - engine.fits.last_map.run({"input": rows})[1].sigmoid().double())
            ).mean()
        )
        * 200
    )
    phi = engine.fits.last_map.run({"input": rows})[0].double()
    prior = float(str(result.report["prior_precision"]))
    precision = b * (phi.T @ phi / 200) + prior * torch.eye(8).double()
    own = features.double()
    expected = torch.einsum("bf,fg,bg->b", own, precision.inverse(), own) + 1 / (b + prior)
    torch.testing.assert_close(result.posterior.variances(features)[:, 0], expected)
    engine.fits.put(1, result.posterior)
    answer = engine.predict(rows[:5], sampling=Sampling(64, method="laplace", fit=1))
    assert answer.mean.shape == (5, 2)
    assert np.abs(answer.mean[:, 1:] - p.numpy()).max() < 0.3


def test_numbers_have_the_variance_of_the_closed_form(tmp_path: Path) -> None:
    torch.manual_seed(2)
    network = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
    rows = torch.randn(150, 3)
    path = tmp_path / "x.dubito"
    export(network, rows[:4], path, task="regression", output="mean", deterministic=True)
    engine = Engine.load(path)
    seen = _at_map(engine, rows.double().numpy(), keeps_rows=True)
    features, scores = (torch.from_numpy(part) for part in (seen.features, seen.scores))
    truths = scores.double() + torch.randn(150, 2) * torch.tensor([0.5, 2.0])
    labelled = Labelled(features, scores, truths)
    result = fit_numbers(seen.seen, labelled, num_training_rows=150, has_bias=True)
    alpha, regularizer = result.report["alpha"], float(str(result.report["regularizer"]))
    assert isinstance(alpha, list)
    with_one = torch.cat([features, torch.ones(150, 1)], 1).double()
    precision = with_one.T @ with_one + regularizer**2 * torch.eye(7).double()
    h = torch.einsum("bf,fg,bg->b", with_one, precision.inverse(), with_one)
    expected = h[:, None] * torch.tensor(alpha).double() ** 2
    torch.testing.assert_close(result.posterior.variances(features), expected)
    assert alpha[1] / alpha[0] == pytest.approx(4, rel=0.3)


def test_what_is_stored_is_read_again(engine: Engine, known: Known) -> None:
    posterior = _fitted(engine, known).posterior
    again = Posterior.from_arrays(posterior.arrays())
    features, _ = _asked(engine, known)
    torch.testing.assert_close(again.variances(features), posterior.variances(features))


def test_sums_do_not_depend_on_where_rows_are_cut(engine: Engine, known: Known) -> None:
    whole = _at_map(engine, known["rows"], keeps_rows=True)
    first = _at_map(engine, known["rows"][:100], keeps_rows=True)
    stored = RowsAtMap.from_arrays(first.arrays())
    parts = stored.with_more(_at_map(engine, known["rows"][100:], keeps_rows=True))
    for name, array in whole.arrays().items():
        np.testing.assert_allclose(parts.arrays()[name], array, rtol=1e-9, atol=1e-9)


def test_held_out_rows_choose_a_prior_that_no_other_beats(engine: Engine, known: Known) -> None:
    at_map = _at_map(engine, known["asked"], keeps_rows=True)
    features, scores = (torch.from_numpy(part) for part in (at_map.features, at_map.scores))
    flips = torch.from_numpy(np.random.default_rng(0).random(len(features)) < 0.15)
    labels = (scores.argmax(-1) + flips) % 4
    seen: CurvatureSums = _at_map(engine, known["rows"]).seen
    rows = Labelled(features, scores, labels)
    options = {"num_training_rows": 400, "has_bias": True, "squared_norm": 1.0, "held_out": rows}
    best = fit_classes(seen, **options)  # type: ignore[arg-type]
    for factor in (0.3, 3.0):
        prior = float(str(best.report["prior_precision"])) * factor
        other = fit_classes(seen, **options, prior_precision=prior)  # type: ignore[arg-type]
        assert float(str(best.report["nll"])) <= float(str(other.report["nll"])) + 1e-9


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"masks": "independent"}, "masks `shared`"),
        ({"sites": "last"}, "`sites` expects"),
        ({"tolerance": 0.1}, "`tolerance` expects method `mc`"),
        ({"method": "mc"}, "`fit` expects method `laplace`"),
    ],
)
def test_what_does_not_go_with_it_is_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Sampling(**{"method": "laplace", "fit": 1, **fields})  # type: ignore[arg-type]


def test_a_fit_that_is_not_here_is_named(engine: Engine) -> None:
    with pytest.raises(InputError, match="got 77, which is not loaded"):
        engine.predict(torch.zeros(1, 5), sampling=Sampling(method="laplace", fit=77))


@pytest.mark.parametrize("kind", ["iid", "stratified"])
def test_normals_of_maps_are_those_of_all_draws_in_24_bits(
    kind: Literal["iid", "stratified"],
) -> None:
    site = Site(5, "normal", "normal", None, False, (700,), "weight", "", None)
    samples = range(3, 40)
    known = draw(site, 9, samples, (700,), kind=kind, dtype=torch.float64)
    made = normals(5, 9, samples, range(700), kind=kind).double()
    assert float((made - known).abs().max()) < 5e-3  # in the tails the 24 bits are coarse
    assert float((made - known).abs().median()) < 1e-6
    part = normals(5, 9, samples, range(123, 400), kind=kind)
    torch.testing.assert_close(part.double(), made[:, 123:400], rtol=0, atol=0)
