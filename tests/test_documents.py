"""The documents say what the code does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from dubito.acquisition.strategies import EVERY
from dubito.api import create_app
from dubito.calibration.flags.scorer import AUTO, OF_CLASSES, OF_NUMBERS
from dubito.cli import make_app
from dubito.settings import Settings

ROOT = Path(__file__).parent.parent
HTTP, COMMAND_LINE, SETTINGS, CONCEPTS = (
    (ROOT / "docs" / f"{page}.md").read_text()
    for page in ("http", "command_line", "settings", "concepts")
)
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "benchmarks/**/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
)
FAMILIES = (OF_CLASSES, OF_NUMBERS)
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The API as OpenAPI describes it."""
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("data"))).openapi()


def test_every_route_is_documented_with_its_method(described: dict[str, Any]) -> None:
    documented = {
        (method, path)
        for line in HTTP.splitlines()
        for method in re.findall(r"^\| (GET|POST|PUT|DELETE) ", line)
        for path in re.findall(r"`(/[^`]+)`", line)
    }
    served = {
        (method.upper(), path) for path, methods in described["paths"].items() for method in methods
    }
    assert served == documented, "give every route, and no other, a row `| POST | `/v1/...` |`"


def test_every_field_of_a_request_is_documented(described: dict[str, Any]) -> None:
    names = set(_fields(described["paths"], described.get("components", {}).get("schemas", {})))
    assert {"num_samples", "target_risk", "strategy", "address", "rows"} <= names
    missing = {name for name in names if not re.search(rf"[`\"?]{name}[`\"=]", HTTP)}
    assert not missing, "explain them in docs/http.md"


def test_every_setting_is_documented_with_its_default_and_its_description() -> None:
    rows = SETTINGS.splitlines()
    for name, setting in Settings.model_fields.items():
        default = _written(setting.default)
        row = f"| `DUBITO_{name.upper()}` | {default} | {setting.description} |"
        assert row in rows, f"put into docs/settings.md: {row}"


def test_every_command_is_documented_with_its_options() -> None:
    commands = dict(_commands(get_command(make_app()), "dubito"))
    assert {"dubito serve", "dubito pool add", "dubito db upgrade"} <= commands.keys()
    for command, options in commands.items():
        assert f"`{command}" in COMMAND_LINE, f"put into docs/command_line.md: {command}"
        for option in options:
            is_named = re.search(rf"`[^`]*{option}\b", COMMAND_LINE)
            assert is_named, f"put into docs/command_line.md: {command} {option}"


def test_every_strategy_is_documented() -> None:
    documented = set(_first_column(HTTP, "strategy"))
    assert {strategy.name for strategy in EVERY} == documented, "correct docs/http.md#select"


def test_every_out_of_distribution_score_is_documented() -> None:
    known = {name for family in FAMILIES for name in family.named}
    assert {*known, AUTO} == set(_first_column(CONCEPTS, "`ood_score`")), "correct docs/concepts.md"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_settings_that_a_document_names_exist(document: str) -> None:
    named = set(re.findall(r"\bDUBITO_([A-Z_]+)\b", (ROOT / document).read_text()))
    for_tests = {name for name in named if name.startswith("TEST_")}
    assert named - for_tests <= {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_of_a_document_lead_somewhere(document: str) -> None:
    here = ROOT / document
    for target, anchor in LINK.findall(here.read_text()):
        if target.startswith("https://"):
            continue
        there = here.parent / target if target else here
        assert there.exists(), target
        assert not anchor or anchor in _anchors(there), f"{target}#{anchor}"


def test_every_page_is_listed_and_can_be_reached_from_the_readme() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    listed = {target for target, _ in LINK.findall((ROOT / "docs/README.md").read_text())}
    assert pages == {target for target in listed if "/" not in target}
    assert "](docs/README.md)" in (ROOT / "README.md").read_text()


def test_the_list_of_networks_is_that_of_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.zoo.page import PAGE, page
    from benchmarks.zoo.results import RESULTS, read

    assert PAGE.read_text() == page(read(RESULTS)), "run python -m benchmarks.zoo page"


def test_every_promise_of_security_names_a_test_that_exists() -> None:
    named = re.findall(r"`(tests/test_\w+\.py)(?:::(\w+))?`", (ROOT / "SECURITY.md").read_text())
    assert len(named) > 20
    for file, test in named:
        text = (ROOT / file).read_text()
        assert not test or f"def {test}(" in text, f"{file}::{test}"


def test_the_architecture_fits_on_a_page() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 120


def _written(value: object) -> str:
    """A default as a person writes it."""
    match value:
        case None | ():
            return "none"
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(map(str, value))
        case Path():
            return f"./{value}"
    return str(value)


def _first_column(text: str, head: str) -> list[str]:
    """The names in the first column of the tables whose first head is this."""
    tables = re.findall(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    return re.findall(r"^\| `(\w+)` \|", "".join(tables), re.MULTILINE)


def _fields(part: object, schemas: dict[str, Any]) -> Iterator[str]:
    """Names of the parameters of a query and of all properties of bodies, however deep."""
    if isinstance(part, dict):
        if part.get("in") == "query":
            yield str(part["name"])
        if "$ref" in part:
            yield from _fields(schemas.get(part["$ref"].rpartition("/")[2]), schemas)
        for key, inner in part.items():
            if key == "properties":
                yield from inner
            if key != "responses":
                yield from _fields(inner, schemas)
    elif isinstance(part, list):
        for inner in part:
            yield from _fields(inner, schemas)


def _commands(command: Any, path: str) -> Iterator[tuple[str, list[str]]]:
    """Every command that does something, and its options."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _commands(inner, f"{path} {name}")
    else:
        names = [parameter.opts[0] for parameter in command.params]
        yield path, [name for name in names if name.startswith("-")]


def _anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
