"""What silent, slow and hostile clients do to a server, and what its end does to those that wait.

    python benchmarks/bench_connections.py [pattern]

A server as `dubito serve` starts it, with its default settings, is attacked in one way after the
other, while a client of good will asks for predictions and for its health. Of each attack: what the
attackers were answered, when the last of their connections was closed, how long the slowest of the
other requests took and how many failed, and the memory of the server beyond that before. At last it
is told to end under twice the load that it can carry. Linux alone, for its memory and open files
are read from /proc.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "service"), str(ROOT / "models")]

from dubito_nn import export  # noqa: E402

MiB = 2**20
LIVE = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /v1/models/m/predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
ROWS = json.dumps({"inputs": [[0.1, 0.2, 0.3, 0.4]]}).encode()
WHOLE = POST + b"Content-Length: %d\r\n\r\n" % len(ROWS) + ROWS
PAUSE_S = 0.05


class Server:
    """`dubito serve` in a process of its own, with the model `m`."""

    def __init__(self, folder: Path) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*sys.path[:2], os.environ.get("PYTHONPATH", "")]),
            "DUBITO_DATA_DIR": str(folder / "data"),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "dubito", "serve", "--port", "0"]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        found = re.search(r"http://127.0.0.1:(\d+)", self.process.stderr.readline())
        assert found
        threading.Thread(target=self.process.stderr.read, daemon=True).start()  # a full pipe blocks
        self.url, self.port = found[0], int(found[1])
        path = folder / "m.dubito"
        network = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
        kinds = {"task": "classification", "output": "logits", "classes": ("a", "b", "c")}
        export(network, torch.randn(3, 4), path, **kinds)
        headers = {"Content-Type": "application/octet-stream"}
        with httpx.Client(base_url=self.url, timeout=120) as client:
            body = path.read_bytes()
            client.post("/v1/models/m/versions", content=body, headers=headers).raise_for_status()
            for _ in range(20):
                client.post("/v1/models/m/predict", content=ROWS, headers=JSON).raise_for_status()
            client.get("/openapi.json").raise_for_status()

    def memory(self) -> float:
        """Resident MiB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024

    def sockets(self) -> int:
        """Connections that are open, and what it listens on."""
        found = 0
        for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(OSError):
                found += os.readlink(entry).startswith("socket:")
        return found


JSON = {"Content-Type": "application/json"}


@dataclass
class Seen:
    """What the client of good will saw."""

    slowest_s: dict[str, float] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    peak: float = 0.0


async def good_will(server: Server, seen: Seen, is_over: asyncio.Event) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        while not is_over.is_set():
            for name in ("live", "predict"):
                began_s = time.perf_counter()
                try:
                    if name == "live":
                        reply = await client.get("/health/live")
                    else:
                        reply = await client.post(
                            "/v1/models/m/predict", content=ROWS, headers=JSON
                        )
                    seen.statuses[str(reply.status_code)] += 1
                except httpx.HTTPError as error:
                    seen.statuses[type(error).__name__] += 1
                took_s = time.perf_counter() - began_s
                seen.slowest_s[name] = max(seen.slowest_s.get(name, 0), took_s)
            seen.peak = max(seen.peak, server.memory())
            await asyncio.sleep(PAUSE_S)


async def _answer(reader: asyncio.StreamReader) -> str:
    """Status of what comes until the other side ends."""
    data = b""
    try:
        while part := await reader.read(2**16):
            data = data or part[:20]
    except OSError:
        return data[9:12].decode() or "reset"
    return data[9:12].decode() or "closed"


async def send(port: int, *parts: bytes, reads: bool = True, closes: bool = False) -> str:
    """A connection that sends parts, and what it is answered; one that does not read waits."""
    limit = {} if reads else {"limit": 2**12}
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **limit)
    try:
        with suppress(OSError):
            for part in parts:
                writer.write(part)
                await writer.drain()
        if closes:
            return "left"
        if not reads:
            await asyncio.sleep(40)
            return "unread"
        return await _answer(reader)
    finally:
        writer.close()


async def many(count: int, one: Callable[[], Awaitable[str]]) -> Counter[str]:
    found = await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True)
    return Counter(each if isinstance(each, str) else type(each).__name__ for each in found)


def _chunked(count: int) -> Callable[[int], Awaitable[Counter[str]]]:
    async def attack(port: int) -> Counter[str]:
        body = b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n%x\r\n" % len(ROWS) + ROWS
        begun = asyncio.Barrier(count)

        async def one() -> str:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(POST + body + b"\r\n")
            await begun.wait()
            writer.write(b"0\r\n\r\n")
            answer = await _answer(reader)
            writer.close()
            return answer

        return await many(count, one)

    return attack


async def _aborts(port: int) -> Counter[str]:
    stages = (0, 10, len(POST), len(WHOLE) - len(ROWS), len(WHOLE) - 5, len(WHOLE))
    parts = [
        await many(200, lambda s=stage: send(port, WHOLE[:s], closes=True)) for stage in stages
    ]
    return sum(parts, Counter())


def _packed() -> bytes:
    body = gzip.compress(b" " * 400 * MiB, 9)
    head = b"Connection: close\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    return POST + head + body


def _numbers() -> bytes:
    rows = np.random.default_rng(0).normal(size=(550_000, 4)).round(16).tolist()
    body = json.dumps({"inputs": rows}).encode()
    head = b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    return POST + head + body


def attacks() -> dict[str, Callable[[int], Awaitable[Counter[str]]]]:
    def each(count: int, *parts: bytes, reads: bool = True) -> Callable[[int], Awaitable[Counter]]:
        return lambda port: many(count, lambda: send(port, *parts, reads=reads))

    claim = POST + b"Content-Length: %d\r\n\r\n{"
    return {
        "2,000 silent": each(2000),
        "1,000 half headers": each(1000, LIVE[:30]),
        "1,000 half bodies": each(1000, claim % 1000),
        "50 announce 64 MiB": each(50, claim % (64 * MiB)),
        "300 MB of headers": each(1, LIVE[:-2] + b"A: ", *[b"b" * MiB] * 300),
        "1,200 break off at six stages": _aborts,
        "200 x 30 replies unread": each(
            200, b"GET /openapi.json HTTP/1.1\r\n\r\n" * 30, reads=False
        ),
        "64 of unknown length at once": _chunked(64),
        "1,000 of unknown length at once": _chunked(1000),
        "20 x 400 MiB in gzip": each(20, _packed()),
        "4 x 44 MB of numbers": each(4, _numbers()),
    }


async def attacked(server: Server, attack: Callable[[int], Awaitable[Counter[str]]]) -> str:
    seen, is_over = Seen(), asyncio.Event()
    before, sockets = server.memory(), server.sockets()
    asking = asyncio.create_task(good_will(server, seen, is_over))
    await asyncio.sleep(0.3)
    began_s = time.perf_counter()
    answers = await attack(server.port)
    while server.sockets() > sockets + 1:  # one is the client's of good will
        await asyncio.sleep(PAUSE_S)
    took_s = time.perf_counter() - began_s
    is_over.set()
    await asking
    others = ", ".join(f"{name} {slow * 1000:.0f}" for name, slow in seen.slowest_s.items())
    return (
        f"{dict(answers)} | {took_s:.1f} | {others} | {dict(seen.statuses)} | "
        f"{seen.peak - before:+.0f}, then {server.memory() - before:+.0f}"
    )


async def ended(server: Server, clients: int = 400, load_s: float = 5.0) -> str:
    """SIGTERM while more clients ask than can be answered, each on and on, with new connections."""
    found: Counter[str] = Counter()
    is_told = asyncio.Event()

    async def one() -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            except OSError as error:
                found[type(error).__name__] += 1
                if is_told.is_set():
                    return
                continue
            try:
                writer.write(WHOLE.replace(b"Host: a", b"Host: a\r\nConnection: close"))
                status = await _answer(reader)
            finally:
                writer.close()
            if is_told.is_set():
                found[status] += 1

    asking = [asyncio.create_task(one()) for _ in range(clients)]
    await asyncio.sleep(load_s)
    server.process.send_signal(signal.SIGTERM)
    is_told.set()
    began_s = time.perf_counter()
    await asyncio.gather(*asking)
    await asyncio.to_thread(server.process.wait)
    took_s = time.perf_counter() - began_s
    return f"after SIGTERM with {clients} clients: {dict(found)}, {took_s:.1f} s"


def main() -> int:
    pattern = sys.argv[1] if len(sys.argv) > 1 else ""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard > 0 else 8192, hard))
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        print(
            "| attack | answers | all closed after s | slowest ms of others | their replies | MiB |"
        )
        print("|---|---|---|---|---|---|")
        try:
            for name, attack in attacks().items():
                if re.search(pattern, name):
                    print(f"| {name} | {asyncio.run(attacked(server, attack))} |", flush=True)
            print(asyncio.run(ended(server)))
        finally:
            server.process.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
