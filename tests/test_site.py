"""The documents as a site: it is built strictly, whole, and asks no other host for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mkdocs.utils.yaml import get_yaml_loader, yaml_load

ROOT = Path(__file__).parent.parent
FETCHED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


class Fetches(HTMLParser):
    """The addresses that a browser fetches for a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get(FETCHED.get(tag, ""))
        if address and dict(attrs).get("rel") not in ("prev", "next", "canonical"):
            self.addresses.append(address)


def named(nav: object) -> list[str]:
    """The pages of a part of `nav`."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in named(part)]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_stands_in_the_navigation_once() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    pages = named(yaml_load(text, get_yaml_loader())["nav"])
    for path in sorted((ROOT / "docs").glob("*.md")):
        assert pages.count(path.name) == 1, f"put docs/{path.name} into `nav` of mkdocs.yml"
    assert len(set(pages)) == len(pages)


def test_the_site_has_every_page_and_picture(site: Path) -> None:
    for path in (ROOT / "docs").iterdir():
        name = "index.html" if path.name == "README.md" else f"{path.stem}/index.html"
        assert (site / (name if path.suffix == ".md" else path.name)).exists(), path.name
    assert (site / "search/search_index.json").stat().st_size > 100_000


def test_no_page_fetches_anything_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        for address in Fetches(page.read_text()).addresses:
            assert not re.match(r"(https?:)?//", address), f"{page.relative_to(site)}: {address}"
            target = (page.parent / address.split("#")[0].split("?")[0]).resolve()
            is_absolute = address.startswith("/")  # of the page that says that there is none
            assert is_absolute or target.exists(), f"{page.relative_to(site)}: {address}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", style.read_text()), style.name
