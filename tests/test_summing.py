"""Sums of passes: compiled loops and the reference, of the same passes in other chunks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dubito.engine import Engine
from dubito.engine.answering.tally import Tally
from dubito.engine.heads import OutputHead, head_of
from dubito.engine.heads.logits import probabilities, to_sum
from dubito.engine.heads.numbers import log_variance
from dubito.engine.heads.scaling import Isotonic, Scaling, Vector
from dubito.engine.summing.compiled import is_used, left_out
from dubito.engine.summing.compiled.at_once import FiguresWanted, class_columns, number_columns
from dubito.engine.summing.compiled.classes import CompiledClassSums
from dubito.engine.summing.compiled.figures import classification as compiled_figures
from dubito.engine.summing.compiled.lean import LeanClassSums
from dubito.engine.summing.compiled.lean import figures as lean_figures
from dubito.engine.summing.compiled.numbers import CompiledNumberSums
from dubito.engine.summing.figures import QUIET, classification, regression
from dubito.engine.summing.logits import Logits
from dubito.engine.summing.sheet import on_host
from dubito.engine.summing.statistics import (
    ClassificationSums,
    ReferenceSums,
    RegressionSums,
    RunningSums,
)
from dubito_nn import load_bundle

from .conftest import Bundles

MEAN, ENTROPY = 1e-7, 1e-6
Columns = dict[str, np.ndarray]


def logits(count: int, rows: int = 3, classes: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return 2 * torch.randn(count, rows, classes, generator=generator)


def reference(
    left: float | None, output: str = "logits", scaling: Scaling = 1.0, groups: int = 64
) -> ReferenceSums:
    def parts(raw: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        yield probabilities(raw, output, scaling)

    return ReferenceSums(parts, ClassificationSums(left, groups))


def compiled(
    left: float | None, output: str = "logits", scaling: Scaling = 1.0, groups: int = 64
) -> CompiledClassSums:
    return CompiledClassSums(partial(to_sum, output=output, scaling=scaling), left, groups)


@QUIET
def columns_of(sums: RunningSums, raw: Tensor, chunk: int = 2**30) -> Columns:
    """What sums say of passes that come in chunks of whole blocks."""
    parts = raw.split(max(16, chunk // 16 * 16))
    for part in parts:
        sums.add(part, is_last=part is parts[-1])
    figures = compiled_figures if isinstance(sums, CompiledClassSums) else classification
    return figures(on_host(sums.sums()), sums.draws())


def check_same(found: Columns, wanted: Columns) -> None:
    """Raise where columns differ by more than float32 passes do."""
    assert set(found) - {"label_index"} == set(wanted)
    information = wanted["mutual_information"]
    for name, column in wanted.items():
        np.testing.assert_array_equal(np.isnan(found[name]), np.isnan(column), err_msg=name)
        is_same = found[name] == column  # infinite, maybe
        off = np.subtract(found[name], column, where=~is_same, out=np.zeros_like(column))
        off = np.nan_to_num(np.abs(off))
        bound: float | np.ndarray = ENTROPY
        if name in ("mean", "variance"):
            bound = MEAN if name == "mean" else 4 * MEAN  # of squares, at low temperatures
        elif name == "mutual_information":
            bound = np.nan_to_num(MEAN + 1e-3 * information)
        elif name in ("vote_share", "variation_ratio"):
            bound = 1e-12
        elif name in ("energy", "max_logit", "energy_spread"):
            bound = 1e-6 * (1 + np.nan_to_num(np.abs(column)))
        elif name == "mutual_information_corrected":
            bound = np.nan_to_num(ENTROPY + 1e-3 * np.abs(column))
        assert (off <= bound).all(), (name, off.max())


@settings(deadline=None)
@given(
    count=st.sampled_from([2, 3, 15, 16, 17, 33, 64, 65, 130, 200]),
    rows=st.sampled_from([1, 2, 65]),
    classes=st.sampled_from([2, 3, 10, 33, 100, 256, 300]),
    chunk=st.sampled_from([16, 48, 2**30]),
    left=st.sampled_from([None, 0.2]),
    temperature=st.sampled_from([1.0, 0.3, 4.0]),
    spread=st.sampled_from([3.0, 1e-4]),
    odd=st.sampled_from(["", "certain", "gone", "nan", "inf", "equal", "vast"]),
    seed=st.integers(0, 99),
)
def test_compiled_loops_sum_what_the_reference_sums(
    count: int,
    rows: int,
    classes: int,
    chunk: int,
    left: float | None,
    temperature: float,
    spread: float,
    odd: str,
    seed: int,
) -> None:
    draw = torch.Generator().manual_seed(seed)
    raw = 3 * torch.randn(1, rows, classes, generator=draw)
    raw = raw + spread * torch.randn(count, rows, classes, generator=draw)
    last, at = rows - 1, seed % count
    if odd == "certain":
        raw[:, last, 1] += 200
    elif odd == "gone":
        raw[:, last, 0] = -torch.inf
    elif odd in ("nan", "inf"):
        raw[at, last, classes - 1] = float(odd)
    elif odd == "equal":
        raw[:, last] = raw[0, last]
    elif odd == "vast":
        raw[:, last] += 1e4
    found = columns_of(compiled(left, scaling=temperature), raw, chunk)
    check_same(found, columns_of(reference(left, scaling=temperature), raw))
    if odd == "equal":
        assert found["mutual_information"][last] == 0
        assert found["mutual_information_corrected"][last] == 0
        assert not found["variance"][last].any()
        assert not found["standard_error"][last].any()
    np.testing.assert_allclose(
        np.nansum(found["mean"], -1), 1 - np.isnan(found["energy"]), rtol=1e-12
    )


@pytest.mark.parametrize("output", ["logits", "log_probs", "probs", "sigmoid_logits"])
@pytest.mark.parametrize(
    "scaling",
    [
        1.0,
        0.3,
        4.0,
        Vector((0.5, 2.0, 1.0, 1.5), (0.3, -0.2, 0.0, 1.0)),
        Isotonic((0.1, 0.5, 0.9), (0.0, 0.7, 0.95), 40),
    ],
    ids=["as it is", "sharp", "flat", "vector", "isotonic"],
)
def test_every_output_and_scaling_is_summed_as_by_the_reference(
    output: str, scaling: Scaling
) -> None:
    if output == "sigmoid_logits" and isinstance(scaling, Vector):
        scaling = Vector((0.5, 2.0), (0.3, -0.2))
    raw = logits(50, classes=1 if output == "sigmoid_logits" else 4)
    raw = raw.softmax(-1) if output == "probs" else raw
    raw = raw.log_softmax(-1) if output == "log_probs" else raw
    if output == "probs":
        raw[0, 0] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    found = columns_of(compiled(0.2, output, scaling), raw)
    check_same(found, columns_of(reference(0.2, output, scaling), raw))


@pytest.mark.parametrize("count", [2, 17, 64, 130])
@pytest.mark.parametrize("output", ["logits", "probs", "sigmoid_logits"])
@pytest.mark.parametrize("left", [None, 0.2])
@pytest.mark.parametrize("shape", [(1, 4), (7, 4), (3, 300), (3, 5, 4), (2, 6, 3, 4)])
def test_a_small_call_is_told_at_once_what_sums_say(
    count: int, output: str, left: float | None, shape: tuple[int, ...]
) -> None:
    shape = (*shape[:-1], 1) if output == "sigmoid_logits" else shape
    raw = torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))
    raw = raw.softmax(-1) if output == "probs" else raw
    raw = raw.transpose(1, -1).contiguous().transpose(1, -1) if len(shape) > 2 else raw
    find = partial(to_sum, output=output, scaling=0.5)
    for is_lean in (False, True):
        found = class_columns(find(raw), FiguresWanted(left, 8, is_mean=True, is_lean=is_lean))
        assert found is not None
        sums = (
            LeanClassSums(find, is_mean=True)
            if is_lean
            else CompiledClassSums(find, left, 8, is_mean=True)
        )
        sums.add(raw, is_last=True)
        figures = lean_figures if is_lean else compiled_figures
        for name, column in figures(sums.sums(), sums.draws()).items():
            np.testing.assert_allclose(found[name], column, rtol=1e-12, atol=1e-12, err_msg=name)


def test_a_large_call_and_sizes_found_elsewhere_are_summed_first() -> None:
    wanted, few = FiguresWanted(0.2, 64, is_mean=False, is_lean=False), logits(4)
    assert class_columns(Logits(torch.zeros(2**18 + 1, 1, 1)), wanted) is None
    assert class_columns(Logits(few, sizes=few[..., :2]), wanted) is None
    assert class_columns(Logits(few), wanted) is not None


@pytest.mark.parametrize("classes", [2, 10, 31, 100, 255, 257])
def test_a_row_has_the_same_bits_alone_and_among_others(classes: int) -> None:
    raw = logits(64, rows=70, classes=classes)
    every = columns_of(compiled(0.2), raw)
    for count in (1, 2, 3, 16, 33, 64):
        part = columns_of(compiled(0.2), raw[:, 5 : 5 + count].clone())
        for name, column in part.items():
            np.testing.assert_array_equal(column, every[name][5 : 5 + count], err_msg=name)


def test_bits_do_not_hang_on_how_many_threads_there_are() -> None:
    raw, threads = logits(64, rows=300, classes=20), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(columns_of(compiled(0.2), raw))
    finally:
        torch.set_num_threads(threads)
    for name, column in found[0].items():
        np.testing.assert_array_equal(column, found[1][name], err_msg=name)


@pytest.mark.parametrize("groups", [8, 64])
@pytest.mark.parametrize("chunk", [16, 32, 160])
def test_rows_that_leave_go_on_as_if_alone(groups: int, chunk: int) -> None:
    raw = logits(144, rows=4)
    alone = columns_of(compiled(0.2, groups=groups), raw[:, [1, 3]], chunk)
    together = compiled(0.2, groups=groups)
    for part in raw[:64].split(chunk):
        together.add(part, is_last=False)
    left = together.take(torch.tensor([1, 3]))
    found = columns_of(left, raw[64:, [1, 3]], chunk)
    for name, column in alone.items():
        np.testing.assert_allclose(found[name], column, rtol=1e-5, atol=1e-7, err_msg=name)
    check_same(found, columns_of(reference(0.2, groups=groups), raw[:, [1, 3]]))


def number_parts(raw: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield raw[:, :, 0].double(), raw[:, :, 1].double().exp()


@pytest.mark.parametrize("count", [1, 2, 15, 16, 50, 160])
@pytest.mark.parametrize("left", [None, 0.3])
@pytest.mark.parametrize("unit", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("outputs", [1, 3, 300])
def test_compiled_loops_sum_a_regression_as_the_reference_does(
    count: int, left: float | None, unit: float, outputs: int
) -> None:
    def parts(raw: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for mean, beside in number_parts(raw):
            yield unit * (mean + 1000), beside

    raw = torch.stack((logits(count, 2, outputs), logits(count, 2, outputs)), 2)
    in_chunks = CompiledNumberSums(parts, left)
    pieces = raw.split(48)
    for piece in pieces:
        in_chunks.add(piece, is_last=piece is pieces[-1])
    whole = ReferenceSums(parts, RegressionSums(left))
    whole.add(raw, is_last=True)
    wanted = regression(on_host(whole.sums()), whole.draws())
    ((mean, beside),) = parts(raw)
    for name, column in number_columns(mean, beside, left).items():
        np.testing.assert_allclose(column, wanted[name], rtol=1e-5, err_msg=name)
    for name, column in regression(in_chunks.sums(), in_chunks.draws()).items():
        np.testing.assert_allclose(column, wanted[name], rtol=1e-5, err_msg=name)
        if name == "mean":
            np.testing.assert_allclose(column, wanted[name], rtol=1e-9)


def test_a_number_that_overflows_is_nan_and_its_neighbour_is_not() -> None:
    raw = torch.stack((logits(40, 2, 2), logits(40, 2, 2)), 2)
    raw[7, 0, 0, 1] = torch.inf
    sums = CompiledNumberSums(number_parts, 0.2)
    sums.add(raw, is_last=True)
    found = regression(sums.sums(), sums.draws())
    assert np.isnan(found["variance"][0, 1])
    assert np.isfinite(found["variance"][0, 0])
    assert np.isfinite(found["standard_error"][1]).all()
    alone = CompiledNumberSums(number_parts, None)
    alone.add(raw[7:8], is_last=True)
    error = regression(alone.sums(), alone.draws())["standard_error"]
    np.testing.assert_array_equal(error, [[0, np.nan], [0, 0]])


def test_figures_of_a_device_s_sums_are_those_of_the_reference() -> None:
    raw = logits(40)
    sums = reference(0.2)
    sums.add(raw, is_last=True)
    host = {name: np.asfortranarray(column) for name, column in on_host(sums.sums()).items()}
    check_same(compiled_figures(host, sums.draws()), classification(host, sums.draws()))


def test_where_numba_is_not_installed_the_reference_serves(
    bundles: Bundles, tmp_path: Path
) -> None:
    script = """
import builtins, sys
whole = builtins.__import__
def without(name, *args, **kwargs):
    if name.split(".")[0] == "numba":
        raise ImportError(name)
    return whole(name, *args, **kwargs)
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "numba" else found(name, *rest)
builtins.__import__ = without
import torch
from dubito.engine import Engine
engine = Engine.load(sys.argv[1], num_samples=20)
torch.save(engine.predict(torch.linspace(-1, 1, 12).reshape(3, 4)).mean, sys.argv[2])
assert "numba" not in sys.modules
"""
    out = tmp_path / "mean.pt"
    path = bundles("first")
    subprocess.run([sys.executable, "-c", script, str(path), str(out)], check=True)
    mean = Engine.load(path, num_samples=20).predict(torch.linspace(-1, 1, 12).reshape(3, 4)).mean
    np.testing.assert_allclose(mean, torch.load(out, weights_only=False), atol=MEAN)


def test_one_small_call_leaves_the_loops_out_and_says_the_same(bundles: Bundles) -> None:
    engine, x = Engine.load(bundles("first"), num_samples=20), torch.linspace(-1, 1, 12)
    by_loops = engine.predict(x.reshape(3, 4))
    with left_out():
        assert not is_used(torch.device("cpu"))
        by_reference = engine.predict(x.reshape(3, 4))
    assert is_used(torch.device("cpu"))
    np.testing.assert_allclose(by_reference.mean, by_loops.mean, atol=MEAN)
    np.testing.assert_allclose(
        by_reference.mutual_information, by_loops.mutual_information, rtol=1e-3, atol=1e-7
    )


def test_what_is_compiled_is_kept_where_it_can_be_and_runs_where_it_cannot(tmp_path: Path) -> None:
    """In processes that import Numba with a folder of their own, and torch once."""
    script = """
import os
import sys
import numpy as np
import torch
for folder in sys.argv[1:]:
    if (child := os.fork()) == 0:
        os.environ["NUMBA_CACHE_DIR"] = folder
        from dubito.engine.summing.compiled.compiling import loop
        @loop
        def total(x):
            result = 0.0
            for i in range(x.shape[0]):
                result += x[i]
            return result
        assert total(np.ones(5)) == 5
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
    file = tmp_path / "script.py"
    file.write_text(script)
    folders = {tmp_path / "kept": True, Path("/proc/none"): False}
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, file, *folders], check=True, env=environment)
    for folder, is_kept in folders.items():
        assert bool(list(folder.glob("loops-*/*/*.nbc"))) == is_kept


@pytest.fixture(scope="module")
def head(bundles: Bundles) -> OutputHead:
    """That of logits, for however many classes."""
    return head_of(load_bundle(bundles("first")).manifest)


def test_passes_that_wait_are_copied_and_stay_as_they_were(head: OutputHead) -> None:
    tally, raw = Tally(head), logits(12)
    before = raw.clone()
    for chunk in raw.split(3):
        tally.add(chunk)
    tally.columns()
    assert torch.equal(raw, before)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7])
@pytest.mark.parametrize("count", [2, 50, 100])
def test_equal_passes_have_no_spread_at_all(head: OutputHead, value: float, count: int) -> None:
    tally = Tally(head, left=0.2)
    for chunk in torch.full((count, 2, 4), value).split(17):
        tally.add(chunk)
    found = tally.columns()
    for name in ("variance", "standard_error", "energy_spread"):
        assert not found[name].any(), name
    assert not found["mutual_information"].any()


def test_an_overflow_is_nan_and_its_neighbour_is_not(head: OutputHead) -> None:
    tally, raw = Tally(head, left=0.2), logits(40)
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
    by_reference = columns_of(reference(None), raw[3:4])["standard_error"]
    np.testing.assert_array_equal(by_reference, alone["standard_error"])
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
def test_a_row_has_the_same_bits_alone_and_among_few(head: OutputHead, classes: int) -> None:
    raw = logits(50, rows=5, classes=classes)
    among = Tally(head, left=0.2)
    among.add(raw)
    every = among.columns()
    for row in range(5):
        alone = Tally(among.head, left=0.2)
        alone.add(raw[:, row : row + 1])
        for name, column in alone.columns().items():
            np.testing.assert_array_equal(column, every[name][row : row + 1], err_msg=name)
