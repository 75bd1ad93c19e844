"""`dubito pool`, `dubito jobs`, and work on stored pools from the shell, without a server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dubito.errors import InputError
from dubito.pools.shelf import format_of
from dubito.pools.unpack import unpack
from dubito_nn import export

from .conftest import NUM_FEATURES, Bundles, with_tables
from .shell import Run
from .shell import run_command as _run


@pytest.fixture(autouse=True)
def _data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(with_tables(tmp_path / "data")))
    monkeypatch.setenv("DUBITO_NUM_SAMPLES", "16")
    monkeypatch.setenv("DUBITO_POLL_MS", "20")
    monkeypatch.setenv("COLUMNS", "200")


def test_a_pool_goes_all_the_way(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundles: Bundles,
    tmp_path: Path,
) -> None:
    rows = np.random.default_rng(0).normal(size=(60, NUM_FEATURES)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)

    def run(*words: object) -> Run:
        return _run(capsys, monkeypatch, *words)

    assert run("register", bundles("first"), "--model", "animals")[0] == 0
    code, out, _ = run("pool", "add", tmp_path / "rows.npy", "--name", "wild")
    assert (code, out.strip()) == (0, "wild: 60 rows of inputs f4 4")
    assert "wild" in run("pool", "list")[1]
    assert "sha256" in run("pool", "show", "wild")[1]
    code, _, err = run("pool", "add", tmp_path / "rows.npy", "--name", "wild")
    assert (code, "exists already" in err) == (1, True)

    code, _, err = run("predict", "animals", "--pool", "wild", "--out", tmp_path / "all.npz")
    assert code == 0, err
    with np.load(tmp_path / "all.npz") as found:
        assert found["mean"].shape == (60, 3)
    code, out, err = run(
        *("select", "animals", "--pool", "wild", "--strategy", "bald", "-k", 3, "--json")
    )
    assert code == 0, err
    assert len(json.loads(out)["indices"]) == 3

    shown = run("jobs")[1]
    assert shown.count("succeeded") == 2
    (job, _) = re.findall(r"job-[0-9a-f]+", shown)
    assert "60 of 60 rows" in run("jobs", "show", job)[1]
    assert run("jobs", "result", job, "--out", tmp_path / "again")[0] == 0
    assert (tmp_path / "again").stat().st_size > 0
    code, _, err = run("jobs", "cancel", job)
    assert (code, "is succeeded" in err) == (1, True)
    assert run("pool", "delete", "wild")[0] == 0
    assert run("pool", "delete", "wild")[0] == 1


def test_rows_come_from_one_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (
        ("predict", "animals"),
        ("predict", "animals", "--pool", "wild"),
        ("select", "animals", "--strategy", "bald", "-k", 1),
    ):
        code, _, err = _run(capsys, monkeypatch, *words)
        assert (code, "--pool NAME" in err) == (1, True)


def test_a_file_of_labelled_rows_is_told_what_to_leave_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = np.zeros((6, NUM_FEATURES), np.float32)
    for truth in (np.array(["ant"] * 6), np.arange(6)):
        np.savez(tmp_path / "held_out.npz", inputs=rows, labels=truth)
        code, _, err = _run(capsys, monkeypatch, "pool", "add", tmp_path / "held_out.npz")
        assert code == 1
        assert "expected unlabelled rows, got `labels` beside `inputs`" in err
        assert "numpy.savez(path, inputs=inputs)" in err


class _Sum(nn.Module):
    """Takes two numbers of a row under names of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))

    def forward(self, width: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.body(torch.cat([width, height], 1))
        return found


def test_a_table_is_taken_by_the_names_of_its_columns_and_refused_by_them(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundles: Bundles,
    tmp_path: Path,
) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    shuffled = np.random.default_rng(1).permutation(20)
    table = pd.DataFrame(rows, columns=["height", "width", "depth"], index=shuffled)
    table[["height", "width"]].to_parquet(tmp_path / "two.parquet")
    table.to_parquet(tmp_path / "three.parquet")
    height, width = rows[:, :1], rows[:, 1:2]
    np.savez(tmp_path / "rows.npz", height=height, width=width)
    labelled = {"inputs.height": height, "inputs.width": width, "labels": np.arange(20) % 3}
    np.savez(tmp_path / "labelled.npz", **labelled)
    example = {"width": torch.randn(3, 1), "height": torch.randn(3, 1)}
    export(_Sum(), example, tmp_path / "sum.dubito", task="classification", output="logits")

    def run(*words: object) -> Run:
        return _run(capsys, monkeypatch, *words)

    for bundle, model in ((tmp_path / "sum.dubito", "sums"), (bundles("first"), "animals")):
        assert run("register", bundle, "--model", model)[0] == 0
    for name in ("two", "three"):
        assert run("pool", "add", tmp_path / f"{name}.parquet", "--name", name)[0] == 0
    asked = ("predict", "sums", "--pool", "two", "--out", tmp_path / "all.npz")
    code, _, err = run(*asked)
    assert code == 0, err
    means = [
        json.loads(run("predict", "sums", "--inputs", tmp_path / name, "--json")[1])
        for name in ("rows.npz", "labelled.npz")
    ]
    with np.load(tmp_path / "all.npz") as found:
        for one in means:
            np.testing.assert_allclose(found["mean"], one["outputs"]["mean"], atol=1e-6)
    for command in ("predict --out x.npz", "select --strategy bald -k 1"):
        name, *words = command.split()
        code, _, err = run(name, "sums", "--pool", "three", *words)
        assert (code, "['width', 'height'], got ['depth', 'height', 'width']" in err) == (1, True)
        code, _, err = run(name, "animals", "--pool", "three", *words)
        assert (code, "(4,), got (3,)" in err) == (1, True)
        assert "its columns, pandas' index left out, are height, width, depth" in err
    code, out, err = run("evaluate", "sums", "--data", tmp_path / "labelled.npz", "--json")
    assert (code, json.loads(out)["num_rows"]) == (0, 20), err


@pytest.mark.parametrize("name", ["rows.xlsx", "a/rows.txt", "rows"])
def test_a_file_of_another_kind_is_told_how_to_convert_it(name: str) -> None:
    with pytest.raises(InputError, match=r"\.npy, \.npz, \.parquet, .*, got 'rows.*to_parquet"):
        format_of(name)


def test_a_csv_of_numbers_is_a_pool_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n3,4\n")
    (column,) = unpack(tmp_path / "rows.csv", "csv", tmp_path, 10**6, 10**6).columns
    assert (column.shape, column.features) == ((2,), ("a", "b"))
    assert not (tmp_path / "rows.csv.parquet").exists()
    late = "\n".join(["a,b", *["1,2"] * 300_000, "3,none"])
    (tmp_path / "rows.csv").write_text(late)
    columns = unpack(tmp_path / "rows.csv", "csv", tmp_path, 10**8, 10**6).columns
    assert [(column.name, column.dtype) for column in columns] == [("a", "<f8"), ("b", "|S4")]
