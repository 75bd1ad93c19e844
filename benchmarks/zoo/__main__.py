"""Run the zoo: one process for each network, resumable, and print the table.

python -m benchmarks.zoo run transformers [WORD ...]
python -m benchmarks.zoo run packages --not-equal
python -m benchmarks.zoo run timm --spread 11 --out TIMES.jsonl
python -m benchmarks.zoo table
python -m benchmarks.zoo page
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import packages_distributions, version
from multiprocessing import get_context
from pathlib import Path

import torch
from benchmarks.zoo.cases import Build, Case
from benchmarks.zoo.judge import judged
from benchmarks.zoo.page import PAGE, page
from benchmarks.zoo.results import RESULTS, read, spread, table
from torch import nn

SOURCES = {
    "transformers": "benchmarks.zoo.of_transformers",
    "timm": "benchmarks.zoo.of_timm",
    "libraries": "benchmarks.zoo.of_libraries",
    "packages": "benchmarks.zoo.of_packages",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo")
    parser.add_argument("command", choices=["run", "table", "page"])
    parser.add_argument("source", nargs="?", choices=list(SOURCES))
    parser.add_argument("words", nargs="*", help="of names; all where none is given")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="also those that were tried before")
    parser.add_argument("--not-equal", action="store_true", help="also those that were not equal")
    parser.add_argument(
        "--spread", type=int, help="only so many, spread evenly over the times on record"
    )
    parser.add_argument("--limit-s", type=float, default=180.0, help="for one network")
    asked = parser.parse_args()
    if asked.command == "table":
        print(table(read(asked.out)))
    elif asked.command == "page":
        PAGE.write_text(page(read(asked.out)))
    else:
        done = {} if asked.again else read(asked.out)
        if asked.not_equal:
            done = {key: line for key, line in done.items() if line["state"] == "equal"}
        names = [
            name
            for name in import_module(SOURCES[asked.source]).networks()
            if not asked.words or any(word in name for word in asked.words)
        ]
        if asked.spread:
            names = spread(read(RESULTS), asked.source, names, asked.spread)
        run(asked.source, [name for name in names if (asked.source, name) not in done], asked)


def run(source: str, names: Iterable[str], asked: argparse.Namespace) -> None:
    """Try each network in turn, and keep a line of each."""
    judged(_first)  # what torch imports and compiles once is here for all processes
    networks = import_module(SOURCES[source]).networks()
    for name in names:
        line = {"source": source, "name": name, **_apart(networks[name], asked.limit_s)}
        line["version"] = _version(source, name)
        with asked.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{name:60} {line['state']:12} {str(line.get('why', ''))[:160]}", flush=True)


def _first() -> Case:
    network = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 3))
    return Case(network, (torch.randn(4, 4),))


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


if __name__ == "__main__":
    main()
