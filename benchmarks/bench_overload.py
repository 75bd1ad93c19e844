"""A server under more than it can do: what it still answers, how soon, and how it comes out of it.

    python benchmarks/bench_overload.py [--seconds 30] [--loads 2 5] [--code FOLDER]

One server in a process of its own, one perceptron (784-1024-1024-10, one row a request, one
thread), T such that it can answer some hundred requests a second: else the generator is measured.
Requests come as a Poisson process that waits for nobody (an open loop), each on a connection that
is free. Nothing that is refused is sent again.

* Capacity: answers a second to 64 clients that each send when they have their answer.
* At .8 of it: how long answers take where nothing is wrong.
* Overload, at each load: after five seconds to settle. Goodput is answers a second over the
  capacity. Beside it `/health/live` is asked ten times a second, and the memory of the process
  read. Then .8 again: how many seconds until two seconds begin in which every half second's
  requests are answered as before.
* A pause: .7 of the capacity, and all threads of the server stand still for three seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "service"), str(ROOT / "models")]

from benchmarks.open_loop import Asked, Load, requests_of  # noqa: E402
from benchmarks.served import Served, perceptron_server  # noqa: E402

from dubito.bench.machine import describe_machine  # noqa: E402

CLIENTS, WANTED_PER_S = 64, 100
SETTLING_S, PAUSE_S, WINDOW_S, HEALTHY, CALM = 5.0, 3.0, 0.5, 4, 0.8
RESULT = ROOT / "benchmarks" / "results" / "bench_overload.json"


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as name,
        perceptron_server(Path(name), options.code) as server,
    ):
        result = asyncio.run(_measured(server, options))
    result["machine"] = asdict(describe_machine(torch.device("cpu")))
    print(_table(result))
    if options.json:
        options.json.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))  # nan is null


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each load")
    parser.add_argument("--loads", type=float, nargs="*", default=[2.0, 5.0])
    parser.add_argument("--samples", type=int, help="T, such as 2: then HTTP is what takes time")
    parser.add_argument("--code", type=Path, default=ROOT, help="the checkout that serves")
    parser.add_argument("--json", type=Path, help=f"where figures go, such as {RESULT}")
    return parser.parse_args()


async def _measured(server: Served, options: argparse.Namespace) -> dict[str, object]:
    samples = options.samples
    if samples is None:
        load = Load(server, requests_of(50))
        await load.closed(CLIENTS, 5.0)
        samples = max(2, round(50 * await load.closed(CLIENTS, 5.0) / WANTED_PER_S))
    load = Load(server, requests_of(samples))
    await load.closed(CLIENTS, 2.0)
    before_s, seconds = server.processor_s, min(20.0, options.seconds)
    capacity = await load.closed(CLIENTS, seconds)
    answer_s = (server.processor_s - before_s) / (capacity * seconds)
    await asyncio.sleep(1.0)
    calm, began_s = Asked(), time.monotonic()
    await load.come(CALM * capacity, options.seconds, calm)
    rate = calm.rate(began_s, began_s + options.seconds)
    ill_share = float(np.mean(_ill(calm, calm, began_s)))
    table = [_row(f"{CALM} x", calm, rate / capacity) | {"ill_share": ill_share}]
    for times in options.loads:
        row = await _overloaded(server, load, capacity, calm, times, options.seconds)
        refused_s = row.pop("processor_s") - row["all_answered"] * answer_s
        table.append(row | {"refusal_processor_ms": 1000 * refused_s / max(row["all_refused"], 1)})
    table.append(await _paused(server, load, capacity, calm))
    head = {"capacity_per_s": capacity, "num_samples": samples}
    return {**head, "answer_processor_ms": 1000 * answer_s, "loads": table}


async def _overloaded(
    server: Served, load: Load, capacity: float, calm: Asked, times: float, seconds: float
) -> dict[str, Any]:
    asked, health, memory = Asked(), Asked(), [server.memory_mb]
    began_s, used_s = time.monotonic(), server.processor_s
    probe = asyncio.create_task(_probe(server, health, memory))
    await load.come(times * capacity, SETTLING_S + seconds, asked)
    probe.cancel()
    used_s = server.processor_s - used_s
    counted = asked.after(began_s + SETTLING_S)
    settled_s = began_s + SETTLING_S
    rate = asked.rate(settled_s, settled_s + seconds)
    row = _row(f"{times:g} x", counted, rate / capacity)
    after, ended_s = Asked(), time.monotonic()
    await load.come(CALM * capacity, 10.0, after)
    return row | {
        "live_max_ms": 1000 * max(health.took_s),
        "live_not_200": len(health.status) - health.count(200),
        "memory_mb": [round(memory[0]), round(max(memory)), round(server.memory_mb)],
        "calm_after_s": _calm_after_s(after, calm, ended_s),
        "processor_s": used_s,
        "all_answered": asked.count(200),
        "all_refused": asked.count(429),
    }


async def _probe(server: Served, health: Asked, memory: list[float]) -> None:
    probe = Load(server, [b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n"])
    while True:
        await probe.one(0, health)
        memory.append(server.memory_mb)
        await asyncio.sleep(0.1)


async def _paused(server: Served, load: Load, capacity: float, calm: Asked) -> dict[str, object]:
    asked, began_s = Asked(), time.monotonic()
    came = asyncio.create_task(load.come(0.7 * capacity, 20.0, asked))
    await asyncio.sleep(5.0)
    os.kill(server.pid, signal.SIGSTOP)
    await asyncio.sleep(PAUSE_S)
    os.kill(server.pid, signal.SIGCONT)
    ended_s = time.monotonic()
    await came
    rate = asked.rate(began_s, began_s + 20.0)
    row = _row("0.7 x, a pause of 3 s", asked, rate / capacity)
    return row | {"calm_after_s": _calm_after_s(asked, calm, ended_s)}


def _calm_after_s(asked: Asked, calm: Asked, ended_s: float) -> float:
    """Seconds until two seconds begin, none of whose half seconds is ill; nan where none do.

    At such a load a half second is ill now and then where nothing is wrong (`ill_share` of the calm
    load), so it does not do to look for the last of all.
    """
    ill = _ill(asked, calm, ended_s)
    for place in range(len(ill) - HEALTHY + 1):
        if not any(ill[place : place + HEALTHY]):
            return place * WINDOW_S
    return float("nan")


def _ill(asked: Asked, calm: Asked, began_s: float) -> list[bool]:
    """Which half seconds are ill: more than a twentieth refused, or a median twice the calm one."""
    ill = []
    sent_s = np.array(asked.sent_s) - began_s
    status, took_ms = np.array(asked.status), 1000 * np.array(asked.took_s)
    for begin_s in np.arange(0.0, sent_s.max(), WINDOW_S):
        here = (sent_s >= begin_s) & (sent_s < begin_s + WINDOW_S)
        if here.sum() >= 5:
            is_refused = (status[here] != 200).mean() > 0.05
            ill.append(bool(is_refused or np.median(took_ms[here]) > 2 * calm.ms(50)))
    return ill


def _row(name: str, asked: Asked, goodput: float) -> dict[str, object]:
    return {
        "load": name,
        "requests": len(asked.status),
        "goodput": goodput,
        "p50_ms": asked.ms(50),
        "p99_ms": asked.ms(99),
        "refused": asked.count(429),
        "refusal_p50_ms": asked.ms(50, answered=False),
        "refusal_p99_ms": asked.ms(99, answered=False),
        "neither": len(asked.status) - asked.count(200) - asked.count(429),
        "sent_late_p99_ms": 1000 * float(np.percentile(asked.late_s, 99)),
    }


def _table(result: dict[str, object]) -> str:
    rows = result["loads"]
    assert isinstance(rows, list)
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [
        f"capacity {result['capacity_per_s']:.0f} / s at T = {result['num_samples']}, "
        f"{result['answer_processor_ms']:.2f} ms of the processor each",
        "",
    ]
    lines += [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    for row in rows:
        cells = (row.get(name, "") for name in names)
        shown = (f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells)
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
