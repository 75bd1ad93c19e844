"""The command line as a person runs it, in this process."""

from __future__ import annotations

import sys

import pytest

from dubito.cli import main

Run = tuple[int, str, str]


def run_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object
) -> Run:
    """Exit code, stdout and stderr of one command."""
    monkeypatch.setattr(sys, "argv", ["dubito", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err
