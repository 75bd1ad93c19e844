"""A large stored pool behind one server: rate, memory, and what requests wait meanwhile.

    python benchmarks/bench_pool.py [--rows 2000000] [--samples 16] [--json FILE]

A server process gets a perceptron and a pool of random rows, and chooses by BALD. Its rate is held
against the engine's own in another process, on the same rows in calls of 4096, before the job
begins. Memory is the largest resident set of the server. Requests of one row are sent before the
job and while it runs, ten a second.

Dimensions: N rows of the pool.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import asdict
from pathlib import Path

import httpx
import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import nn

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "service"), str(ROOT / "models")]

from dubito.bench.machine import describe_machine  # noqa: E402
from dubito.engine import Engine  # noqa: E402
from dubito_nn import export  # noqa: E402

FEATURES, CLASSES, CALL_ROWS = 64, 10, 4096
EVERY_S, BEFORE = 0.1, 50
WRITE_ROWS = 100_000
RESULT = ROOT / "benchmarks" / "results" / "bench_pool.json"


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _export(folder / "mlp.dubito")
        _write_pool(folder / "pool.npy", options.rows)
        result = _measure(folder, options)
    result["machine"] = asdict(describe_machine(torch.device("cpu")))
    print(_table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--k", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0, help="of the engine's own rate")
    parser.add_argument("--json", type=Path, default=RESULT)
    return parser.parse_args()


def _export(path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Linear(FEATURES, 128), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(128, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, CLASSES)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = torch.randn(3, FEATURES)
        classes = tuple("abcdefghij")
        export(network, example, path, task="classification", output="logits", classes=classes)


def _write_pool(path: Path, rows: int) -> None:
    """Rows on disk, never all in memory."""
    made = open_memmap(path, "w+", np.float32, (rows, FEATURES))
    generator = np.random.default_rng(0)
    for start in range(0, rows, WRITE_ROWS):
        count = min(WRITE_ROWS, rows - start)
        made[start : start + count] = generator.standard_normal((count, FEATURES), np.float32)
    made.flush()


def _own_rate(folder: Path, options: argparse.Namespace) -> float:
    """Rows per second of the engine alone, in large calls."""
    engine = Engine.load(folder / "mlp.dubito", num_samples=options.samples)
    pool = np.load(folder / "pool.npy", mmap_mode="r")
    calls = [
        np.array(pool[start : start + CALL_ROWS]) for start in range(0, CALL_ROWS * 8, CALL_ROWS)
    ]
    calls = [call for call in calls if len(call)]
    engine.predict(calls[0])
    done, began_s = 0, time.perf_counter()
    while time.perf_counter() - began_s < options.seconds:
        call = calls[(done // CALL_ROWS) % len(calls)]
        engine.predict(call)
        done += len(call)
    return done / (time.perf_counter() - began_s)


def _measure(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    own = _own_rate(folder, options)
    server = subprocess.Popen(
        [sys.executable, "-m", "dubito", "serve", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path[:2]),
            "OMP_NUM_THREADS": str(options.threads),
            "DUBITO_DATA_DIR": str(folder / "data"),
            "DUBITO_NUM_SAMPLES": str(options.samples),
        },
    )
    try:
        assert server.stderr is not None
        found = re.search(r"http://[\d.]+:\d+", server.stderr.readline())
        assert found is not None
        drain = threading.Thread(target=server.stderr.read, daemon=True)
        drain.start()
        with httpx.Client(base_url=found[0], timeout=600) as client:
            return _ask(client, server.pid, folder, options, own)
    finally:
        server.kill()
        server.wait()


def _ask(
    client: httpx.Client, pid: int, folder: Path, options: argparse.Namespace, own: float
) -> dict[str, object]:
    octets = {"Content-Type": "application/octet-stream"}
    bundle = (folder / "mlp.dubito").read_bytes()
    client.post("/v1/models/mlp/versions", content=bundle, headers=octets).raise_for_status()
    before = _waits(client, lambda count: count == BEFORE)
    began_s = time.perf_counter()
    with (folder / "pool.npy").open("rb") as file:
        kind = {"Content-Type": "application/x-npy"}
        sent = client.post("/v1/pools", params={"name": "pool"}, content=file, headers=kind)
    sent.raise_for_status()
    upload_s = time.perf_counter() - began_s
    asked = {"pool": "pool", "strategy": "bald", "k": options.k}
    quiet = _run(client, asked | {"seed": 1}, None)
    answers: list[float] = []
    busy = _run(client, asked | {"seed": 2}, answers)
    return {
        "rows": options.rows,
        "features": FEATURES,
        "num_samples": options.samples,
        "k": options.k,
        "engine_rows_per_s": own,
        "job_rows_per_s": options.rows / quiet,
        "job_share": options.rows / quiet / own,
        "job_s": quiet,
        "job_with_requests_s": busy,
        "upload_s": upload_s,
        "server_peak_bytes": _peak_bytes(pid),
        "wait_before_ms": _spread(before),
        "wait_during_ms": _spread(answers),
        "requests_during": len(answers),
    }


def _run(client: httpx.Client, asked: dict[str, object], answers: list[float] | None) -> float:
    """Seconds from the beginning of a job to its end."""
    reply = client.post("/v1/models/mlp/select", json=asked)
    reply.raise_for_status()
    path = f"/v1/jobs/{reply.json()['job']}"

    def is_ended(_: int) -> bool:
        return client.get(path).json()["state"] not in ("queued", "running")

    if answers is None:
        while not is_ended(0):
            time.sleep(0.5)
    else:
        answers += _waits(client, is_ended)
    page = client.get(path).json()
    assert page["state"] == "succeeded", page
    started, finished = (np.datetime64(page[k][:26]) for k in ("started_at", "finished_at"))
    return float((finished - started) / np.timedelta64(1, "s"))


def _waits(client: httpx.Client, ends: object) -> list[float]:
    """Seconds of requests of one row, one begun every tenth of a second, until it ends."""
    assert callable(ends)
    row = np.random.default_rng(1).standard_normal((1, FEATURES)).tolist()
    taken: list[float] = []
    due_s = time.perf_counter()
    while not ends(len(taken)):
        time.sleep(max(0.0, due_s - time.perf_counter()))
        due_s = max(due_s + EVERY_S, time.perf_counter())
        began_s = time.perf_counter()
        client.post("/v1/models/mlp/predict", json={"inputs": row}).raise_for_status()
        taken.append(time.perf_counter() - began_s)
    return taken


def _spread(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(1000 * one for one in seconds)
    return {
        "median": statistics.median(ordered),
        "p95": ordered[int(0.95 * (len(ordered) - 1))],
        "largest": ordered[-1],
    }


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return 1024 * int(found[1])


def _table(result: dict[str, object]) -> str:
    before, during = result["wait_before_ms"], result["wait_during_ms"]
    assert isinstance(before, dict)
    assert isinstance(during, dict)
    rows = (
        ("rows, features, T, k", "{rows} x {features}, {num_samples}, {k}".format(**result)),
        ("engine alone, rows / s", f"{result['engine_rows_per_s']:.0f}"),
        ("job, rows / s", f"{result['job_rows_per_s']:.0f} ({100 * result['job_share']:.0f} %)"),  # type: ignore[operator]
        ("largest memory of the server", f"{result['server_peak_bytes'] / 10**6:.0f} MB"),  # type: ignore[operator]
        ("upload", f"{result['upload_s']:.1f} s"),
        *(
            (
                f"one row, {when}, ms",
                "{median:.1f} median, {p95:.1f} of 95 %, {largest:.1f} largest".format(**waits),
            )
            for when, waits in (("before the job", before), ("during the job", during))
        ),
    )
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


if __name__ == "__main__":
    main()
