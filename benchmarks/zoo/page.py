"""The page of the documents that lists which public networks were held against eager mode."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs" / "networks.md"
_BEGIN, _END = "<!-- zoo: begin -->", "<!-- zoo: end -->"
_VERSIONS = {"transformers": "transformers 5.23.0", "timm": "timm 1.0.20"}
_HEADS = ("Sequence", "Token", "Image", "Audio", "Video")
Line = Mapping[str, object]


def page(lines: Mapping[tuple[str, str], Line]) -> str:
    """The text of the page, its list written anew.

    Args:
        lines: the last result of every network, by source and name.
    """
    before, rest = PAGE.read_text().split(_BEGIN)
    _, after = rest.split(_END)
    return f"{before}{_BEGIN}\n{_listed(lines)}\n{_END}{after}"


def _listed(lines: Mapping[tuple[str, str], Line]) -> str:
    """A table of those that were equal, by library and head."""
    equal: dict[tuple[str, str], list[str]] = {}
    for (source, name), line in lines.items():
        if line["state"] == "equal":
            kind, _, short = name.rpartition(":")
            library = str(line.get("version") or _VERSIONS[source])
            equal.setdefault((library, kind if source == "transformers" else ""), []).append(short)
    head = "| library | head | networks |\n|---|---|---|\n"
    return head + "\n".join(
        f"| {library} | {kind or 'as it comes'} | {', '.join(sorted(map(_architecture, names)))} |"
        for (library, kind), names in sorted(equal.items())
    )


def _architecture(name: str) -> str:
    """A network without the name of its head."""
    for head in _HEADS:
        name = name.removesuffix(f"For{head}Classification")
    return f"`{name}`"
