"""Kernels of sums in Triton's interpreter, against the reference: run by `test_launched.py`.

Triton reads `TRITON_INTERPRET` when it is imported, so that this has a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from launches import counts, perceptron
from torch import Tensor

from dubito.engine.heads.logits import logits as plain_logits
from dubito.engine.heads.logits import of_logits, to_sum
from dubito.engine.heads.scaling import Isotonic, Scaling, Vector
from dubito.engine.summing.cuda.classes import LaunchedClassSums
from dubito.engine.summing.cuda.numbers import LaunchedNumberSums
from dubito.engine.summing.cuda.tiles import Tiles
from dubito.engine.summing.figures import regression
from dubito.engine.summing.logits import Logits
from dubito.engine.summing.sheet import on_host
from dubito.engine.summing.statistics import ClassificationSums, ReferenceSums, RegressionSums

from .test_summing import check_same, columns_of, logits, number_parts, reference

LARGE = Tiles(numbers=2**15, places=512)  # the interpreter's time goes by programs
USUAL = Tiles()


def launched(
    left: float | None,
    output: str = "logits",
    scaling: Scaling = 1.0,
    groups: int = 64,
    tiles: Tiles = LARGE,
) -> LaunchedClassSums:
    find = partial(to_sum, output=output, scaling=scaling)
    return LaunchedClassSums(find, left, groups, tiles=tiles)


@pytest.mark.parametrize(
    ("count", "rows", "classes", "chunk", "left", "temperature", "spread", "tiles"),
    [
        (2, 33, 2, 2**30, None, 1.0, 3.0, LARGE),
        (15, 1, 10, 2**30, 0.2, 0.3, 3.0, USUAL),
        (16, 3, 3, 2**30, 0.2, 4.0, 1e-4, LARGE),
        (64, 33, 10, 2**30, 0.2, 1.0, 1e-4, LARGE),
        (64, 2, 100, 48, 0.2, 0.3, 3.0, LARGE),
        (65, 3, 257, 2**30, 0.2, 1.0, 3.0, LARGE),
        (130, 3, 10, 64, 0.2, 1.0, 3.0, LARGE),
    ],
)
def test_kernels_sum_what_the_reference_sums(
    count: int,
    rows: int,
    classes: int,
    chunk: int,
    left: float | None,
    temperature: float,
    spread: float,
    tiles: Tiles,
) -> None:
    raw = logits(1, rows, classes) + spread / 2 * logits(count, rows, classes)
    found = columns_of(launched(left, scaling=temperature, tiles=tiles), raw, chunk)
    check_same(found, columns_of(reference(left, scaling=temperature), raw))


def certain(raw: Tensor) -> None:
    raw[:, -1, 1] += 200


def gone(raw: Tensor) -> None:
    raw[:, -1, 0] = -torch.inf


def unknown(raw: Tensor) -> None:
    raw[3, -1, -1] = torch.nan


def infinite(raw: Tensor) -> None:
    raw[17, -1, -1] = torch.inf


def nowhere(raw: Tensor) -> None:
    raw[17, -1] = -torch.inf


def vast(raw: Tensor) -> None:
    raw[:, -1] += 1e4


@pytest.mark.parametrize(
    ("make_odd", "temperature"),
    [
        *((certain, 1.0), (gone, 0.3), (unknown, 1.0)),
        *((infinite, 0.3), (nowhere, 1.0), (vast, 0.3)),
    ],
)
def test_odd_logits_are_summed_as_by_the_reference(
    make_odd: Callable[[Tensor], None], temperature: float
) -> None:
    raw = logits(33, rows=3, classes=5)
    make_odd(raw)
    found = columns_of(launched(0.2, scaling=temperature), raw)
    check_same(found, columns_of(reference(0.2, scaling=temperature), raw))
    assert np.isfinite(found["mean"][:-1]).all()


def test_classes_of_several_tiles_are_one_distribution_and_the_first_of_equals_is_chosen() -> None:
    raw = logits(8, rows=1, classes=20)
    raw[:4, 0, [3, 19]] = 9
    found = columns_of(launched(0.2, scaling=0.5, tiles=Tiles(numbers=8)), raw)
    check_same(found, columns_of(reference(0.2, scaling=0.5), raw))
    assert found["vote_share"][0, 3] >= 0.5


def test_equal_passes_have_no_spread_at_all() -> None:
    raw = logits(50, rows=3, classes=5)
    raw[:, 1] = raw[0, 1]
    found = columns_of(launched(0.2), raw)
    for name in ("variance", "standard_error", "mutual_information", "energy_spread"):
        assert not found[name][1].any(), name
        assert found[name][[0, 2]].all(), name
    assert found["mutual_information_corrected"][1] == 0


@pytest.mark.parametrize(
    ("output", "scaling"),
    [
        ("log_probs", 0.3),
        ("probs", 0.3),
        ("probs", Isotonic((0.1, 0.9), (0.2, 0.7), 9)),
        ("sigmoid_logits", 4.0),
        ("sigmoid_logits", Vector((0.5, 2.0), (0.3, -0.2))),
    ],
)
def test_every_output_and_scaling_is_summed_as_by_the_reference(
    output: str, scaling: Scaling
) -> None:
    raw = logits(40, classes=1 if output == "sigmoid_logits" else 4)
    raw = raw.softmax(-1) if output == "probs" else raw
    raw = raw.log_softmax(-1) if output == "log_probs" else raw
    if output == "probs":
        raw[0, 0] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    found = columns_of(launched(0.2, output, scaling), raw)
    check_same(found, columns_of(reference(0.2, output, scaling), raw))


@pytest.mark.parametrize(("is_mean", "is_binary"), [(True, False), (False, True)])
def test_positions_have_sums_of_their_own_and_rows_one_size(is_mean: bool, is_binary: bool) -> None:
    maps = logits(48, rows=3, classes=24).reshape(48, 3, 1 if is_binary else 4, -1, 2)
    raw = maps.movedim(2, -1)  # as a map of channels lies in memory
    output = "sigmoid_logits" if is_binary else "logits"

    def of_row(sizes: Tensor) -> Tensor:
        return sizes.flatten(2, -2).mean(2) if is_mean else sizes.flatten(2, -2).sum(2)

    def find(raw: Tensor) -> Logits:
        return to_sum(raw, output, 1.0)

    wanted = ClassificationSums(0.2, 8)
    probs, sizes = of_logits(plain_logits(raw, output), 1.0)
    wanted.add(probs, of_row(sizes))
    whole = ReferenceSums(lambda _: iter(()), wanted)
    found = LaunchedClassSums(find, 0.2, 8, is_mean, LARGE)
    check_same(columns_of(found, raw, 32), columns_of(whole, raw))


def test_rows_that_leave_go_on_as_if_alone() -> None:
    raw, groups, chunk = logits(144, rows=4), 64, 48
    together = launched(0.2, groups=groups)
    for part in raw[:64].split(chunk):
        together.add(part, is_last=False)
    left = together.take(torch.tensor([1, 3]))
    found = columns_of(left, raw[64:, [1, 3]], chunk)
    check_same(found, columns_of(reference(0.2, groups=groups), raw[:, [1, 3]]))
    check_same(columns_of(together, raw[64:]), columns_of(reference(0.2, groups=groups), raw))


def test_long_groups_are_made_of_those_of_the_kernels() -> None:
    raw = logits(130, rows=2, classes=3)
    check_same(
        columns_of(launched(0.2, groups=2), raw, 80),
        columns_of(reference(0.2, groups=2), raw),
    )


@pytest.mark.parametrize(
    ("count", "left", "unit"),
    [
        *((1, 0.3, 1.0), (2, None, 1e30), (15, 0.3, 1e-30)),
        *((16, 0.3, 1e30), (50, 0.3, 1e-30), (160, 0.3, 1.0)),
    ],
)
def test_kernels_sum_a_regression_as_the_reference_does(
    count: int, left: float | None, unit: float
) -> None:
    def parts(raw: Tensor):  # type: ignore[no-untyped-def]
        for mean, beside in number_parts(raw):
            yield unit * (mean + 1000), beside

    raw = torch.stack((logits(count, 2, 3), logits(count, 2, 3)), 2)
    in_chunks = LaunchedNumberSums(parts, left, LARGE)
    pieces = raw.split(48)
    for piece in pieces:
        in_chunks.add(piece, is_last=piece is pieces[-1])
    whole = ReferenceSums(parts, RegressionSums(left))
    whole.add(raw, is_last=True)
    wanted = regression(on_host(whole.sums()), whole.draws())
    for name, column in regression(on_host(in_chunks.sums()), in_chunks.draws()).items():
        np.testing.assert_allclose(column, wanted[name], rtol=1e-5, err_msg=name)
        if name == "mean":
            np.testing.assert_allclose(column, wanted[name], rtol=1e-9)
    one = regression(on_host(in_chunks.take(torch.tensor([1])).sums()), in_chunks.draws())
    np.testing.assert_allclose(one["variance"], wanted["variance"][1:], rtol=1e-5)


def test_a_number_that_overflows_is_nan_and_its_neighbour_is_not() -> None:
    raw = torch.stack((logits(40, 2, 2), logits(40, 2, 2)), 2)
    raw[7, 0, 0, 1] = torch.inf
    sums = LaunchedNumberSums(number_parts, 0.2, LARGE)
    with np.errstate(invalid="ignore"):
        sums.add(raw, is_last=True)
        found = regression(on_host(sums.sums()), sums.draws())
    assert np.isnan(found["variance"][0, 1])
    assert np.isfinite(found["variance"][0, 0])
    assert np.isfinite(found["standard_error"][1]).all()


def test_an_answer_of_a_perceptron_launches_few_kernels() -> None:
    counted = counts(perceptron(10, width=64), torch.randn(1, 784))
    assert counted["passes"].total() + counted["kernels"].total() <= 15
    assert counted["kernels"]["sum_probabilities"] == 1
    assert counted["reference"].total() > 60
