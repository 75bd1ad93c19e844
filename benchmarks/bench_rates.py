"""Requests per second of Dubito and of LitServe, asked in turns by wrk.

    python benchmarks/bench_rates.py [--clients 1 8 32] [--turns 3] [--seconds 4] [--json FILE]

wants Debian's wrk, and `pip install --no-deps litserve==0.2.19 pyzmq` (without LitServe only Dubito
is asked). One perceptron (784-1024-1024-10, T = 50), each server with one thread, on the cores that
they share with wrk, whose share is stated. Every client keeps a connection, sends a row and waits:

* JSON, 784 numbers of three decimals; of LitServe the better of batches up to 32 rows and of one.
* binary (`.npy`), one row, and 64 rows from 4 clients: against what the engine computes in this
  process, in calls of as many rows as there are clients, or of 64.

Who is not asked stands still meanwhile (SIGSTOP), since LitServe's processes look for work all the
time. A figure is the median of the turns; a latency is what wrk states.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import httpx
import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "service"), str(ROOT / "models")]

from benchmarks.served import FEATURES, perceptron_server  # noqa: E402

from dubito.bench.machine import describe_machine  # noqa: E402
from dubito.engine import Engine  # noqa: E402

SAMPLES, BODIES = 50, 64
RESULT = ROOT / "benchmarks" / "results" / "bench_rates.json"
SCRIPT = """
local bodies, place = {}, 0
for number = 1, COUNT do
  local file = assert(io.open("FOLDER/" .. number, "rb"))
  bodies[number] = file:read("*a")
  file:close()
end
local head = {["Content-Type"] = "KIND"}
function request()
  place = place % COUNT + 1
  return wrk.format("POST", nil, head, bodies[place])
end
"""


@dataclass(frozen=True)
class Asked:
    """A kind of request, sent by so many clients: what is asked of whom."""

    kind: str
    rows: int
    clients: int
    url: str
    script: Path
    pids: tuple[int, ...]


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        ours = stack.enter_context(
            perceptron_server(folder, ROOT, {"DUBITO_NUM_SAMPLES": str(SAMPLES)})
        )
        url = f"{ours.url}/v1/models/mlp/predict"
        scripts = {
            "JSON": _script(folder, "json", "application/json", _json, 1),
            "binary": _script(folder, "npy", "application/x-npy", _npy, 1),
            "binary, 64 rows": _script(folder, "npy64", "application/x-npy", _npy, 64),
        }
        asked = {
            f"Dubito, {kind}, {clients}": Asked(kind, 1, clients, url, scripts[kind], (ours.pid,))
            for kind in ("JSON", "binary")
            for clients in options.clients
        }
        many = scripts["binary, 64 rows"]
        asked["Dubito, binary, 64 rows, 4"] = Asked("binary", 64, 4, url, many, (ours.pid,))
        if find_spec("litserve"):
            for most in (1, 32):
                other, pids = stack.enter_context(_lit_server(folder, most))
                for clients in options.clients:
                    key = f"LitServe, batches up to {most}, {clients}"
                    asked[key] = Asked(
                        "JSON", 1, clients, f"{other}/predict", scripts["JSON"], pids
                    )
        engine = Engine.load(folder / "mlp.dubito", num_samples=SAMPLES)
        result = {
            "engine_rows_per_s": {
                rows: _engine_rate(engine, rows) for rows in (*options.clients, 64)
            },
            "served": _in_turns(asked, options),
            "machine": asdict(describe_machine(torch.device("cpu"))),
        }
    print(_table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of a turn")
    parser.add_argument("--json", type=Path, default=RESULT)
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed: apt-get install wrk")
    return parser.parse_args()


def _json(rows: np.ndarray) -> bytes:
    return json.dumps({"inputs": rows.round(3).astype(float).round(3).tolist()}).encode()


def _npy(rows: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()


def _script(folder: Path, name: str, kind: str, write: object, rows: int) -> Path:
    """A program for wrk that sends one body after the other."""
    bodies = folder / name
    bodies.mkdir()
    for number in range(1, BODIES + 1):
        made = np.random.default_rng(number).standard_normal((rows, FEATURES), np.float32)
        (bodies / str(number)).write_bytes(write(made))  # type: ignore[operator]
    script = folder / f"{name}.lua"
    values = {"COUNT": str(BODIES), "FOLDER": str(bodies), "KIND": kind}
    script.write_text(re.sub("COUNT|FOLDER|KIND", lambda found: values[found[0]], SCRIPT))
    return script


@contextmanager
def _lit_server(folder: Path, most: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "benchmarks" / "lit_server.py"), str(port), str(most)]
    with (folder / f"lit-{most}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        row = _json(np.zeros((1, FEATURES), np.float32))
        with httpx.Client(timeout=60) as client:
            while not _answers(client, f"{url}/predict", row):
                assert process.poll() is None, (folder / f"lit-{most}.log").read_text()
                time.sleep(0.1)
        found = subprocess.check_output(["pgrep", "--session", str(process.pid)], text=True)
        yield url, tuple(map(int, found.split()))
    finally:
        subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)
        process.wait()


def _answers(client: httpx.Client, url: str, body: bytes) -> bool:
    try:
        return client.post(
            url, content=body, headers={"Content-Type": "application/json"}
        ).is_success
    except httpx.TransportError:
        return False


def _in_turns(
    asked: Mapping[str, Asked], options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    turns: dict[str, list[dict[str, float]]] = {key: [] for key in asked}
    for turn in range(options.turns + 1):
        for key, one in asked.items():
            with _alone(one, asked.values()):
                _wrk(one, 1)  # who stood still refuses a few until it knows how fast it is again
                found = _asked_by_wrk(one, options.seconds)
            if turn:  # the first warms up
                turns[key].append(found)
        print(f"turn {turn} of {options.turns}", file=sys.stderr, flush=True)
    return {
        key: {name: median(one[name] for one in found) for name in found[0]}
        for key, found in turns.items()
    }


@contextmanager
def _alone(asked: Asked, all_asked: Iterable[Asked]) -> Iterator[None]:
    """While active, the processes of whoever else is asked in turn stand still."""
    others = {pid for one in all_asked for pid in one.pids} - set(asked.pids)
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def _wrk(asked: Asked, seconds: int) -> str:
    command = [
        *("wrk", "--threads", "1", "--connections", str(asked.clients), "--latency"),
        *("--duration", f"{seconds}s", "--timeout", "60s", "--script", str(asked.script)),
        asked.url,
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _asked_by_wrk(asked: Asked, seconds: int) -> dict[str, float]:
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = _wrk(asked, seconds)
    assert "Non-2xx" not in said, said
    assert "Socket errors" not in said, said
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    used_s = ended.ru_utime - began.ru_utime + ended.ru_stime - began.ru_stime
    rate = re.search(r"Requests/sec: +([\d.]+)", said)
    assert rate is not None, said
    return {
        "requests_per_s": float(rate[1]),
        "rows_per_s": float(rate[1]) * asked.rows,
        **{f"p{share}_ms": _latency_ms(said, share) for share in (50, 99)},
        "cores_of_wrk": used_s / seconds,
    }


def _latency_ms(said: str, share: int) -> float:
    found = re.search(rf"{share}% +([\d.]+)(us|ms|s)\b", said)
    assert found is not None, said
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]


def _engine_rate(engine: Engine, rows: int) -> float:
    """Rows per second of the engine alone, in calls of so many rows."""
    taken = []
    for turn in range(40):
        x = np.random.default_rng(turn).standard_normal((rows, FEATURES), np.float32)
        began_s = time.perf_counter()
        engine.predict(x)
        taken.append(time.perf_counter() - began_s)
    return rows / median(taken[10:])


def _table(result: Mapping[str, object]) -> str:
    rates, served = result["engine_rows_per_s"], result["served"]
    assert isinstance(rates, dict)
    assert isinstance(served, dict)
    alone = ", ".join(f"{rows}: {rate:.0f}" for rows, rate in rates.items())
    lines = [
        f"engine, rows / s by rows of a call: {alone}",
        "",
        "| asked, clients | requests / s | rows / s | p50, ms | p99, ms | cores of wrk |",
        "|---|---|---|---|---|---|",
    ]
    for key, found in served.items():
        cells = [f"{found[name]:.4g}" for name in found]
        lines.append(f"| {key} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
