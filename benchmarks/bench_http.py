"""One server and many clients: requests per second, and what small ones wait beside large ones.

    python benchmarks/bench_http.py [--clients 1 8 32] [--turns 3] [--seconds 4] [--beside FOLDER]

Two servers of one perceptron (784-1024-1024-10, T = 50), each a process with one thread: one joins
requests, the other computes each alone (`DUBITO_MAX_BATCH_ROWS=1`). They are asked in turns, from
this process, so both sides meet the same machine; a figure is the median of the turns. With
`--beside` a third server runs the code of another checkout, such as that of an earlier commit.

* Clients: each sends one row as JSON, waits for the answer, and sends the next.
* Waits: four clients do so while one large request after the other is computed.
* Together: two servers on these cores, in turns one alone and both, by how many threads each has.

Where other programs take a part of the cores, what a server does in a second says little: requests
per second of its processor time stand beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import io
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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "service"), str(ROOT / "models")]

from benchmarks.networks import perceptron  # noqa: E402

from dubito.bench.machine import describe_machine  # noqa: E402
from dubito.engine import Engine  # noqa: E402
from dubito_nn import export  # noqa: E402

FEATURES, SAMPLES, SMALL_CLIENTS, LARGE_ROWS, TOGETHER_ROWS = 784, 50, 4, 10_000, 32
RESULT = ROOT / "benchmarks" / "results" / "bench_http.json"
JSON = "application/json"
PREDICT, CALIBRATE = "/v1/models/mlp/predict", "/v1/models/mlp/calibrate"


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        _export(folder / "mlp.dubito")
        sides: dict[str, tuple[Path, dict[str, str]]] = {
            "joined": (ROOT, {}),
            "alone": (ROOT, {"DUBITO_MAX_BATCH_ROWS": "1"}),
        }
        if options.beside:
            sides["beside"] = (options.beside, {})
        servers = {
            side: stack.enter_context(_server(folder, side, code, settings))
            for side, (code, settings) in sides.items()
        }
        result = {
            "engine_rows_per_s": _engine_rates(folder, options.clients),
            "clients": _throughput(servers, options),
            "waits": _waits(servers, options),
            "together": [_together(folder, name, options) for name in options.threads],
            "machine": asdict(describe_machine(torch.device("cpu"))),
        }
    print(_tables(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--large", nargs="*", default=list(_LARGE), choices=list(_LARGE))
    parser.add_argument("--threads", nargs="*", default=list(_THREADS), choices=list(_THREADS))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a turn of a side")
    parser.add_argument("--beside", type=Path, help="another checkout")
    parser.add_argument("--json", type=Path, default=RESULT)
    return parser.parse_args()


def _export(path: Path) -> None:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classes = tuple("abcdefghij")
        rows = torch.randn(3, FEATURES)
        export(perceptron(), rows, path, task="classification", output="logits", classes=classes)


def _engine_rates(folder: Path, sizes: Sequence[int]) -> dict[int, float]:
    """Rows per second of the engine alone, in calls of so many rows."""
    engine = Engine.load(folder / "mlp.dubito", num_samples=SAMPLES)
    rates = {}
    for size in sizes:
        taken = []
        for turn in range(20):
            rows = np.random.default_rng(turn).standard_normal((size, FEATURES), np.float32)
            began_s = time.perf_counter()
            engine.predict(rows)
            taken.append(time.perf_counter() - began_s)
        rates[size] = size / statistics.median(taken[5:])
    return rates


class _Server(NamedTuple):
    url: str
    pid: int

    @property
    def processor_s(self) -> float:
        """Processor time that it has taken."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _server(folder: Path, side: str, code: Path, settings: dict[str, str]) -> Iterator[_Server]:
    process = subprocess.Popen(
        [sys.executable, "-m", "dubito", "serve", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(code / part) for part in ("service", "models")),
            "OMP_NUM_THREADS": "1",
            "DUBITO_DATA_DIR": str(folder / side),
            "DUBITO_NUM_SAMPLES": str(SAMPLES),
            **settings,
        },
    )
    try:
        assert process.stderr is not None
        found = None
        while found is None:
            found = re.search(r"http://[\d.]+:\d+", process.stderr.readline())
        threading.Thread(target=process.stderr.read, daemon=True).start()
        with httpx.Client(base_url=found[0], timeout=600) as client:
            bundle = (folder / "mlp.dubito").read_bytes()
            octets = {"Content-Type": "application/octet-stream"}
            sent = client.post("/v1/models/mlp/versions", content=bundle, headers=octets)
            sent.raise_for_status()
            small = client.post(PREDICT, content=_small(0), headers={"Content-Type": JSON})
            small.raise_for_status()  # loaded and compiled
        yield _Server(found[0], process.pid)
    finally:
        process.kill()
        process.wait()


def _throughput(
    servers: dict[str, _Server], options: argparse.Namespace
) -> list[dict[str, object]]:
    bodies = [_small(place) for place in range(64)]
    table = []
    for clients in options.clients:
        taken: dict[str, list[list[float]]] = {side: [] for side in servers}
        used_ms: dict[str, list[float]] = {side: [] for side in servers}
        for turn in range(options.turns + 1):
            for side, server in servers.items():
                began_s = server.processor_s
                ms = asyncio.run(_clients(server.url, clients, bodies, options.seconds))
                if turn:  # the first warms up
                    taken[side].append(ms)
                    used_ms[side].append(1000 * (server.processor_s - began_s) / len(ms))
        for side, turns in taken.items():
            rate = statistics.median(len(ms) / options.seconds for ms in turns)
            spread = {
                f"p{share}_ms": statistics.median(float(np.percentile(ms, share)) for ms in turns)
                for share in (50, 99)
            }
            spread["processor_ms"] = statistics.median(used_ms[side])  # of a request
            table.append({"clients": clients, "side": side, "requests_per_s": rate, **spread})
    return table


def _waits(servers: dict[str, _Server], options: argparse.Namespace) -> list[dict[str, object]]:
    bodies = [_small(place) for place in range(64)]
    table = []
    for name in options.large:
        path, kind, body = _LARGE[name]()
        for side, (url, _) in servers.items():
            before = asyncio.run(_clients(url, SMALL_CLIENTS, bodies, 2.0))
            large_s, during = asyncio.run(_beside(url, bodies, path, kind, body))
            table.append(
                {
                    "large": name,
                    "side": side,
                    "before_p50_ms": float(np.percentile(before, 50)),
                    "p50_ms": float(np.percentile(during, 50)),
                    "p99_ms": float(np.percentile(during, 99)),
                    "small": len(during),
                    "large_s": large_s,
                }
            )
    return table


def _together(folder: Path, name: str, options: argparse.Namespace) -> dict[str, object]:
    """Requests of 32 rows per second: of one server alone, and of two on the same cores."""
    body = _rows(TOGETHER_ROWS)

    async def asked(some: Sequence[_Server]) -> tuple[float, float]:
        began_s = sum(server.processor_s for server in some)
        npy = "application/x-npy"
        taken = [_clients(server.url, 2, [body], options.seconds, npy) for server in some]
        count = sum(map(len, await asyncio.gather(*taken)))
        used_s = sum(server.processor_s for server in some) - began_s
        return count / options.seconds, count / used_s

    with ExitStack() as stack:
        first, second = (
            stack.enter_context(_server(folder, f"{name}-{place}", ROOT, _THREADS[name]))
            for place in range(2)
        )
        turns = [
            [asyncio.run(asked(some)) for some in ([first], [second], [first, second])]
            for _ in range(options.turns + 1)
        ][1:]  # the first warms up
    per_s, per_processor_s = np.moveaxis(np.array(turns), 2, 0)  # each: turn, then who is asked
    return {"threads": name} | {
        f"{who}{unit}": float(np.median(figures))
        for unit, rate in (("_per_s", per_s), ("_per_processor_s", per_processor_s))
        for who, figures in (
            ("alone", rate[:, :2].mean(axis=1)),
            ("both", rate[:, 2]),
        )
    }


async def _beside(
    url: str, bodies: Sequence[bytes], path: str, kind: str, body: bytes
) -> tuple[float, list[float]]:
    """Seconds of a large request, and milliseconds of small ones from its beginning to its end."""
    large = asyncio.create_task(_once(url, path, kind, body))
    await asyncio.sleep(0.5)  # its body is decoded
    began_s = time.perf_counter()
    during: list[float] = []
    small = [asyncio.create_task(_ask(url, bodies, k, during)) for k in range(SMALL_CLIENTS)]
    await large
    took_s = time.perf_counter() - began_s + 0.5
    await asyncio.sleep(0.05)
    await _stop(small)
    return took_s, during or [1000 * took_s]


async def _clients(
    url: str, count: int, bodies: Sequence[bytes], seconds: float, kind: str = JSON
) -> list[float]:
    """Milliseconds of every request that so many clients send, one after the other."""
    taken: list[float] = []
    tasks = [asyncio.create_task(_ask(url, bodies, place, taken, kind)) for place in range(count)]
    await asyncio.sleep(seconds)
    await _stop(tasks)
    return taken


async def _stop(tasks: Sequence[asyncio.Task[None]]) -> None:
    """End clients; whatever one met before that is raised."""
    for task in tasks:
        task.cancel()
    for met in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(met, asyncio.CancelledError):
            assert isinstance(met, BaseException)
            raise met


async def _ask(
    url: str, bodies: Sequence[bytes], place: int, taken: list[float], kind: str = JSON
) -> None:
    reader, writer = await _connect(url)
    try:
        while True:
            place = (place + 7) % len(bodies)
            began_s = time.perf_counter()
            await _sent(reader, writer, PREDICT, kind, bodies[place])
            taken.append(1000 * (time.perf_counter() - began_s))
    finally:
        writer.close()


async def _once(url: str, path: str, kind: str, body: bytes) -> None:
    reader, writer = await _connect(url)
    await _sent(reader, writer, path, kind, body)
    writer.close()


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port), limit=2**28)


async def _sent(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, kind: str, body: bytes
) -> None:
    """Send a request and read its reply: no library of clients takes its part of the machine."""
    head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Type: {kind}\r\n"
    head += f"X-Request-Timeout-Ms: 600000\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    found = re.search(r"content-length: (\d+)", answer)
    assert found is not None, answer
    content = await reader.readexactly(int(found[1]))
    assert answer.startswith("http/1.1 20"), content[:300]


def _small(place: int) -> bytes:
    row = np.random.default_rng(place).standard_normal((1, FEATURES)).round(3).tolist()
    return json.dumps({"inputs": row}).encode()


def _rows(count: int) -> bytes:
    file = io.BytesIO()
    np.save(file, np.random.default_rng(0).standard_normal((count, FEATURES), np.float32))
    return file.getvalue()


def _prediction(samples: int) -> tuple[str, str, bytes]:
    return f"{PREDICT}?num_samples={samples}&outputs=mean", "application/x-npy", _rows(LARGE_ROWS)


def _calibration() -> tuple[str, str, bytes]:
    file = io.BytesIO()
    generator = np.random.default_rng(1)
    rows = generator.standard_normal((5000, FEATURES), np.float32)
    np.savez(file, inputs=rows, labels=generator.integers(0, 10, 5000))
    return CALIBRATE, "application/x-npz", file.getvalue()


_LARGE = {
    f"{LARGE_ROWS} rows, T = 50": lambda: _prediction(50),
    f"{LARGE_ROWS} rows, T = 1000": lambda: _prediction(1000),
    "a calibration of 5000 rows": _calibration,
}


_THREADS = {
    "one each": {"DUBITO_THREADS": "1"},
    "two each": {"DUBITO_THREADS": "2"},
    "two each, which turn": {"DUBITO_THREADS": "2", "OMP_WAIT_POLICY": "ACTIVE"},
}


def _tables(result: dict[str, object]) -> str:
    lines = [f"engine alone, rows / s: {result['engine_rows_per_s']}"]
    for name in ("clients", "waits", "together"):
        rows = result[name]
        assert isinstance(rows, list)
        for number, row in enumerate(rows):
            if number == 0:
                lines += ["", f"| {' | '.join(row)} |", f"|{'---|' * len(row)}"]
            cells = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values())
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
