"""Requests that come whatever becomes of them (an open loop), and what became of each."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from benchmarks.served import FEATURES, Served

PREDICT = "/v1/models/mlp/predict"


@dataclass
class Connections:
    """Connections to a server; one that is free is taken first."""

    url: str
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def ask(self, request: bytes) -> int:
        """Send a request and read its reply: no library of clients takes its part of the machine.

        Returns:
            Its status; 0: none came.
        """
        try:
            reader, writer = self.free.pop() if self.free else await self._connect()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"content-length: (\d+)", head.lower())
            assert found is not None, head
            await reader.readexactly(int(found[1]))
        except (OSError, asyncio.IncompleteReadError):
            return 0
        self.free.append((reader, writer))
        return int(head.split()[1])

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self.url.removeprefix("http://").split(":")
        return await asyncio.open_connection(host, int(port))


@dataclass
class Asked:
    """Requests, one after the other: when each was sent, its status, and its time.

    Attributes:
        late_s: how much later than planned each was sent.
    """

    sent_s: list[float] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)

    def after(self, begin_s: float) -> Asked:
        """Those that were sent after a time."""
        kept = [place for place, sent_s in enumerate(self.sent_s) if sent_s >= begin_s]
        columns = (self.sent_s, self.status, self.took_s)
        return Asked(*([column[place] for place in kept] for column in columns), self.late_s)

    def ms(self, share: float, *, answered: bool = True) -> float:
        """A percentile of the times of answers, or of refusals; nan where there were none."""
        taken = [
            took_s
            for took_s, status in zip(self.took_s, self.status, strict=True)
            if status == (200 if answered else 429)
        ]
        return 1000 * float(np.percentile(taken, share)) if taken else float("nan")

    def count(self, status: int) -> int:
        """How many had a status."""
        return self.status.count(status)

    def rate(self, begin_s: float, end_s: float) -> float:
        """Answers a second that came within a time."""
        ends = zip(self.sent_s, self.took_s, self.status, strict=True)
        came = [s for sent_s, took_s, s in ends if begin_s <= sent_s + took_s < end_s]
        return came.count(200) / (end_s - begin_s)


class Load:
    """Requests that come whatever becomes of them.

    Args:
        server: that is asked.
        requests: of which one after the other is sent.
    """

    def __init__(self, server: Served, requests: Sequence[bytes]) -> None:
        self._server = server
        self._requests = requests
        self._connections = Connections(server.url)
        self._random = np.random.default_rng(0)

    async def come(self, rate: float, seconds: float, asked: Asked) -> None:
        """Send at a rate for a time; what is sent last may be open when this returns."""
        loop = asyncio.get_running_loop()
        planned_s = began_s = loop.time()
        tasks: set[asyncio.Task[None]] = set()
        while True:
            planned_s += self._random.exponential(1 / rate)
            if planned_s > began_s + seconds:
                break
            await asyncio.sleep(planned_s - loop.time())
            asked.late_s.append(loop.time() - planned_s)
            task = asyncio.create_task(self.one(len(asked.late_s), asked))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def closed(self, clients: int, seconds: float) -> float:
        """Answers a second to clients that wait."""
        asked = Asked()
        loop = asyncio.get_running_loop()
        end_s = loop.time() + seconds

        async def client(number: int) -> None:
            while loop.time() < end_s:
                await self.one(number, asked)
                if asked.status[-1] == 429:
                    await asyncio.sleep(0.05)

        await asyncio.gather(*(client(number) for number in range(clients)))
        return asked.count(200) / seconds

    async def one(self, number: int, asked: Asked) -> None:
        """Send one, and note what became of it."""
        began_s = time.monotonic()
        status = await self._connections.ask(self._requests[number % len(self._requests)])
        asked.sent_s.append(began_s)
        asked.status.append(status)
        asked.took_s.append(time.monotonic() - began_s)


def requests_of(samples: int) -> list[bytes]:
    """Requests of one row each, with a T."""
    requests = []
    for place in range(64):
        row = np.random.default_rng(place).standard_normal((1, FEATURES)).round(3).tolist()
        body = json.dumps({"inputs": row, "num_samples": samples}).encode()
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
        requests.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return requests
