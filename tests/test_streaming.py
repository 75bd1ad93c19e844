"""Tolerance: rows stop on their own figures, and their answers are those of so many passes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dubito.engine import Classification, Engine, Regression, Sampling
from dubito.engine.answering.streaming import looks
from dubito.engine.calling.sampling import Draw, Masks
from dubito.engine.summing.figures import Draws
from dubito.errors import InputError
from dubito_nn import export


class Head(nn.Module):
    """A prefix that half of the rows need more of than others: rows differ in their spread."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 32), nn.Linear(32, 32)
        self.last, self.drop = nn.Linear(32, num_outputs), nn.Dropout(0.4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop(self.first(x).relu())
        return self.last(self.drop(self.second(hidden).relu()))


def engine(folder: Path, *, task: str = "classification", scale: float = 1.0) -> Engine:
    torch.manual_seed(3)
    network = Head(3 if task == "classification" else 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bundle = export(
            network,
            torch.randn(4, 6),
            folder / "network.dubito",
            task=task,  # type: ignore[arg-type]
            output="logits" if task == "classification" else "mean",
            target_scale=None if task == "classification" else (5.0, scale),
        )
    return Engine.load(bundle)


def rows(count: int) -> Tensor:
    drawn = torch.randn(count, 6, generator=torch.Generator().manual_seed(5))
    return drawn * torch.linspace(0.1, 6, count)[:, None]


@pytest.mark.parametrize("masks", ["shared", "independent"])
@pytest.mark.parametrize("draw", ["iid", "stratified"])
def test_a_row_that_stopped_is_answered_as_with_so_many_samples(
    tmp_path: Path, draw: Draw, masks: Masks
) -> None:
    served = engine(tmp_path)
    sampling = Sampling(200, 1, masks, draw, tolerance=0.012)
    got = served.predict(rows(12), sampling=sampling)
    assert isinstance(got, Classification)
    assert len(set(got.num_samples_used.tolist())) > 2
    for number in set(got.num_samples_used.tolist()):
        full = served.predict(rows(12), sampling=Sampling(number, 1, masks, draw))
        stopped = got.num_samples_used == number
        for name in ("mean", "variance", "standard_error", "mutual_information_corrected"):
            np.testing.assert_allclose(
                getattr(got, name)[stopped], getattr(full, name)[stopped], atol=1e-6, err_msg=name
            )
        if number < 200:
            assert (got.standard_error[stopped] <= 0.012).all()


def test_a_row_alone_stops_where_it_stops_among_others(tmp_path: Path) -> None:
    served = engine(tmp_path)
    sampling = Sampling(256, draw="stratified", tolerance=0.01)
    together = served.predict(rows(9), sampling=sampling)
    for row in range(9):
        alone = served.predict(rows(9)[row : row + 1], sampling=sampling)
        assert alone.num_samples_used[0] == together.num_samples_used[row]
        np.testing.assert_allclose(alone.mean[0], together.mean[row], atol=1e-6)


def test_the_order_of_the_rows_is_kept_whatever_the_chunks(tmp_path: Path) -> None:
    served = engine(tmp_path)
    sampling = Sampling(256, draw="stratified", tolerance=0.01)
    wide = served.predict(rows(9), sampling=sampling)
    narrow = Engine.load(served.bundle, memory_budget_bytes=4096).predict(
        rows(9), sampling=sampling
    )
    np.testing.assert_array_equal(narrow.num_samples_used, wide.num_samples_used)
    np.testing.assert_allclose(narrow.mean, wide.mean, atol=1e-6)


def test_a_regression_stops_in_target_units(tmp_path: Path) -> None:
    (tmp_path / "wide").mkdir()
    plain, wide = (
        engine(tmp_path, task="regression"),
        engine(tmp_path / "wide", task="regression", scale=100.0),
    )
    one = plain.predict(rows(8), sampling=Sampling(256, tolerance=0.02))
    other = wide.predict(rows(8), sampling=Sampling(256, tolerance=2.0))
    assert isinstance(other, Regression)
    np.testing.assert_array_equal(one.num_samples_used, other.num_samples_used)
    assert len(set(one.num_samples_used.tolist())) > 1


def test_rows_without_spread_take_all_samples(tmp_path: Path) -> None:
    """Zeros in the last layer: every pass says the same."""
    torch.manual_seed(0)
    network = Head(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bundle = export(
            network,
            torch.randn(4, 6),
            tmp_path / "n.dubito",
            task="classification",
            output="logits",
        )
    served = Engine.load(bundle)
    served.placed.weights["second.weight"].zero_()
    served.placed.weights["second.bias"].zero_()
    served.plans.forget()
    got = served.predict(rows(2), sampling=Sampling(100, tolerance=0.1))
    assert not got.standard_error.any()
    assert (got.num_samples_used == 100).all()


@pytest.mark.parametrize("mean", [1e-8, 0.5, 1e6])
def test_passes_that_differ_by_rounding_alone_are_equal_and_others_vary(mean: float) -> None:
    draws = Draws(count=32, left=None, blocks=0)
    for apart, varies in ((5e-15, False), (2e-14, True), (1e-7, True)):
        sums = {"mean": np.array([[mean]]), "squares": np.array([[32 * (apart * mean) ** 2]])}
        assert draws.is_within(sums, tolerance=2 * mean).tolist() == [varies]


def test_looks_are_multiples_of_16_and_end_with_all_samples() -> None:
    assert list(looks(256)) == [32, 48, 64, 96, 128, 192, 256]
    assert list(looks(100)) == [32, 48, 64, 96, 100]
    assert list(looks(20)) == [20]


def test_a_small_tolerance_of_probabilities_waits_for_rare_passes() -> None:
    assert list(looks(256, 0.01)) == [32, 48, 64, 96, 128, 192, 256]
    assert list(looks(256, 0.003)) == [128, 192, 256]
    assert list(looks(256, 0.001)) == [256]


@pytest.mark.parametrize("tolerance", [0.0, -0.1, float("nan"), float("inf"), True])
def test_a_tolerance_that_is_no_number_above_0_is_refused(tolerance: float) -> None:
    with pytest.raises(InputError, match="`tolerance` expects a number above 0"):
        Sampling(tolerance=tolerance)


def test_a_tolerance_needs_a_standard_error() -> None:
    with pytest.raises(InputError, match="method `mc`"):
        Sampling(1, method="point", tolerance=0.1)


def test_all_passes_are_refused_with_a_tolerance(tmp_path: Path) -> None:
    served = engine(tmp_path)
    with pytest.raises(InputError, match="different numbers"):
        served.predict(rows(2), sampling=Sampling(64, tolerance=0.1), keep_samples=True)
