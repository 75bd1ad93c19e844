"""The table of bench_engine.py, and its place in README.md.

Its job: rows as they lie in the JSON become Markdown; a page keeps what stands outside the markers

    <!-- NAME: begin -->  ...  <!-- NAME: end -->
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

Row: TypeAlias = Mapping[str, Any]

_PEERS = {
    "loop": "loop",
    "Baal, replicate": "Baal replicate",
    "Baal, loop": "Baal loop",
    "t-u, on batch": "t-u on batch",
    "t-u, loop": "t-u loop",
}


def section(result: Row) -> str:
    """The table, what it was measured on, and how near the perceptron came to the machine."""
    machine = result["machine"]
    peers = ", ".join(f"{name} {version}" for name, version in result["peers"].items())
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    device = "" if machine["device"] == "cpu" else f", {machine['device']}"
    lines = [
        table(result["rows"]),
        "",
        f"{machine['processor']}{device}, {threads}, torch {machine['torch']}, dubito"
        f" {machine['dubito']} at {machine['commit']}; {peers or 'no other library installed'}.",
        f"Matrix products ran at {result['matrix_flops'] / 1e9:.0f} GFLOP/s (float32, best of"
        " several shapes).",
    ]
    for row in result["rows"]:
        if row["matrix_share"] is not None:
            lines.append(
                f"{row['network']}, T = {row['samples']}, B = {row['batch']}:"
                f" {row['matrix_share']:.0%} of that, counting the units kept on average alone."
            )
    return "\n".join(lines)


def table(rows: list[Row]) -> str:
    """Markdown, one line per network, T and B."""
    head = [
        *("network", "T", "B", "one forward", *_PEERS.values(), "engine", "new seed"),
        *("peer / engine", "aim", "warm", "engine / one forward"),
    ]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    return "\n".join(lines)


def line(row: Row) -> str:
    """One row for the screen."""
    loop, engine = row["minimum_s"]["loop"], row["minimum_s"]["engine"]
    return (
        f"{row['network']}, T = {row['samples']}, B = {row['batch']}: loop {_ms(loop)} ms, engine"
        f" {_ms(engine)} ms; {row['best_full']} / engine {row['ratio_full']:.1f}"
    )


def _cells(row: Row) -> list[str]:
    best_s = row["minimum_s"]
    return [
        row["network"],
        str(row["samples"]),
        str(row["batch"]),
        _ms(best_s["plain"]),
        *(_peer(row, name) for name in _PEERS),
        _ms(best_s["engine"]),
        _ms(best_s["new seed"]),
        _ratio(row),
        "" if row["aim"] is None else f"{row['aim']:g}",
        "" if row.get("ratio_warm") is None else f"{row['ratio_warm']:.1f}",
        f"{row['forwards']:.1f}",
    ]


def _peer(row: Row, name: str) -> str:
    """Milliseconds, with the sites sampled where they are not all, or the passes do not differ."""
    found = row["peers"][name]
    if found["failed"] is not None:
        return "—"
    shown = _ms(row["minimum_s"][name])
    sampled = found["sites"] if found["varies"] else 0
    return shown if sampled >= row["sites"] else f"{shown} ({sampled}/{row['sites']})"


def _ratio(row: Row) -> str:
    """To the best peer that samples every site; in brackets to a faster one that does not."""
    shown = f"{row['ratio_full']:.1f}"
    return shown if row["best_any"] == row["best_full"] else f"{shown} ({row['ratio_any']:.1f})"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def put_between_markers(path: Path, name: str, text: str) -> None:
    """Replace what stands between the markers of a name.

    Args:
        path: of the page.
        name: of the markers.
        text: without them.

    Raises:
        ValueError: the page has no such markers.
    """
    page = path.read_text()
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"{path} expects one '{begin}' and one '{end}': put them in")
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def footer(result: Row) -> str:
    """What a table was measured on: T, machine and commit."""
    machine = result["machine"]
    return (
        f"T = {result['num_samples']}. {machine['processor']}, 1 thread, torch {machine['torch']},"
        f" dubito {machine['dubito']} at {machine['commit']}."
    )


def commit() -> str:
    """The commit of this checkout; `-dirty` where files differ from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
