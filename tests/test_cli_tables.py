"""Tables on the command line: answers beside their rows, truths in a column, rows to label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from .conftest import with_tables
from .shell import run_command
from .tables import ARROW, CSV, NDJSON, PARQUET, exported, frame, written

ENDINGS = {".csv": CSV, ".parquet": PARQUET, ".arrows": ARROW, ".ndjson": NDJSON}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):  # type: ignore[no-untyped-def]
    """Runs commands on a data folder that has the model `sick`."""
    monkeypatch.setenv("DUBITO_DATA_DIR", str(with_tables(tmp_path / "data")))
    monkeypatch.setenv("DUBITO_NUM_SAMPLES", "4")
    monkeypatch.chdir(tmp_path)
    exported(tmp_path / "sick.dubito")

    def command(*words: object) -> tuple[int, str, str]:
        return run_command(capsys, monkeypatch, *words)

    assert command("register", "sick.dubito", "--model", "sick")[0] == 0
    return command


def test_a_table_goes_in_and_comes_out_with_the_answers(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    table = frame(6)
    answers = []
    for ending, kind in ENDINGS.items():
        rows = tmp_path / f"rows{ending}"
        rows.write_bytes(written(table, kind))
        for out in ("answers.csv", "answers.parquet"):
            code, _, err = run("predict", "sick", rows, "--out", out)
            assert code == 0, err
            assert f"written to {out}" in err
        read = pd.read_csv("answers.csv", dtype={"insured": str})
        assert read["id"].tolist() == table["id"].tolist()
        assert list(read)[: len(table.columns)] == list(table)
        answers.append(read[["label", "mean_no", "mean_yes", "predictive_entropy"]])
        packed = pd.read_parquet("answers.parquet")
        np.testing.assert_allclose(packed["mean_no"], read["mean_no"])
    assert all(answers[0].equals(other) for other in answers)
    np.testing.assert_allclose(answers[0]["mean_no"] + answers[0]["mean_yes"], 1)


def test_inspect_shows_what_the_inputs_are_made_of(run) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run("inspect", "sick.dubito")
    assert code == 0, err
    assert "a table of age (number), smoker (category), insured (boolean), born (date)" in out


def test_truths_and_rows_to_label_come_from_a_table(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "held_out.csv"
    path.write_bytes(written(frame(300, seed=2), CSV))
    code, out, err = run("calibrate", "sick", "--data", path, "--label", "sick")
    assert (code, "calibration 1" in out) == (0, True), err
    assert "columns that the model does not read: `id`" in err
    code, out, err = run("evaluate", "sick", "--data", path, "--label", "sick")
    assert (code, "accuracy" in out) == (0, True), err
    words = ("--data", path, "-k", 5, "--strategy", "bald", "--id-column", "id")
    code, out, err = run("select", "sick", *words)
    assert code == 0, err
    assert out.count(" p") == 5
    code, out, err = run("predict", "sick", path, "--out", "answers.csv")
    assert code == 0, err
    read = pd.read_csv("answers.csv")
    assert set(read["decision"]) <= {"accept", "review", "reject"}
    assert {"ood_flag", "prediction_set"} <= {*read}


def test_tensors_need_a_word_and_other_combinations_are_refused(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rows = {"numbers": np.zeros((2, 5), np.float32), "job": np.zeros(2, np.int64)}
    np.savez(tmp_path / "tensors.npz", **rows)
    code, _, err = run("predict", "sick", "tensors.npz")
    assert (code, "`preprocess` false" in err) == (1, True)
    code, out, err = run("predict", "sick", "tensors.npz", "--tensors")
    assert (code, "label" in out) == (0, True), err
    (tmp_path / "rows.csv").write_bytes(written(frame(3), CSV))
    for words, reason in (
        (("rows.csv", "--inputs", "rows.csv"), "leave out --inputs"),
        (("rows.csv", "--out", "answers.txt"), ".csv or .parquet"),
        (("rows.xlsx",), ".csv, .parquet"),
    ):
        if words[0] == "rows.xlsx":
            (tmp_path / "rows.xlsx").write_bytes(b"PK")
        code, _, err = run("predict", "sick", *words)
        assert (code, reason in err) == (1, True), err
