"""Replicas of a Ray cluster that come with the work and leave without a failed request.

    python benchmarks/bench_ray_scaling.py [--json FILE]      # needs 'dubito[ray]'; three minutes

Two nodes of `ray.cluster_utils` on this machine, one to two replicas of one thread, the perceptron
of bench_ray.py, a line of .3 s at most.

* Burst: 12 clients send 64 rows at T = 200, one request after the other, until two replicas answer:
  what does not fit the line is refused with 429.
* Rest: one client sends the same, and pauses four times as long as each answer took, until one
  replica is left: the other ends what it has.

Every reply is 200 or 429 in the burst, and 200 at rest.
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

BURST, WITHIN_S = 12, 240.0
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
            result: dict[str, object] = {"burst": _phase(service.url, BURST, 2)}
            result["rest"] = _phase(service.url, 1, 1)
        serve.shutdown()
    result["machine"] = asdict(describe_machine(torch.device("cpu"))) | {"load": os.getloadavg()}
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def _phase(url: str, clients: int, replicas: int) -> dict[str, object]:
    """Ask until so many replicas run, and a little longer."""
    with _asking(url, clients) as statuses:
        seconds = _until(lambda: len(_replicas()) == replicas)
        time.sleep(5.0)
    told = {"replicas": len(_replicas()), "after_s": seconds, "statuses": dict(statuses)}
    print(told, flush=True)
    return told


def _until(condition: Callable[[], bool]) -> float:
    began_s = time.monotonic()
    while not condition():
        if time.monotonic() > began_s + WITHIN_S:
            return float("nan")
        time.sleep(0.2)
    return time.monotonic() - began_s


@contextmanager
def _asking(url: str, clients: int) -> Iterator[Counter[int]]:
    """Statuses of clients that ask for the time of the block; 0: the connection broke."""
    statuses, ended = Counter[int](), threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=120) as client:
            while not ended.is_set():
                began_s = time.monotonic()
                try:
                    statuses[client.post(PREDICT, json=BODY).status_code] += 1
                except httpx.HTTPError:
                    statuses[0] += 1
                ended.wait(4 * (time.monotonic() - began_s) if clients == 1 else 0.0)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        ended.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
