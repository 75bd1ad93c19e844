"""`dubito fit`, and what follows from it, without a server."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from .conftest import NUM_FEATURES, Bundles
from .shell import Run, run_command


def _set(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    for name, value in {"DATA_DIR": folder / "data", "NUM_SAMPLES": 16, "POLL_MS": 20}.items():
        monkeypatch.setenv(f"DUBITO_{name}", str(value))
    monkeypatch.setenv("COLUMNS", "200")


def test_a_network_with_dropout_is_fitted_and_asked_from_the_shell(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundles: Bundles,
    tmp_path: Path,
) -> None:
    _set(monkeypatch, tmp_path)
    rows = np.random.default_rng(0).normal(size=(60, NUM_FEATURES)).astype(np.float32)
    labels = np.arange(60) % 3
    np.save(tmp_path / "rows.npy", rows)
    np.savez(tmp_path / "labelled.npz", inputs=rows, labels=labels)

    def run(*words: object) -> Run:
        return run_command(capsys, monkeypatch, *words)

    assert run("register", bundles("first"), "--model", "animals")[0] == 0
    code, _, err = run("predict", "animals", tmp_path / "rows.npy", "--method", "laplace")
    assert (code, "dubito fit animals" in " ".join(err.split())) == (1, True)
    code, out, err = run("fit", "animals", "--data", tmp_path / "rows.npy", "--method", "laplace")
    assert code == 0, err
    assert "animals version 1: fit 1 of laplace, active" in out
    assert "chosen_by: marginal_likelihood" in out
    code, out, err = run(
        *("fit", "animals", "--data", tmp_path / "labelled.npz", "--method", "laplace"),
        *("--prior", "held_out", "--num-training-rows", 60, "--rank", 3, "--json"),
    )
    assert code == 0, err
    assert (json.loads(out)["fit"], json.loads(out)["report"]["rank"]) == (2, 3)
    code, out, err = run(
        *("predict", "animals", tmp_path / "rows.npy", "--method", "laplace", "--json")
    )
    assert code == 0, err
    reply = json.loads(out)
    assert (reply["method"], reply["fit"]) == ("laplace", 2)
    code, _, err = run("fit", "animals", "--method", "laplace")
    assert (code, "--data FILE or --pool NAME" in err) == (1, True)


def test_a_head_is_distilled_from_the_shell_and_its_certificate_printed(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundles: Bundles,
    tmp_path: Path,
) -> None:
    _set(monkeypatch, tmp_path)
    rows = np.random.default_rng(0).normal(size=(200, NUM_FEATURES)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)

    def run(*words: object) -> Run:
        return run_command(capsys, monkeypatch, *words)

    assert run("register", bundles("first"), "--model", "animals")[0] == 0
    asked = ("--method", "distilled", "--num-samples", 8)
    code, out, err = run("fit", "animals", "--data", tmp_path / "rows.npy", *asked)
    assert code == 0, err
    assert "fit 1 of distilled, active" in out
    assert "agreement with T = 256 on 40 held-out rows" in out
    assert all(f"  {kind}: " in out for kind in ("held_out", "noise", "shuffled", "bounds"))
    way = ("--method", "distilled", "--fallback", 0.05, "--json")
    code, out, err = run("predict", "animals", tmp_path / "rows.npy", *way)
    assert code == 0, err
    reply = json.loads(out)
    assert (reply["fallback"], reply["fit"]) == (0.05, 1)
    used = reply["outputs"]["method_used"]
    assert set(used) == {"distilled", "mc"}
    assert used.count("mc") < 40
