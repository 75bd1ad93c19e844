"""`dubito evaluate`, and the report of `dubito calibrate`, from files to an HTML page."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from .conftest import CLASSES, NUM_FEATURES, Bundles, with_tables
from .shell import run_command as _run


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (
            lambda path: np.savez(path, inputs=np.zeros((2, 4)), labels=np.array(["a"], object)),
            "`labels`: expected numbers or text, got Python objects, such as pandas' text: convert "
            "it by .astype(str)",
        ),
        (lambda path: path.write_text('{"inputs": []}'), "expected a .npy or .npz file, got some"),
    ],
)
def test_a_file_that_holds_no_labelled_rows_is_told_what_to_do(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    write: Callable[[Path], object],
    expected: str,
) -> None:
    write(path := tmp_path / "held_out.npz")
    code, _, err = _run(capsys, monkeypatch, "evaluate", "animals", "--data", path)
    assert code == 1
    assert expected in err


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Labelled rows, and strange ones, in a folder of their own."""
    monkeypatch.setenv("DUBITO_DATA_DIR", str(with_tables(tmp_path / "data")))
    monkeypatch.setenv("DUBITO_NUM_SAMPLES", "16")
    monkeypatch.setenv("COLUMNS", "160")
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(120, NUM_FEATURES)).astype(np.float32)
    path = tmp_path / "held_out.npz"
    labels = generator.integers(0, len(CLASSES), 120)
    np.savez(path, inputs=rows, labels=labels, ood_inputs=30 * rows[:20])
    return path


def test_calibrate_and_evaluate_write_the_figures_that_they_print(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundles: Bundles,
    data: Path,
    tmp_path: Path,
) -> None:
    assert _run(capsys, monkeypatch, "register", bundles("first"), "--model", "animals")[0] == 0
    page = tmp_path / "report.html"
    fit = ("calibrate", "animals", "--data", data, "--alpha", "0.1", "--report", page)
    code, out, err = _run(capsys, monkeypatch, *fit)
    assert code == 0, err
    assert "animals version 1, calibration 1" in page.read_text()
    assert hashlib.sha256(data.read_bytes()).hexdigest() in page.read_text()
    assert "<dt>verdict</dt>" in page.read_text()
    assert _values(page, "accuracy") == _line(out, "accuracy")

    judge = ("evaluate", "animals", "--data", data)
    code, out, err = _run(capsys, monkeypatch, *judge, "--report", page)
    assert code == 0, err
    assert "animals version 1: 120 rows" in out
    assert (
        f"held_out.npz, sha256 {hashlib.sha256(data.read_bytes()).hexdigest()}" in page.read_text()
    )
    assert f"<dt>made</dt><dd>{datetime.now(UTC):%Y-}" in page.read_text()
    taken = page.read_text().split("What is taken for what, calibration 1")[1].split("</table>")[0]
    counts = [int(count) for count in re.findall(r"<td[^>]*>(\d+)</td>", taken)]
    assert (len(counts), sum(counts)) == (len(CLASSES) ** 2, 120)
    right = sum(counts[:: len(CLASSES) + 1])
    assert right / 120 == pytest.approx(float(_line(out, "accuracy")[-1]), abs=1e-3)
    for name in ("nll", "ece", "set_size", "ood_auroc"):
        assert _values(page, name) == _line(out, name)
    code, out, _ = _run(capsys, monkeypatch, *judge, "--json", "--coverage", "0.8")
    reply = json.loads(out)
    assert (code, reply["calibration"], reply["coverage"]) == (0, 1, 0.8)
    assert reply["report"]["ood_auroc"] is not None
    code, out, err = _run(capsys, monkeypatch, *judge, "--calibration", "none")
    assert code == 0
    assert "asked for no calibration" in err


def test_calibrate_takes_the_sampling_and_the_noise_from_the_command_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundles: Bundles,
    data: Path,
) -> None:
    _run(capsys, monkeypatch, "register", bundles("first"), "--model", "animals")
    fit = ("calibrate", "animals", "--data", data, "--alpha", "0.1")
    how = ("--draw", "iid", "--method", "mc", "--num-samples", "8")
    assert _run(capsys, monkeypatch, *fit, *how, "--masks", "shared")[0] == 0
    for words, expected in ((how, 1), (("--num-samples", "8"), None)):
        judge = ("evaluate", "animals", "--data", data, "--json", *words)
        assert json.loads(_run(capsys, monkeypatch, *judge)[1])["calibration"] == expected
    assert _run(capsys, monkeypatch, *fit, "--masks", "independent")[0] == 0
    judge = ("evaluate", "animals", "--data", data, "--json")
    assert json.loads(_run(capsys, monkeypatch, *judge)[1])["calibration"] is None
    code, _, err = _run(capsys, monkeypatch, *fit, "--noise-precision", "2")
    assert code == 1
    assert "`noise_precision` belongs to a regression" in err
    code, _, err = _run(capsys, monkeypatch, *fit, "--position-share", "0.5")
    assert code == 1
    assert "`position_share` belongs to a head" in err


def _values(page: Path, name: str) -> list[str]:
    """The values of a figure on a page, one per column."""
    tree = ElementTree.fromstring(page.read_text())
    line = next(row for row in tree.iter("tr") if row.get("id") == name)
    cells = [cell.text or "" for cell in line.iter("td") if cell.get("class") == "value"]
    return ["" if cell == "–" else cell for cell in cells]


def _line(out: str, name: str) -> list[str]:
    """The values of a figure in a printed table."""
    line = next(line for line in out.splitlines() if line.startswith(f"│ {name} "))
    return [cell.strip() for cell in line.split("│")[2:-1]][::2]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--calibration", "best"], "expected 'active' or 'none', got 'best'"),
        (["--report", "nowhere/report.html"], "make the folder first"),
        (["--coverage", "2"], "`coverage`"),
        (["--method", "ensemble"], "`members`"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundles: Bundles,
    data: Path,
    words: list[str],
    expected: str,
) -> None:
    _run(capsys, monkeypatch, "register", bundles("first"), "--model", "animals")
    code, _, err = _run(capsys, monkeypatch, "evaluate", "animals", "--data", data, *words)
    assert code == 1
    assert expected in err
    assert len(err.strip().splitlines()) == 1


def test_without_matplotlib_a_report_is_refused_before_the_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if name == "matplotlib" else find(name, package),
    )
    for command in ("evaluate", "calibrate"):
        words = (command, "animals", "--data", data, "--report", "report.html")
        code, _, err = _run(capsys, monkeypatch, *words)
        assert code == 1
        assert "pip install 'dubito[pictures]'" in err


def test_calibrate_prints_the_reply_as_json(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundles: Bundles,
    data: Path,
) -> None:
    _run(capsys, monkeypatch, "register", bundles("first"), "--model", "animals")
    code, out, err = _run(capsys, monkeypatch, "calibrate", "animals", "--data", data, "--json")
    assert code == 0, err
    reply = json.loads(out)
    assert (reply["model"], reply["version"], reply["calibration"]) == ("animals", 1, 1)
    assert reply["report"]["after"]["accuracy"] is not None
