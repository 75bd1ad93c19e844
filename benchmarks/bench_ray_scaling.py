"""Replicas of a Ray cluster that come with the work and leave without a failed request.

    python benchmarks/bench_ray_scaling.py [--json FILE]      # needs 'dubito[ray]'; three minutes

Two nodes of `ray.cluster_utils` on this machine, one to two replicas of one thread, the perceptron
of bench_ray.py, a line of .3 s at most.

* Burst: 12 clients send 64 rows at T = 200, one request after the other, until two replicas answer:
  what does not fit the line is refused with 429, and comes again after its `Retry-After`.
* Rest: one client sends the same, and pauses four times as long as each answer took; four more
  send a row whose body takes 8 s, so that replicas have requests all the time: until one is left.

Every reply is 200 or 429 in the burst, and 200 at rest, where the replica that leaves ends what it
has. A status of 0 is a connection that broke.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "service"), str(ROOT / "models")]

from benchmarks.bench_ray import (  # noqa: E402
    PREDICT,
    _cluster,
    _replicas,
    _upload,
    settings_in,
)
from ray import serve  # noqa: E402

from dubito.bench.machine import describe_machine  # noqa: E402
from dubito.cluster.deploying import deployed  # noqa: E402

WITHIN_S, LINGER_S = 240.0, 8
Reply = tuple[int, str]
"""A status, and after how many seconds to come again."""

Asker = Callable[[httpx.Client, threading.Event], Reply]
BODY = {
    "inputs": np.random.default_rng(0).normal(size=(64, 784)).round(3).tolist(),
    "num_samples": 200,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, _cluster() as cluster:
        settings = settings_in(Path(name), max_queue_ms=300)
        with deployed(settings, cluster.address) as service:
            _upload(service.url, Path(name))
            result: dict[str, object] = {"burst": _phase(service.url, 12 * [_burst], 2)}
            result["rest"] = _phase(service.url, [_rest, *4 * [_linger]], 1)
        serve.shutdown()
    result["machine"] = asdict(describe_machine(torch.device("cpu"))) | {"load": os.getloadavg()}
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def _phase(url: str, askers: list[Asker], replicas: int) -> dict[str, object]:
    """Ask until so many replicas run, and a little longer."""
    with _asking(url, askers) as replies:
        seconds = _until(lambda: len(_replicas()) == replicas)
        time.sleep(5.0)
    told = {
        "replicas": len(_replicas()),
        "after_s": seconds,
        "statuses": dict(Counter(status for status, _ in replies)),
        "retry_after": sorted({after for status, after in replies if status == 429}),
    }
    print(told, flush=True)
    return told


def _until(condition: Callable[[], bool]) -> float:
    began_s = time.monotonic()
    while not condition():
        if time.monotonic() > began_s + WITHIN_S:
            return float("nan")
        time.sleep(0.2)
    return time.monotonic() - began_s


def _burst(client: httpx.Client, ended: threading.Event) -> Reply:
    """Ask; where the line is full, come again when the server says."""
    reply = _asked(client, json=BODY)
    if reply[0] == 429:
        ended.wait(float(reply[1]))
    return reply


def _rest(client: httpx.Client, ended: threading.Event) -> Reply:
    """Ask, and pause four times as long as the answer took."""
    began_s = time.monotonic()
    reply = _asked(client, json=BODY)
    ended.wait(4 * (time.monotonic() - began_s))
    return reply


def _linger(client: httpx.Client, ended: threading.Event) -> Reply:
    """Ask by a body that comes in pieces: a replica has the request meanwhile."""

    def pieces() -> Iterator[bytes]:
        octets = json.dumps({"inputs": BODY["inputs"][:1]}).encode()
        step = -(-len(octets) // LINGER_S)
        for start in range(0, len(octets), step):
            yield octets[start : start + step]
            time.sleep(1.0)

    return _asked(client, content=pieces(), headers={"Content-Type": "application/json"})


def _asked(client: httpx.Client, **words: Any) -> Reply:
    try:
        reply = client.post(PREDICT, **words)
    except httpx.HTTPError:
        return 0, ""
    return reply.status_code, reply.headers.get("Retry-After", "")


@contextmanager
def _asking(url: str, askers: list[Asker]) -> Iterator[list[Reply]]:
    """What clients get that ask for the time of the block."""
    replies: list[Reply] = []
    ended = threading.Event()

    def ask(asker: Asker) -> None:
        with httpx.Client(base_url=url, timeout=120) as client:
            while not ended.is_set():
                replies.append(asker(client, ended))

    threads = [threading.Thread(target=ask, args=(asker,)) for asker in askers]
    for thread in threads:
        thread.start()
    try:
        yield replies
    finally:
        ended.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
