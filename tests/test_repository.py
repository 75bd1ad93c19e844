import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = [
    *(f"scripts/{name}" for name in ["install", "serve", "test", "lint", "check", "bench"]),
    ".ci/run",
]
# Written in pieces, so that this file does not contain what it looks for.
REGISTRY_HOSTS = (
    "pypi" + ".org",
    "python" + "hosted.org",
    "pytorch" + ".org/whl",
    "docker" + ".io",
)
MACHINE_PATHS = re.compile(r"(?<![\w.$}])/(?:root|home|Users|work|tmp)" + r"/\w")


def _tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="ignore")


def _imports(path: Path) -> set[str]:
    """The top-level packages that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(_text(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_is_executable_and_stops_at_the_first_failure(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert _text(path).startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in _text(path)
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_continuous_integration_calls_the_scripts() -> None:
    commands = _text(ROOT / ".ci/run").splitlines()
    called = [command for command in commands if command.startswith("scripts/")]
    assert called == ["scripts/install", "scripts/check", "scripts/test"]


def test_no_file_names_the_host_of_a_registry() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {host}"
        for path in _tracked()
        for host in REGISTRY_HOSTS
        if host in _text(path)
    ]
    assert not found


def test_no_file_names_a_folder_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in _tracked()
        for match in MACHINE_PATHS.finditer(_text(path))
    ]
    assert not found


def test_dubito_nn_imports_torch_numpy_and_safetensors_alone_and_never_dubito() -> None:
    # sympy is torch's own dependency: the sizes of an exported graph are its expressions.
    ours = {"dubito_nn", "torch", "sympy", "numpy", "safetensors"}
    allowed = ours | sys.stdlib_module_names
    for path in (ROOT / "models/dubito_nn").rglob("*.py"):
        assert _imports(path) <= allowed, path.relative_to(ROOT)


def test_dubito_client_imports_httpx_and_numpy_alone_and_never_dubito() -> None:
    allowed = {"dubito_client", "httpx", "numpy"} | sys.stdlib_module_names
    for path in (ROOT / "service/client").rglob("*.py"):
        asked_for = {"pandas"} if path.name == "frames.py" else set()  # by `to_pandas` alone
        assert _imports(path) <= allowed | asked_for, path.relative_to(ROOT)


def test_files_stay_under_four_hundred_lines() -> None:
    sources = [path for path in _tracked() if path.suffix == ".py" and "tests" not in path.parts]
    assert sources
    too_long = [p.name for p in sources if len(_text(p).splitlines()) > 400]
    assert not too_long


def test_the_container_has_a_health_check_and_does_not_run_as_root() -> None:
    lines = _text(ROOT / "Dockerfile").splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert users[-1] not in {"root", "0"}
    assert any(line.startswith("HEALTHCHECK ") for line in lines)
    assert 'ARG TORCH_INDEX_URL=""' in lines
    assert "DUBITO_API_KEY" in _text(ROOT / "Dockerfile")


def test_every_dependency_is_pinned_at_an_exact_version() -> None:
    pins = _text(ROOT / "constraints.txt").split()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][\w.]*", pin) for pin in pins)
    pinned = {re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins}
    project = tomllib.loads(_text(ROOT / "pyproject.toml"))["project"]
    client = tomllib.loads(_text(ROOT / "service/client/pyproject.toml"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    wanted += client["dependencies"]
    names = {re.split(r"[\[<>=; ]", requirement)[0].lower() for requirement in wanted}
    names = {re.sub(r"[-_.]+", "-", name) for name in names}
    assert names <= pinned
    assert "torch==2.13.0" in pins


def test_the_changelog_has_a_place_for_what_comes_next() -> None:
    assert "## [Unreleased]" in _text(ROOT / "CHANGELOG.md")


def test_rooms_of_the_engine_import_only_what_its_docstring_names_above_them() -> None:
    root = ROOT / "service/dubito/engine"
    docstring = ast.get_docstring(ast.parse(_text(root / "__init__.py"))) or ""
    rooms = re.findall(r"^(\w+) {2,}\w", docstring, re.MULTILINE)
    assert {path.stem for path in root.iterdir() if path.stem[0] != "_"} == set(rooms)
    upwards = [
        f"{path.relative_to(root)}: {module}"
        for path in root.rglob("*.py")
        if (room := path.relative_to(root).with_suffix("").parts[0]) in rooms
        for module in _imported_when_run(path)
        if module.startswith("dubito.engine.")
        and rooms.index(module.split(".")[2]) > rooms.index(room)
    ]
    assert not upwards


def _imported_when_run(path: Path) -> set[str]:
    """The modules whose names a file imports, but for those that only types need."""
    tree = ast.parse(_text(path))
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    return {
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in for_types
    }
