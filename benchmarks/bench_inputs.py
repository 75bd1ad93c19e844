"""Inputs as people have them: cores that decoding uses, what waits meanwhile, hostile files.

    python benchmarks/bench_inputs.py [--json FILE]

A server process gets a small network of images of 224 x 224. A request holds 64 JPEGs of 640 x 480
in base64; processor time by wall time says how many cores were in use, in the whole request and
while the files are decoded alone, and `/health/live` is asked every 5 ms meanwhile. Each hostile
file then comes as base64 and in an archive: its status, time and the peak of the server's memory
beyond that before it, after which a good one is asked; so do hostile tables. It ends with 1 where
one is not refused, or takes 2 s or 200 MB, or where a good request fails.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import statistics
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pyarrow import parquet
from torch import nn

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "service"), str(ROOT / "models")]

from tests import tables  # noqa: E402
from tests.http import upload  # noqa: E402
from tests.pictures import TAR, ZIP, archive, base64_of, encoded  # noqa: E402
from tests.processes import serving  # noqa: E402
from tests.test_images import HOSTILE, entries, linked  # noqa: E402

from dubito.bench.machine import describe_machine  # noqa: E402
from dubito.preprocess.images.kind import ImageKind  # noqa: E402
from dubito_nn import export, preprocess  # noqa: E402

LIMIT_S, LIMIT_BYTES = 2.0, 200 * 10**6
COUNT, SIDE = 64, 224
ASK = "/v1/models/photos/predict"
SICK = "/v1/models/sick/predict"
PHOTO = "image/png", encoded(Image.new("RGB", (300, 300)), "PNG")
PART = preprocess.ImageInput(shorter_side=256, crop=(SIDE, SIDE))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _export(folder / "photos.dubito")
        with (
            serving(folder / "data", {"DUBITO_NUM_SAMPLES": "2"}) as server,
            httpx.Client(base_url=server.url, timeout=120) as client,
        ):
            upload(client, "photos", folder / "photos.dubito").raise_for_status()
            pid = server.process.pid
            speed = _decoding(options.repeats) | _speed(client, pid, options.repeats)
            tables.exported(folder / "sick.dubito")
            upload(client, "sick", folder / "sick.dubito").raise_for_status()
            hostile = _all(client, pid) | _tables(client, pid)
            result = {"speed": speed, "hostile": hostile}
    result["machine"] = asdict(describe_machine(torch.device("cpu")))
    bad = [
        name
        for name, one in result["hostile"].items()
        if not 400 <= one["status"] < 500
        or one["seconds"] >= LIMIT_S
        or one["bytes"] >= LIMIT_BYTES
        or one["next"] != 200
    ]
    print(json.dumps(result["speed"], indent=1))
    for key in ("seconds", "bytes"):
        worst = sorted(result["hostile"], key=lambda name: -result["hostile"][name][key])[:4]
        print(f"largest {key}:", {name: result["hostile"][name][key] for name in worst})
    print(f"{len(result['hostile'])} hostile bodies, not refused in time and memory: {bad}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if bad else 0


def _export(path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 4, 16, 16), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(784, 2))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(
            network,
            torch.randn(2, 3, SIDE, SIDE),
            path,
            task="classification",
            output="logits",
            classes=["a", "b"],
            preprocess=PART,
        )


def _files() -> list[bytes]:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (COUNT, 60, 80, 3), dtype=np.uint8)
    return [encoded(Image.fromarray(one).resize((640, 480)), "JPEG", quality=90) for one in coarse]


def _decoding(repeats: int) -> dict[str, float]:
    """Files to numbers alone, in this process, as a request does it."""
    part, files = replace(PART, input="x"), _files()
    times, cores = [], []
    for _ in range(repeats):
        used, start = time.process_time(), time.perf_counter()
        ImageKind().make(part, {"x": files}, {}, [])
        times.append(time.perf_counter() - start)
        cores.append((time.process_time() - used) / times[-1])
    return {
        "decoding_seconds_median": statistics.median(times),
        "decoding_cores_median": statistics.median(cores),
    }


def _speed(client: httpx.Client, pid: int, repeats: int) -> dict[str, float]:
    body = json.dumps({"inputs": list(map(base64_of, _files())), "outputs": ["label"]})
    headers = {"Content-Type": "application/json"}
    client.post(ASK, content=body, headers=headers).raise_for_status()
    waits: list[float] = []
    before: list[float] = []
    is_over = threading.Event()

    def ask(into: list[float], most: float) -> None:
        with httpx.Client(base_url=client.base_url) as other:
            while not is_over.is_set() and len(into) < most:
                start = time.perf_counter()
                other.get("/health/live").raise_for_status()
                into.append(1000 * (time.perf_counter() - start))
                time.sleep(0.005)

    ask(before, 300)
    asking = threading.Thread(target=ask, args=(waits, float("inf")))
    asking.start()
    times, cores = [], []
    for _ in range(repeats):
        used, start = _processor_s(pid), time.perf_counter()
        client.post(ASK, content=body, headers=headers).raise_for_status()
        times.append(time.perf_counter() - start)
        cores.append((_processor_s(pid) - used) / times[-1])
    is_over.set()
    asking.join()
    return {
        "body_bytes": len(body),
        "seconds_median": statistics.median(times),
        "cores_median": statistics.median(cores),
        "health_asked": len(waits),
        **{f"health_ms_{name}": value for name, value in _spread(waits).items()},
        **{f"health_alone_ms_{name}": value for name, value in _spread(before).items()},
    }


def _spread(waits: list[float]) -> dict[str, float]:
    median, most = statistics.median(waits), statistics.quantiles(waits, n=100)[-1]
    return {"median": median, "99_percent": most, "largest": max(waits)}


def _all(client: httpx.Client, pid: int) -> dict[str, dict[str, float]]:
    """Every hostile file in its forms, and archives."""
    found = {}
    for name, (_, _, content) in HOSTILE.items():
        if name == "a huge ratio":  # 30,000 x 1 becomes 7,680,000 x 256
            name = "a huge ratio, to 256 pixels"
        row = json.dumps({"inputs": [base64_of(content)]}).encode()
        found[f"{name}, base64"] = _asked(client, pid, "application/json", row)
        packed = archive({"a.png": content}, ZIP)
        found[f"{name}, archive"] = _asked(client, pid, ZIP, packed)
    png = encoded(Image.new("L", (8, 8)), "PNG")
    for name, kind, body in (
        ("a name that leads out", ZIP, archive({"../a.png": png}, ZIP)),
        ("links", ZIP, linked(ZIP)),
        ("links", TAR, linked(TAR)),
        ("a nested archive", ZIP, archive({"a.zip": archive({"a.png": png}, ZIP)}, ZIP)),
        ("10^6 entries", ZIP, entries(10**6)),
        (
            "60,000 files",
            TAR,
            archive(dict.fromkeys(map("{}.png".format, range(60_000)), b""), TAR),
        ),
        ("300 bombs", ZIP, archive({f"{n}.png": HOSTILE["a bomb"][2] for n in range(300)}, ZIP)),
    ):
        found[f"{name}, {kind}"] = _asked(client, pid, kind, body)
    return found


def _tables(client: httpx.Client, pid: int) -> dict[str, dict[str, float]]:
    """Hostile tables for a model that declares one."""
    lines = tables.written(tables.frame(5), tables.CSV)
    zeros, packed = io.BytesIO(), pa.table({"age": pa.array(np.zeros(50_000_000))})
    parquet.write_table(packed, zeros, compression="zstd")
    damaged = tables.written(tables.frame(5), tables.PARQUET).replace(b"\x0c", b"\0")
    wide = b",".join([b"a"] * 10**5) + b"\n" + b",".join([b"1"] * 10**5)
    cases = {
        "unequal rows": (tables.CSV, lines + b"p9,1,2\n"),
        "a quote that is not closed": (tables.CSV, lines + b'"' + b"\n" * 3 * 10**7),
        "Latin-1": (tables.CSV, lines.replace(b"p1", b"\xe9")),
        "10^5 columns": (tables.CSV, wide),
        "a formula for a number": (tables.CSV, re.sub(rb"(p0),[^,]*", rb'\1,"=1+2"', lines)),
        "10^6 lines": (tables.NDJSON, b"{}\n" * 10**6),
        "5 x 10^7 zeros of zstd": (tables.PARQUET, zeros.getvalue()),
        "a schema that lies": (tables.PARQUET, damaged),
    }
    good = tables.CSV, lines
    return {
        f"{name}, {kind}": _asked(client, pid, kind, body, SICK, good)
        for name, (kind, body) in cases.items()
    }


def _asked(
    client: httpx.Client,
    pid: int,
    kind: str,
    body: bytes,
    path: str = ASK,
    good: tuple[str, bytes] = PHOTO,
) -> dict[str, float]:
    before = _resident(pid, "VmRSS")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # forgets the peak so far
    start = time.perf_counter()
    reply = client.post(path, content=body, headers={"Content-Type": kind})
    seconds = time.perf_counter() - start
    taken = _resident(pid, "VmHWM") - before
    after = client.post(path, content=good[1], headers={"Content-Type": good[0]}).status_code
    return {"status": reply.status_code, "seconds": seconds, "bytes": taken, "next": after}


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int, field: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]


if __name__ == "__main__":
    sys.exit(main())
