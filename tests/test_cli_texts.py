"""Texts on the command line: a line each, from a file or from what is piped in."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from dubito_nn import preprocess

from .sentences import exported, fast
from .shell import run_command


def test_lines_are_predicted_from_a_file_a_table_and_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DUBITO_NUM_SAMPLES", "4")
    monkeypatch.chdir(tmp_path)
    exported(tmp_path / "moods.dubito", preprocess.from_transformers(fast()))

    def command(*words: object) -> tuple[int, str, str]:
        return run_command(capsys, monkeypatch, *words)

    assert command("register", "moods.dubito", "--model", "moods")[0] == 0
    lines = ["the house is small", "", "grün, 房子 👍"]
    (tmp_path / "lines.txt").write_bytes("\r\n".join([*lines, ""]).encode())
    code, _, err = command("predict", "moods", "lines.txt", "--out", "answers.csv")
    assert code == 0, err
    answers = pd.read_csv("answers.csv", keep_default_na=False)
    assert answers["text"].tolist() == lines
    pd.DataFrame({"text": lines}).to_csv("lines.csv", index=False)
    replies = []
    for words in (("lines.txt",), ("lines.csv",), ("-",)):
        piped = SimpleNamespace(buffer=io.BytesIO("\n".join(lines).encode()))
        monkeypatch.setattr(sys, "stdin", piped)
        code, out, err = command("predict", "moods", *words, "--json")
        assert code == 0, err
        replies.append(json.loads(out)["outputs"]["mean"])
    assert replies[0] == replies[1] == replies[2]
    code, out, err = command(
        "select", "moods", "--data", "lines.txt", "-k", 2, "--strategy", "bald"
    )
    assert code == 0, err
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    code, _, err = command("predict", "moods", "bad.txt")
    assert (code, "bad.txt: expected text in UTF-8" in err) == (1, True)
    code, out, err = command("inspect", "moods.dubito")
    assert "a text text, of at most 64 tokens" in out
