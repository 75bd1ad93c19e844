"""What became of the networks of the zoo, read and counted."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).parent.parent / "results" / "zoo.jsonl"
_STATES = (
    *("equal", "unequal", "not answered", "not loaded", "refused rightly", "refused wrongly"),
    *("crashed", "not built"),
)
_RIGHTLY = re.compile(  # nothing that a graph f(x, ω) could stand for
    "no random operation|from Python's `random` or NumPy|seeds torch's random|data-dependent"
    "|by the statistics of the batch|^rows interact"
)
_LOOPS_OVER_ROWS = ("vit_pytorch:ats_vit.ViT",)  # with torch.unique of each
_HEADS = ("Sequence", "Token", "Image", "Audio", "Video", "TimeSeries")
_KINDS = ("sequence", "token", "image", "audio", "video", "segmentation", "series")
Line = Mapping[str, object]
Lines = Mapping[tuple[str, str], Line]


def read(out: Path) -> dict[tuple[str, str], Line]:
    """The last line of every network."""
    lines = out.read_text().splitlines() if out.exists() else []
    found = [json.loads(line) for line in lines]
    return {(line["source"], line["name"]): line for line in found}


def spread(lines: Lines, source: str, names: Iterable[str], count: int) -> list[str]:
    """Of the named networks that were equal those in the middle of `count` equal parts, by time."""
    times = {
        name: float(str(line.get("export_processor_s", line["export_s"])))
        for name in names
        if (line := lines.get((source, name))) and line["state"] == "equal"
    }
    ordered = sorted(times, key=lambda name: (times[name], name))
    count = min(count, len(ordered))
    return [ordered[int((part + 0.5) * len(ordered) / count)] for part in range(count)]


def state_of(line: Line) -> str:
    """What became of a network, one of `_STATES`."""
    state = str(line["state"])
    if state != "refused":
        return state
    is_right = line["name"] in _LOOPS_OVER_ROWS or _RIGHTLY.search(str(line.get("why", "")))
    return "refused rightly" if is_right else "refused wrongly"


def family(name: str) -> str:
    """The architecture, family or package that a network is of."""
    kind = name.rpartition(":")[0]
    return kind if kind and kind not in _KINDS else short(name)


def short(name: str) -> str:
    """A network without its package or head."""
    name = name.rpartition(":")[2]
    for head in _HEADS:
        name = name.removesuffix(f"For{head}Classification")
    return name.removesuffix("ForSemanticSegmentation").removesuffix("ForClassification")


def by_source(lines: Lines) -> str:
    """Counts by source, in Markdown; processor time of those that say it."""
    head = (
        "| source | architectures, families or packages | networks | equal | refused rightly"
        " | refused wrongly | unequal, not loaded or not answered | took too long or crashed"
        " | export, s | load, s |\n|---|---|---|---|---|---|---|---|---|---|\n"
    )
    rows = []
    for source in dict.fromkeys(source for source, _ in lines):
        own = {
            name: line
            for (other, name), line in lines.items()
            if other == source and line["state"] != "not built"
        }
        counts = Counter(map(state_of, own.values()))
        wrong = counts["unequal"] + counts["not loaded"] + counts["not answered"]
        rows.append(
            f"| {source} | {len(set(map(family, own)))} | {len(own)} | {counts['equal']}"
            f" | {counts['refused rightly']} | {counts['refused wrongly']} | {wrong}"
            f" | {counts['crashed']} | {_median(own, 'export')} | {_median(own, 'load')} |"
        )
    return head + "\n".join(rows)


def _median(lines: Mapping[str, Line], step: str) -> str:
    times = [float(str(x)) for line in lines.values() if (x := line.get(f"{step}_processor_s"))]
    return f"{median(times):.1f}" if times else ""


def table(lines: Lines) -> str:
    """Counts by source and head, and why networks were refused, in Markdown."""
    counts: dict[str, Counter[str]] = {}
    reasons: dict[str, list[str]] = {}
    for (source, name), line in lines.items():
        kind = f"{source}, {name.partition(':')[0]}" if ":" in name else source
        state = state_of(line)
        counts.setdefault(kind, Counter())[state] += 1
        if state not in ("equal", "not built"):
            why = f"{state}: {_short(str(line.get('why', '')))}"
            reasons.setdefault(why, []).append(name.partition(":")[2] or name)
    head = f"| networks | tried | {' | '.join(_STATES)} |\n|---|---|{'---|' * len(_STATES)}\n"
    rows = (
        f"| {kind} | {sum(count.values())} | {' | '.join(str(count[s]) for s in _STATES)} |"
        for kind, count in counts.items()
    )
    listed = (f"* {why} ({', '.join(names)})" for why, names in sorted(reasons.items()))
    return head + "\n".join(rows) + "\n\n" + "\n".join(listed)


def _short(why: str) -> str:
    """A reason without the module that it speaks of."""
    return re.sub(r"^module `[^`]*`:? ?|^the network ", "", why).split(":")[0][:120]
