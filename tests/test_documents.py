"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from dubito.api import create_app
from dubito.cli import make_app
from dubito.settings import Settings

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs" / "reference.md").read_text()


def test_every_route_is_documented_with_its_method(tmp_path: Path) -> None:
    documented = {
        (method, path)
        for line in REFERENCE.splitlines()
        for method in re.findall(r"^\| (GET|POST|PUT|DELETE) ", line)
        for path in re.findall(r"`(/[^`]+)`", line)
    }
    paths = create_app(Settings(data_dir=tmp_path)).openapi()["paths"]
    served = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert served == documented


def test_every_setting_is_documented_with_its_description() -> None:
    for name, setting in Settings.model_fields.items():
        assert f"| `DUBITO_{name.upper()}` |" in REFERENCE
        assert str(setting.description) in REFERENCE


def test_every_command_is_documented() -> None:
    commands = get_command(make_app()).commands  # type: ignore[attr-defined]
    for name in commands:
        assert f"`dubito {name}" in REFERENCE


def test_the_documented_settings_exist() -> None:
    named = set(re.findall(r"`DUBITO_([A-Z_]+)`", REFERENCE))
    assert named == {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_links_and_paths_of_a_document_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_the_architecture_fits_on_a_page() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 120
