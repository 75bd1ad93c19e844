"""How long every hostile bundle of the corpus takes to be refused over HTTP, and how much memory.

    python benchmarks/bench_hostile.py [pattern]

Every case runs in a process of its own with a fresh server, which has taken one good bundle before.
Time is that of the whole request; memory the peak of the resident set beyond the one before it
(server and client share the process; the body lies there already). It ends with 1 where a case is
not refused with a 422, takes 2 s or more, or 200 MB or more.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import httpx
import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "service"), str(ROOT / "models")]

from tests.conftest import Server  # noqa: E402
from tests.corpus.cases import Case  # noqa: E402
from tests.corpus.parts import good_parts  # noqa: E402
from tests.corpus.table import CASES  # noqa: E402

import dubito.api  # noqa: E402, F401 - read once, not in every process
from dubito.engine.proving.sizes import warm_up  # noqa: E402
from dubito.settings import Settings  # noqa: E402

LIMIT_S, LIMIT_BYTES = 2.0, 200 * 10**6
OCTETS = {"Content-Type": "application/octet-stream"}


def main() -> int:
    torch.set_num_threads(1)
    warm_up()
    pattern = sys.argv[1] if len(sys.argv) > 1 else ""
    results = {
        name: _in_a_process(case) for name, case in CASES.items() if re.search(pattern, name)
    }
    for key, unit in (("seconds", 1), ("bytes", 10**6)):
        print(f"largest {key}{' / 10^6' if unit > 1 else ''}:")
        for name in sorted(results, key=lambda name: -results[name][key])[:8]:
            print(f"  {results[name][key] / unit:9.3f}  {name}")
    bad = [
        name
        for name, result in results.items()
        if result["status"] != 422 or result["seconds"] >= LIMIT_S or result["bytes"] >= LIMIT_BYTES
    ]
    print(f"{len(results)} bundles, {len(bad)} not refused within {LIMIT_S} s and 200 MB: {bad}")
    if not pattern:
        path = ROOT / "benchmarks" / "results" / "bench_hostile.json"
        path.write_text(json.dumps(results, indent=1) + "\n")
    return 1 if bad else 0


def _in_a_process(case: Case) -> dict[str, float]:
    """Status, seconds and bytes of one case; status 0 where its process died."""
    reading, writing = os.pipe()
    if not os.fork():
        os.close(reading)
        with os.fdopen(writing, "w") as pipe:
            json.dump(_measured(case), pipe)
            pipe.flush()
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.wait()
    return json.loads(text) if text else {"status": 0, "seconds": 1e9, "bytes": 1e12}


def _measured(case: Case) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "canary"
        server = Server(Settings(data_dir=Path(folder) / "data"))
        server.start()
        url = f"{server.url}/v1/models/good/versions"
        with httpx.Client(timeout=120) as client:
            good, hostile = good_parts(canary).sealed(), case.build(canary)
            client.post(url, content=good, headers=OCTETS).raise_for_status()
            before = _resident("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
            start = time.perf_counter()
            reply = client.post(url, content=hostile, headers=OCTETS)
            seconds = time.perf_counter() - start
            taken = _resident("VmHWM") - before
        server.stop()
        assert not canary.exists()
    return {"status": reply.status_code, "seconds": seconds, "bytes": taken}


def _resident(field: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]


if __name__ == "__main__":
    sys.exit(main())
