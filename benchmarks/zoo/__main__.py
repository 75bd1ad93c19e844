"""Run the zoo: one process for each network, resumable, and print the table.

python -m benchmarks.zoo run transformers [WORD ...]
python -m benchmarks.zoo table
python -m benchmarks.zoo page
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from importlib import import_module
from importlib.metadata import packages_distributions, version
from multiprocessing import get_context
from pathlib import Path

from benchmarks.zoo.cases import Build
from benchmarks.zoo.judge import judged
from benchmarks.zoo.page import PAGE, page

SOURCES = {
    "transformers": "benchmarks.zoo.of_transformers",
    "timm": "benchmarks.zoo.of_timm",
    "libraries": "benchmarks.zoo.of_libraries",
    "packages": "benchmarks.zoo.of_packages",
}
RESULTS = Path(__file__).parent.parent / "results" / "zoo.jsonl"
_STATES = (
    *("equal", "unequal", "not answered", "not loaded", "refused rightly", "refused wrongly"),
    *("crashed", "not built"),
)
_RIGHTLY = re.compile(  # nothing that a graph f(x, ω) could stand for
    "no random operation|from Python's `random` or NumPy|seeds torch's random|data-dependent"
    "|by the statistics of the batch"
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo")
    parser.add_argument("command", choices=["run", "table", "page"])
    parser.add_argument("source", nargs="?", choices=list(SOURCES))
    parser.add_argument("words", nargs="*", help="of names; all where none is given")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="also those that were tried before")
    parser.add_argument("--limit-s", type=float, default=180.0, help="for one network")
    asked = parser.parse_args()
    if asked.command == "table":
        print(table(read(asked.out)))
    elif asked.command == "page":
        PAGE.write_text(page(read(asked.out)))
    else:
        run(asked.source, asked.words, asked.out, asked.again, asked.limit_s)


def run(source: str, words: list[str], out: Path, again: bool, limit_s: float) -> None:
    """Try every network that was not tried yet, and keep a line of each."""
    done = {} if again else read(out)
    for name, build in import_module(SOURCES[source]).networks().items():
        if (source, name) in done or (words and not any(word in name for word in words)):
            continue
        line = {"source": source, "name": name, **_apart(build, limit_s)}
        line["version"] = _version(source, name)
        with out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{name:60} {line['state']:12} {str(line.get('why', ''))[:160]}", flush=True)


def _apart(build: Build, limit_s: float) -> dict[str, object]:
    """Judge a network in a process of its own, forked, so that libraries are imported once."""
    context = get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=lambda: theirs.send(judged(build)))
    process.start()
    said: dict[str, object] = {"state": "crashed", "why": f"took longer than {limit_s:g} s"}
    if ours.poll(limit_s):
        said = ours.recv()
    process.kill()
    process.join()
    return said


def _version(source: str, name: str) -> str:
    """The library that a network is of, with its version."""
    package = name.partition(":")[0] if source in ("libraries", "packages") else source
    distribution = packages_distributions()[package][0]
    return f"{distribution} {version(distribution)}"


def read(out: Path) -> dict[tuple[str, str], dict[str, object]]:
    """The last line of every network."""
    lines = out.read_text().splitlines() if out.exists() else []
    found = [json.loads(line) for line in lines]
    return {(line["source"], line["name"]): line for line in found}


def table(lines: dict[tuple[str, str], dict[str, object]]) -> str:
    """Counts by source and head, and why networks were refused, in Markdown."""
    counts: dict[str, Counter[str]] = {}
    reasons: dict[str, list[str]] = {}
    for (source, name), line in lines.items():
        kind = f"{source}, {name.partition(':')[0]}" if ":" in name else source
        state, why = str(line["state"]), str(line.get("why", ""))
        if state == "refused":
            state = "refused rightly" if _RIGHTLY.search(why) else "refused wrongly"
        counts.setdefault(kind, Counter())[state] += 1
        if state not in ("equal", "not built"):
            reasons.setdefault(f"{state}: {_short(why)}", []).append(name.partition(":")[2] or name)
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


if __name__ == "__main__":
    main()
