"""Sums in numpy and in torch, of the same passes in other chunks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dubito.engine.answering.tally import Tally
from dubito.engine.heads import OutputHead, head_of
from dubito.engine.heads.logits import few_probabilities, probabilities
from dubito.engine.heads.numbers import log_variance
from dubito.engine.summing.arrays import is_small
from dubito.engine.summing.figures import classification, regression
from dubito.engine.summing.sheet import on_host
from dubito.engine.summing.statistics import ClassificationSums, RegressionSums
from dubito_nn import export, load_bundle

from .conftest import Bundles


def logits(count: int, rows: int = 3, classes: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return 2 * torch.randn(count, rows, classes, generator=generator)


@pytest.mark.parametrize("count", [1, 2, 15, 16, 40, 130])
@pytest.mark.parametrize("chunk", [1, 7, 16, 1000])
@pytest.mark.parametrize("left", [None, 0.2])
def test_numpy_sums_what_torch_sums(count: int, chunk: int, left: float | None) -> None:
    probs_TBC, sizes_TB2 = probabilities(logits(count), "logits")
    in_torch: ClassificationSums[Tensor] = ClassificationSums(left)
    in_torch.add(probs_TBC, sizes_TB2)
    in_numpy: ClassificationSums[np.ndarray] = ClassificationSums(left)
    for first in range(0, count, chunk):
        part = slice(first, first + chunk)
        in_numpy.add(probs_TBC[part].numpy(), sizes_TB2[part].numpy())
    with np.errstate(all="ignore"):  # one sample says nothing of a spread
        sums = in_numpy.sums()
        wanted = on_host(in_torch.sums())
    assert in_numpy.draws() == in_torch.draws()
    for name, column in classification(wanted, in_torch.draws()).items():
        found = classification(sums, in_numpy.draws())[name]
        np.testing.assert_allclose(found, column, rtol=1e-11, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("chunk", [1, 9, 1000])
def test_numpy_sums_a_regression_as_torch_does(chunk: int) -> None:
    mean_TBD, noise_TBD = logits(50).double(), logits(51)[:50].double().exp()
    in_torch: RegressionSums[Tensor] = RegressionSums(0.3)
    in_torch.add(mean_TBD, noise_TBD)
    in_numpy: RegressionSums[np.ndarray] = RegressionSums(0.3)
    for first in range(0, 50, chunk):
        part = slice(first, first + chunk)
        in_numpy.add(mean_TBD[part].numpy(), noise_TBD[part].numpy())
    wanted = regression(on_host(in_torch.sums()), in_torch.draws())
    for name, column in regression(in_numpy.sums(), in_numpy.draws()).items():
        np.testing.assert_allclose(column, wanted[name], rtol=1e-11, err_msg=name)


@pytest.mark.parametrize("output", ["logits", "log_probs", "probs", "sigmoid_logits"])
@pytest.mark.parametrize("temperature", [1.0, 0.3, 4.0])
def test_few_probabilities_are_those_of_many(output: str, temperature: float) -> None:
    raw = logits(6, classes=1 if output == "sigmoid_logits" else 4)
    raw = raw.softmax(-1) if output == "probs" else raw
    raw = raw.log_softmax(-1) if output == "log_probs" else raw
    if output == "probs":
        raw[0, 0] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    with np.errstate(all="ignore"):
        few = few_probabilities(raw, output, temperature)
    for found, wanted in zip(few, probabilities(raw, output, temperature), strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-12, atol=1e-14)


def head(folder: str) -> OutputHead:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Dropout(0.5))
    path = f"{folder}/network.dubito"
    bundle = export(network, torch.randn(4, 5), path, task="classification", output="logits")
    return head_of(bundle.manifest)


def test_few_passes_are_summed_in_numpy_and_many_in_torch(tmp_path: str) -> None:
    of = head(str(tmp_path))
    raw = logits(64, rows=64)  # 16,384 numbers
    assert not is_small(raw)
    assert is_small(raw[:, 1:])
    together, alone = Tally(of, left=0.2), Tally(of, left=0.2)
    for chunk in raw.split(5):
        together.add(chunk)
    alone.add(raw[:, 7:8])
    assert isinstance(together.sums.sums()["mean"], Tensor)
    assert isinstance(alone.sums.sums()["mean"], np.ndarray)
    every = together.columns()
    for name, column in alone.columns().items():
        np.testing.assert_allclose(column, every[name][7:8], rtol=1e-10, atol=1e-12, err_msg=name)


def test_passes_that_wait_are_copied_and_stay_as_they_were(tmp_path: str) -> None:
    tally, raw = Tally(head(str(tmp_path))), logits(12)
    before = raw.clone()
    for chunk in raw.split(3):
        tally.add(chunk)
    tally.columns()
    assert torch.equal(raw, before)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7])
@pytest.mark.parametrize("count", [2, 50, 100])
def test_equal_passes_have_no_spread_at_all(tmp_path: str, value: float, count: int) -> None:
    tally = Tally(head(str(tmp_path)), left=0.2)
    for chunk in torch.full((count, 2, 4), value).split(17):
        tally.add(chunk)
    found = tally.columns()
    for name in ("variance", "standard_error", "energy_spread"):
        assert not found[name].any(), name
    assert (found["mutual_information"] < 1e-14).all()


def test_an_overflow_is_nan_and_its_neighbour_is_not(tmp_path: str) -> None:
    tally, raw = Tally(head(str(tmp_path)), left=0.2), logits(40)
    raw[3, 1, 2] = float("inf")
    tally.add(raw)
    found = tally.columns()
    assert np.isnan(found["mean"][1]).all()
    np.testing.assert_allclose(found["vote_share"].sum(-1), [1, 39 / 40, 1])  # it votes for nothing
    tally = Tally(tally.head)
    tally.add(raw[3:4])
    alone = tally.columns()
    assert np.isnan(alone["standard_error"][1]).all()
    assert not alone["standard_error"][[0, 2]].any()
    assert np.isfinite(found["mean"][[0, 2]]).all()
    assert np.isfinite(found["standard_error"][[0, 2]]).all()


@pytest.mark.parametrize("log_of_it", [-800.0, 0.5, 800.0])
def test_a_log_variance_is_known_where_its_variance_is_0_or_infinite(
    bundles: Bundles, log_of_it: float
) -> None:
    raw = torch.tensor([0.0, log_of_it]).reshape(1, 1, 2, 1)
    scaled_by_2 = load_bundle(bundles("regression")).manifest
    found = log_variance(raw, scaled_by_2)
    assert found is not None
    assert found.item() == pytest.approx(log_of_it + 2 * np.log(2))
    assert log_variance(raw, replace(scaled_by_2, output="mean")) is None


@pytest.mark.parametrize("classes", [2, 4, 11])
def test_a_row_has_the_same_bits_alone_and_among_few(tmp_path: str, classes: int) -> None:
    raw = logits(50, rows=5, classes=classes)
    among = Tally(head(str(tmp_path)), left=0.2)
    among.add(raw)
    every = among.columns()
    for row in range(5):
        alone = Tally(among.head, left=0.2)
        alone.add(raw[:, row : row + 1])
        for name, column in alone.columns().items():
            np.testing.assert_array_equal(column, every[name][row : row + 1], err_msg=name)
