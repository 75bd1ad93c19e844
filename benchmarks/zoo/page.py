"""The page of the documents that lists which public networks were held against eager mode."""

from __future__ import annotations

from pathlib import Path

from benchmarks.zoo.results import Lines, by_source, short

PAGE = Path(__file__).parent.parent.parent / "docs" / "networks.md"
_BEGIN, _END = "<!-- zoo: begin -->", "<!-- zoo: end -->"
_VERSIONS = {"transformers": "transformers 5.23.0", "timm": "timm 1.0.20"}


def page(lines: Lines) -> str:
    """The text of the page, its list written anew.

    Args:
        lines: the last result of every network, by source and name.
    """
    before, rest = PAGE.read_text().split(_BEGIN)
    _, after = rest.split(_END)
    return f"{before}{_BEGIN}\n{by_source(lines)}\n\n{_listed(lines)}\n{_END}{after}"


def _listed(lines: Lines) -> str:
    """A table of those that were equal, by library and head."""
    equal: dict[tuple[str, str], list[str]] = {}
    for (source, name), line in lines.items():
        if line["state"] == "equal":
            kind = name.rpartition(":")[0]
            library = str(line.get("version") or _VERSIONS[source])
            equal.setdefault((library, kind if source == "transformers" else ""), []).append(name)
    head = "| library | head | networks |\n|---|---|---|\n"
    rows = []
    for (library, kind), names in sorted(equal.items()):
        listed = ", ".join(sorted(f"`{short(name)}`" for name in names))
        rows.append(f"| {library} | {kind or 'as it comes'} | {listed} |")
    return head + "\n".join(rows)
