"""Environments as the scripts make them; a stand-in for the interpreter says what pip was asked."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INTERPRETER = """#!/usr/bin/env bash
case "$*" in
  "-m venv "*) mkdir -p "${*: -1}/bin" && cp "$0" "${*: -1}/bin/python" ;;
  "-m pip "* | "-m pytest "* | "-c from dubito"*) echo "${0#"$PWD/"} $*" >>asked ;;
  *) exec "THIS" "$@" ;;
esac
""".replace("THIS", sys.executable)
Ran = subprocess.CompletedProcess[str]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the scripts read, and an interpreter that only notes what it would install."""
    for name in [
        *("scripts/install", "scripts/test", "constraints.txt"),
        *("pyproject.toml", "service/client/pyproject.toml"),
    ]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "interpreter").write_text(INTERPRETER)
    (tmp_path / "interpreter").chmod(0o755)
    return tmp_path


def _run(clone: Path, *words: str) -> Ran:
    interpreter = {"PYTHON": str(clone / "interpreter")}
    return subprocess.run(
        words, cwd=clone, env=os.environ | interpreter, capture_output=True, text=True, check=False
    )


def _asked(clone: Path) -> list[str]:
    """What was asked of interpreters since the last look."""
    said = clone / "asked"
    lines = said.read_text().splitlines() if said.exists() else []
    said.unlink(missing_ok=True)
    return lines


def test_another_torch_has_an_environment_of_its_own_with_all_else_as_pinned(clone: Path) -> None:
    made = _run(clone, "scripts/test", "--torch", "2.14.1", "-n", "0", "tests/test_sets.py")
    assert made.returncode == 0, made.stderr
    *installed, tested = _asked(clone)
    folder = ".venv-torch-2.14.1"
    assert tested.startswith(f"{folder}/bin/python -m pytest ")
    assert tested.endswith(" -n 0 tests/test_sets.py")
    for line in installed:
        assert line.startswith(f"{folder}/bin/python ")
        assert "-m pip" not in line or f" -c {folder}/constraints.txt " in line
    pins = set((clone / "constraints.txt").read_text().split())
    theirs = set((clone / folder / "constraints.txt").read_text().split())
    assert theirs - pins == {"torch==2.14.1"}
    assert {pin.split("==")[0] for pin in pins - theirs} == {"torch", "triton"}
    assert not re.search("^(torch|triton)\\b", (clone / folder / "named.txt").read_text(), re.M)
    assert not (clone / ".venv").exists()


def test_an_environment_that_is_there_is_used_as_it_is(clone: Path) -> None:
    for words in [("scripts/test",), ("scripts/test", "--torch", "2.14.1")]:
        assert _run(clone, *words).returncode == 0
        assert len(_asked(clone)) > 1
        assert _run(clone, *words).returncode == 0
        (tested,) = _asked(clone)
        assert " -m pytest " in tested


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("scripts/install --torch", "--torch VERSION"),
        ("scripts/install --serve --torch 2.14.1", "got --serve --torch 2.14.1: leave"),
        ("scripts/install --torch 2.14", "such as 2.14.1, got 2.14: name all three"),
        ("scripts/install --gpu", "got --gpu: leave"),
        ("scripts/test --torch", "name the version"),
        ("scripts/test --torch -n 0", "got -n: name all three"),
        ("scripts/test -n 0 --torch 2.14.1", "in front of what goes to pytest, got -n 0"),
    ],
)
def test_what_is_not_understood_is_said_and_installs_nothing(
    clone: Path, command: str, said: str
) -> None:
    ended = _run(clone, *command.split())
    assert ended.returncode == 2
    assert re.fullmatch(r"(install|test): expected [^\n]+\n", ended.stderr)
    assert said in ended.stderr
    assert not _asked(clone)
