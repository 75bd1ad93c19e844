"""The page on networks from elsewhere runs, and prints what it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs/bring.md").read_text()
pytestmark = pytest.mark.slow


def test_networks_of_torch_and_hugging_face_are_exported_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == PAGE.count("```python") == 2
    names: dict[str, object] = {}
    for code, printed in blocks:
        capsys.readouterr()
        exec(compile(code, "docs/bring.md", "exec"), names)
        assert capsys.readouterr().out == printed
    assert {path.name for path in tmp_path.iterdir()} == {"plain.dubito", "sentences.dubito"}
