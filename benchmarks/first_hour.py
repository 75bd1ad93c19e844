"""How long someone waits who has just cloned the repository, installs, serves and asks.

    python3 benchmarks/first_hour.py [--keep FOLDER]

It clones the last commit into a new folder, runs `scripts/serve` there as a person would, and
prints each time beside what it should be on two quiet cores. It needs git, Python alone, and the
network that pip needs; nothing of the checkout is touched. It runs apart from the tests, since it
takes minutes and its figures are those of a machine and a network.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
READY_LIMIT_S = 600.0
TORCHLESS = (
    *("models", "show digits", "pool list", "jobs", "db current", "registry check"),
    "registry audit",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--keep", type=Path, help="Folder to clone into and to leave there.")
    keep: Path | None = parser.parse_args().keep
    folder = Path(tempfile.mkdtemp(prefix="first-hour-")) if keep is None else keep
    try:
        _measure(folder / "dubito")
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _measure(clone: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    # A person's shell has neither paths nor a switch that keeps Python from keeping its bytecode.
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("PYTHON", "DUBITO_"))}

    start_s = time.perf_counter()
    installed = subprocess.run(
        ["scripts/install", "--serve"],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    _tell(
        "scripts/install --serve", time.perf_counter() - start_s, note=_installed(clone, installed)
    )

    with _serving(clone, environment, "first start until `ready`", 60.0) as url:
        for name, aim_s in (("first request", 0.3), ("second request", None)):
            _tell(name, _request_s(url, clone), aim_s)
        _command(clone, environment, "predict, asked of the server", _rows(clone), 3.0)
    with _serving(clone, environment, "second start until `ready`", None) as url:
        _tell("first request", _request_s(url, clone), 0.3)

    _command(clone, environment, "dubito --help", ["--help"], 0.4)
    for line in TORCHLESS:
        _command(clone, environment, f"dubito {line}", line.split(), None)
    _command(clone, environment, "predict of 5 rows", _rows(clone), 3.0)
    for file in (clone / "data" / "findings").glob("*.json"):
        if json.loads(file.read_bytes())["about"]["found"] == "timings":
            file.unlink()
    _command(clone, environment, "predict of 5 rows, nothing timed", _rows(clone), 3.0)
    shutil.rmtree(clone / "data" / "findings")
    _command(clone, environment, "predict of 5 rows, proved again", _rows(clone), None)
    _command(clone, environment, "the same once more", _rows(clone), 3.0)


def _installed(clone: Path, done: subprocess.CompletedProcess[str]) -> str:
    sizes = (path.lstat().st_size for path in (clone / ".venv").rglob("*") if path.is_file())
    lines = done.stdout.count("\n") + done.stderr.count("\n")
    return f"{sum(sizes) / 1e9:.2f} GB, {lines} lines"


@contextmanager
def _serving(
    clone: Path, environment: dict[str, str], name: str, aim_s: float | None
) -> Iterator[str]:
    """`scripts/serve` on a free port, once it has said that it is ready."""
    start_s = time.perf_counter()
    process = subprocess.Popen(
        ["scripts/serve", "--port", "0"],
        cwd=clone,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    late = threading.Timer(READY_LIMIT_S, process.kill)
    late.start()
    assert process.stderr is not None
    try:
        url = ""
        for line in process.stderr:
            found = re.search(r"http://[\d.]+:\d+", line)
            url = found[0] if found else url
            if '"ready"' in line:
                break
        else:
            sys.exit("the server ended before it was ready")
        late.cancel()
        _tell(name, time.perf_counter() - start_s, aim_s)
        yield url
    finally:
        late.cancel()
        process.terminate()
        process.wait()
        process.stderr.close()


def _request_s(url: str, clone: Path) -> float:
    body = (clone / "examples" / "digits.json").read_bytes()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/models/digits/predict", body, headers)
    start_s = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        json.load(answer)
    return time.perf_counter() - start_s


def _rows(clone: Path) -> list[str]:
    """The command that predicts five rows."""
    path = clone / "five.json"
    rows = json.loads((clone / "examples" / "digits.json").read_text())["inputs"]
    path.write_text(json.dumps((3 * rows)[:5]))
    return ["predict", "digits", "--inputs", str(path)]


def _command(
    clone: Path, environment: dict[str, str], name: str, words: list[str], aim_s: float | None
) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start_s = time.perf_counter()
    subprocess.run(
        [clone / ".venv" / "bin" / "dubito", *words],
        cwd=clone,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    wall_s = time.perf_counter() - start_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    _tell(name, wall_s, aim_s, note=f"{cpu_s:.2f} s of processor time")


def _tell(name: str, wall_s: float, aim_s: float | None = None, note: str = "") -> None:
    aim = "" if aim_s is None else f"<= {aim_s:g} s"
    print(f"{name:<36} {wall_s:8.2f} s   {aim:<10} {note}".rstrip(), flush=True)


if __name__ == "__main__":
    main()
