"""A server under a steady load for minutes: whether its memory grows, and whether all is answered.

    python benchmarks/bench_soak.py [--minutes 10] [--load 0.7] [--code FOLDER] [--json FILE]

One server in a process of its own, one perceptron (784-1024-1024-10, one row a request, one
thread). Every request has its own T, one of many, so that plans, masks and caches come and go.
Requests come as a Poisson process that waits for nobody, at a share of what clients that wait are
answered. Once a second the resident memory of the process is read.

* slope: least squares over the time after the first quarter, in which caches fill; with its
  standard error, by the residuals of means over ten seconds.
* answered: the share of requests with an answer; what is refused has a 429.

It ends with 1 where the slope is 1 MB a minute or more, or anything but 200 and 429 was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import orjson
import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "service"), str(ROOT / "models")]

from benchmarks.open_loop import Asked, Load, requests_of  # noqa: E402
from benchmarks.served import Served, perceptron_server  # noqa: E402

from dubito.bench.machine import describe_machine  # noqa: E402

SAMPLES = (2, 5, 10, 16, 20, 33, 50, 64, 100, 128, 141, 200)
CLIENTS, TURNS, MEAN_S, MOST_MB_PER_MIN = 16, 1000, 10, 1.0
RESULT = ROOT / "benchmarks" / "results" / "bench_soak.json"


def main() -> int:
    options = _options()
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as name,
        perceptron_server(Path(name), options.code) as server,
    ):
        result = asyncio.run(_soaked(server, options))
    result["machine"] = asdict(describe_machine(torch.device("cpu")))
    for name in ("capacity_per_s", "requests", "p50_ms", "p99_ms", "memory_mb", "slope_mb_per_min"):
        print(f"{name}: {result[name]}")
    if options.json:
        options.json.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    slope, _ = result["slope_mb_per_min"]
    return int(slope >= MOST_MB_PER_MIN or not result["requests"].keys() <= {"200", "429"})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--load", type=float, default=0.7, help="share of the capacity")
    parser.add_argument("--code", type=Path, default=ROOT, help="the checkout that serves")
    parser.add_argument("--json", type=Path, help=f"where figures go, such as {RESULT}")
    return parser.parse_args()


async def _soaked(server: Served, options: argparse.Namespace) -> dict[str, object]:
    load = Load(server, _mixed())
    await load.closed(CLIENTS, 5.0)
    capacity = await load.closed(CLIENTS, 10.0)
    asked, memory = Asked(), [(time.monotonic(), server.memory_mb)]
    watch = asyncio.create_task(_watch(server, memory))
    await load.come(options.load * capacity, 60.0 * options.minutes, asked)
    watch.cancel()
    at_s, used_mb = np.array(memory).T
    return {
        "minutes": options.minutes,
        "load": options.load,
        "num_samples": SAMPLES,
        "capacity_per_s": capacity,
        "requests": {str(status): count for status, count in Counter(asked.status).items()},
        "p50_ms": asked.ms(50),
        "p99_ms": asked.ms(99),
        "memory_mb": used_mb.round(1).tolist()[:: max(1, len(used_mb) // 60)],
        "slope_mb_per_min": _slope((at_s - at_s[0]) / 60, used_mb),
    }


def _mixed() -> list[bytes]:
    """Requests whose T is drawn anew for each, always the same ones."""
    by_samples = [requests_of(samples) for samples in SAMPLES]
    drawn = np.random.default_rng(0).integers(0, len(SAMPLES), TURNS)
    return [by_samples[kind][place % len(by_samples[kind])] for place, kind in enumerate(drawn)]


async def _watch(server: Served, memory: list[tuple[float, float]]) -> None:
    while True:
        await asyncio.sleep(1.0)
        memory.append((time.monotonic(), server.memory_mb))


def _slope(at_min: np.ndarray, used_mb: np.ndarray) -> tuple[float, float]:
    """Megabytes a minute after the first quarter, and their standard error; nan of too few."""
    late = at_min >= at_min[-1] / 4
    count = int(late.sum()) // MEAN_S * MEAN_S
    if count < 3 * MEAN_S:
        return float("nan"), float("nan")
    x, y = (of[late][-count:].reshape(-1, MEAN_S).mean(axis=1) for of in (at_min, used_mb))
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    residual = y - y.mean() - slope * centred
    error = float(np.sqrt(residual @ residual / (len(x) - 2) / (centred @ centred)))
    return round(slope, 3), round(error, 3)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
