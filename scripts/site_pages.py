"""What `mkdocs` makes of the documents: pages of the whole project, with links between them.

Its job: the documents outside of `docs/` become pages below `project/`; links lead from page to
page, and what is no page (a program, a folder) is named without a link. A list begins a block of
its own, as everywhere but in Python-Markdown.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
OUTSIDE = (
    *("README.md", "CHANGELOG.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"),
    *("benchmarks/README.md", "benchmarks/evidence/README.md"),
    "examples/label_studio/README.md",
)
_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_LIST = re.compile(r"^((?!\* |\d+\. |#|\||  ).+)\n(?=(\* |1\. ))", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents outside of `docs/`."""
    for path in OUTSIDE:
        files.append(File.generated(config, f"project/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mend links and lists, but in code."""
    made, end = [], 0
    for fence in _FENCE.finditer(markdown):
        made += [_mended(markdown[end : fence.start()], page.file.src_uri), fence[0]]
        end = fence.end()
    return "".join([*made, _mended(markdown[end:], page.file.src_uri)])


def _mended(text: str, here: str) -> str:
    text = _LIST.sub(r"\1\n\n", text)
    return _LINK.sub(lambda link: _link(link, here), text)


def _link(link: re.Match[str], here: str) -> str:
    """A link as it leads from page to page; text where it leads to what is no page."""
    words, target, anchor = link[1], link[2], link[3] or ""
    of_project = here.removeprefix("project/") if here.startswith("project/") else f"docs/{here}"
    path = posixpath.normpath(posixpath.join(posixpath.dirname(of_project), target))
    if not (ROOT / path).exists():
        return link[0]
    if path.startswith("docs/"):
        there = path.removeprefix("docs/")
    elif path in OUTSIDE:
        there = f"project/{path}"
    else:
        return words
    return f"[{words}]({posixpath.relpath(there, posixpath.dirname(here) or '.')}{anchor})"
