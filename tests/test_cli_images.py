"""Images on the command line: answers by file, truths by folder, files to label."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from .conftest import with_tables
from .pictures import ZIP, archive, exported, folder
from .shell import run_command


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digit") / "digit.dubito"
    exported(path)
    return path


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, bundle):  # type: ignore[no-untyped-def]
    """Runs commands on a data folder that has the model `digit`, beside a folder of images."""
    monkeypatch.setenv("DUBITO_DATA_DIR", str(with_tables(tmp_path / "data")))
    monkeypatch.setenv("DUBITO_NUM_SAMPLES", "4")
    monkeypatch.chdir(tmp_path)
    shutil.copy(bundle, tmp_path)
    for name, content in folder(120, 1000).items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(content)
    (tmp_path / "photos" / "notes.md").write_text("not an image")

    def command(*words: object) -> tuple[int, str, str]:
        return run_command(capsys, monkeypatch, *words)

    assert command("register", "digit.dubito", "--model", "digit")[0] == 0
    return command


def test_images_go_in_and_their_names_come_out_with_the_answers(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run("inspect", "digit.dubito")
    assert (code, "images for image, L to 1 x 8 x 8" in out) == (0, True), err
    files = sorted(Path("photos/3").glob("*.png"))
    code, out, err = run("predict", "digit", *files)
    assert code == 0, err
    assert out.count("photos/3/d") == len(files)
    names = sorted(folder(120, 1000))
    (tmp_path / "photos.zip").write_bytes(archive(folder(120, 1000), ZIP))
    for rows in ("photos", "photos.zip"):
        code, _, err = run("predict", "digit", rows, "--out", "answers.csv")
        assert code == 0, err
        read = pd.read_csv("answers.csv", dtype=str)
        assert read["file"].tolist() == names
        right = read["label"] == read["file"].str[0]
        assert right.mean() > 0.8
    code, out, err = run("predict", "digit", tmp_path / "photos" / names[0])
    assert code == 0, err
    for words, reason in (
        (("photos", *files), "as well"),
        ((files[0], "photos.zip"), "as well"),
        ((files[0], files[0]), "two of one name"),
        (("photos/notes.md",), "images are .png"),
    ):
        code, _, err = run("predict", "digit", *words)
        assert (code, reason in err) == (1, True), err


def test_truths_are_folders_and_files_are_chosen(run) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run("calibrate", "digit", "--data", "photos", "--report", "page.html")
    assert (code, "calibration 1" in out) == (0, True), err
    code, out, err = run("evaluate", "digit", "--data", "photos")
    assert (code, "accuracy" in out) == (0, True), err
    code, out, err = run("select", "digit", "--data", "photos", "-k", 5, "--strategy", "bald")
    assert code == 0, err
    assert out.count(".png") == 5
