"""`dubito bench`: what it prints, writes and refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dubito.cli import main

from .conftest import NUM_FEATURES, Bundles

QUICK = ("--repeats", "1", "--rows", "4", "--reference", "400")
Bench = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bench(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, bundles: Bundles
) -> Bench:
    """Runs the command on a bundle and gives exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(name: str, *words: object) -> tuple[int, str, str]:
        command = ["dubito", "bench", str(bundles(name)), *map(str, words)]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def test_it_prints_a_line_for_every_t_and_says_that_rows_were_made_up(bench: Bench) -> None:
    code, out, err = bench("first", *QUICK, "--samples", "4,8", "--batch", "1,3")
    assert (code, err) == (0, "")
    starts = [line.split()[1] for line in out.splitlines() if line.startswith("│")]
    assert [start for start in starts if start != "moments"] == [  # which a network may refuse
        *("4", "8", "point"),
        *("plain", "point", "4", "8"),
    ]
    assert "B = 3" in out
    assert "rows: dummy rows" in out
    assert "against T = 400" in out


def test_it_writes_the_figures_and_a_picture(bench: Bench, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", inputs=np.zeros((6, NUM_FEATURES), np.float32))
    figures, picture = tmp_path / "bench.json", tmp_path / "bench.svg"
    code, out, _ = bench(
        "regression",
        *(*QUICK, "--samples", "4,8", "--batch", "2", "--budget-ms", "3600000"),
        *("--inputs", tmp_path / "rows.npz", "--json", figures, "--picture", picture),
    )
    assert code == 0
    assert "rows: dummy rows" not in out
    assert "B = 2: T = 8 answers within 3.6e+06 ms" in out
    found = json.loads(figures.read_text())
    assert [one["num_samples"] for one in found["accuracies"]] == [4, 8]
    assert [one["method"] for one in found["latencies"]][-2:] == ["mc", "mc"]
    assert all(one["minimum_ms"] <= one["median_ms"] for one in found["latencies"])
    assert (found["is_made_up"], found["num_rows"], found["reference"]) == (False, 4, 400)
    assert picture.read_text().startswith("<?xml")


def test_a_budget_that_nothing_meets_is_said(bench: Bench) -> None:
    words = (*QUICK, "--samples", "4", "--batch", "1", "--budget-ms", "0")
    assert "B = 1: no T that was tried answers within 0 ms" in bench("first", *words)[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--samples", "8,x"], "`samples` expects whole numbers with commas, got '8,x'"),
        (["--samples", "1"], "`samples` expects numbers of at least 2, got 1"),
        (["--batch", "0"], "`batch` expects numbers of at least 1, got 0"),
        (["--inputs", "rows.dat"], "expected a .npy, .npz or .json file"),
        (["--device", "nothing"], "`device` expects one that torch finds, got nothing"),
        (["--masks", "none"], "`masks`: expected 'shared' or 'independent'"),
    ],
)
def test_what_a_person_can_mend_is_one_line(bench: Bench, words: list[str], told: str) -> None:
    code, out, err = bench("first", *words)
    assert (code, out) == (1, "")
    assert told in err
    assert len(err.splitlines()) == 1


def test_a_request_says_what_is_measured_unless_an_option_does(
    bench: Bench, tmp_path: Path
) -> None:
    asked, figures = tmp_path / "body.json", tmp_path / "bench.json"
    body = {"inputs": [[0.0] * NUM_FEATURES] * 4, "num_samples": 4, "seed": 3, "draw": "iid"}
    asked.write_text(json.dumps({**body, "calibration": "active", "tolerance": None}))
    words = (*QUICK, "--inputs", asked, "--batch", "1", "--json", figures)
    assert bench("first", *words, "--seed", "5")[0] == 0
    found = json.loads(figures.read_text())
    assert [one["num_samples"] for one in found["accuracies"]] == [4]
    assert (found["seed"], found["draw"], found["masks"]) == (5, "iid", "shared")
    for wrong, told in (
        ({"coverage": 0.8, "method": "mc"}, "got coverage, method as well: leave out"),
        ({"sed": 3}, "`sed`: unknown field"),
    ):
        asked.write_text(json.dumps({**body, **wrong}))
        code, _, err = bench("first", *words)
        assert (code, told in err) == (1, True), err


def test_rows_that_do_not_fit_are_refused_before_anything_is_measured(
    bench: Bench, tmp_path: Path
) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((2, NUM_FEATURES + 1), np.float32))
    code, out, err = bench("first", "--inputs", tmp_path / "rows.npy")
    assert (code, out) == (1, "")
    assert "expects rows of shape" in err


def test_choices_of_sites_are_compared_with_all_on_labelled_rows(
    bench: Bench, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(40, NUM_FEATURES)).astype(np.float32)
    labels = generator.integers(0, 3, 40)
    np.savez(tmp_path / "rows.npz", inputs=rows, labels=labels, ood_inputs=5 * rows[:10])
    figures = tmp_path / "bench.json"
    words = ("--repeats", "1", "--rows", "30", "--reference", "0", "--batch", "2")
    asked = ("--samples", "16", "--inputs", tmp_path / "rows.npz", "--json", figures)
    code, out, _ = bench("deep", *words, *asked, "--choices", "last,0+1,[2],8")
    assert code == 0
    assert "16, sites last" in out
    assert "sites 8: `sites` expects site numbers from 0 to 1" in out
    found = json.loads(figures.read_text())
    every, other, last, both, first, refused = found["agreements"]
    named = [one["choice"] for one in found["agreements"]]
    assert named == ["all", "all, another seed", "last", "0,1", "[2]", "8"]
    assert [one["sampled"] for one in found["agreements"]] == [2, 2, 1, 2, 1, 0]
    assert {**both, "choice": "all"} == every
    assert (every["rank_epistemic"], every["mean_error"]) == (pytest.approx(1), 0)
    for one in (other, last, first):
        assert -1 <= one["rank_epistemic"] < 1
        assert one["mean_error"] > 0
        assert 0 <= one["auroc_errors"] <= 1
        assert 0 <= one["auroc_strange"] <= 1
        assert one["nll"] != every["nll"]
    assert "names no site" in refused["refused"]
    timed = [one["sites"] for one in found["latencies"] if one["method"] == "mc"]
    assert timed == ["all", "last", "0,1", "[2]"]


def test_without_truths_choices_are_compared_all_the_same_and_one_site_has_none(
    bench: Bench, tmp_path: Path
) -> None:
    figures = tmp_path / "bench.json"
    words = (*QUICK, "--samples", "4", "--batch", "1", "--json", figures)
    assert bench("deep", *words)[0] == 0
    found = json.loads(figures.read_text())
    assert [one["choice"] for one in found["agreements"]] == ["all", "all, another seed", "last"]
    assert found["compared_t"] == 4
    assert {one["nll"] for one in found["agreements"]} == {None}
    assert bench("first", *words)[0] == 0
    assert json.loads(figures.read_text())["agreements"] == []


def test_a_regression_is_compared_by_its_variances(bench: Bench, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40, NUM_FEATURES)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", inputs=rows, targets=10 + rows[:, :1])
    figures = tmp_path / "bench.json"
    words = (*QUICK, "--samples", "16", "--batch", "1", "--json", figures)
    data = ("--inputs", tmp_path / "rows.npz", "--choices", "last")
    assert bench("regression", *words, *data)[0] == 0
    _, other, last = json.loads(figures.read_text())["agreements"]
    assert other["rank_epistemic"] is not None
    assert last["mean_error"] == 0  # the one site that there is
    assert last["nll"] is not None
    assert last["auroc_errors"] is None
