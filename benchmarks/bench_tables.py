"""Rows of a table through a job: the rate of CSV to Parquet against the same rows as `.npy`.

    python benchmarks/bench_tables.py [--rows 100000] [--repeats 3] [--json FILE]

A server process gets two bundles of one perceptron 64-128-128-10, of which one declares a table
of 64 columns of numbers. The rows are stored as a pool, a CSV for the one and a `.npy` for the
other; measured is the time from asking for the job to its result being fetched, `.parquet` for
both, and apart from it the time in which the pool is taken. The pairs take turns; medians are
shown.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import asdict
from pathlib import Path

import httpx
import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "service"), str(ROOT / "models")]

from tests.http import upload  # noqa: E402
from tests.processes import serving  # noqa: E402

from dubito.bench.machine import describe_machine  # noqa: E402
from dubito_nn import export, preprocess  # noqa: E402

WIDTH = 64
LEAST = 0.8  # of the rate of `.npy`


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = np.random.default_rng(0).normal(size=(options.rows, WIDTH)).astype(np.float32)
    files = {"npy": (_npy(rows), "application/x-npy"), "csv": (_csv(rows), "text/csv")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in files:
            _export(folder / f"{kind}.dubito", is_table=kind == "csv")
        with (
            serving(folder / "data", {"DUBITO_NUM_SAMPLES": "16"}) as server,
            httpx.Client(base_url=server.url, timeout=600) as client,
        ):
            taken = {}
            for kind, (content, media) in files.items():
                upload(client, kind, folder / f"{kind}.dubito").raise_for_status()
                start = time.perf_counter()
                headers = {"Content-Type": media}
                reply = client.post(f"/v1/pools?name={kind}", content=content, headers=headers)
                reply.raise_for_status()
                taken[kind] = time.perf_counter() - start
            times: dict[str, list[float]] = {kind: [] for kind in files}
            for turn in range(options.repeats + 1):
                for kind in files:
                    seconds = _job(client, kind, seed=turn)
                    times[kind] += [seconds] if turn else []  # the first makes the plan
    rates = {kind: options.rows / statistics.median(one) for kind, one in times.items()}
    result = {
        "rows": options.rows,
        "seconds_to_take_the_pool": taken,
        "rows_per_s": rates,
        "share": rates["csv"] / rates["npy"],
        "machine": asdict(describe_machine(torch.device("cpu"))),
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["share"] >= LEAST else 1


def _job(client: httpx.Client, kind: str, seed: int) -> float:
    """Seconds of a prediction of the pool, its result fetched."""
    asked = {"pool": kind, "format": "parquet", "outputs": ["mean", "mutual_information"]}
    start = time.perf_counter()
    reply = client.post(f"/v1/models/{kind}/predict", json={**asked, "seed": seed})
    reply.raise_for_status()
    job = reply.json()["job"]
    with client.stream("GET", f"/v1/jobs/{job}/events") as events:
        assert "succeeded" in "".join(events.iter_text())
    client.get(f"/v1/jobs/{job}/result").raise_for_status()
    return time.perf_counter() - start


def _export(path: Path, *, is_table: bool) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Linear(WIDTH, 128), nn.ReLU(), nn.Dropout(0.3)),
        *(nn.Linear(128, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10)),
    )
    columns = tuple(preprocess.Number(f"x{index}") for index in range(WIDTH))
    declared = preprocess.TableInput(columns) if is_table else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = torch.randn(8, WIDTH)
        options = {"task": "classification", "output": "logits", "preprocess": declared}
        export(network, example, path, **options)  # type: ignore[arg-type]


def _npy(rows: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()


def _csv(rows: np.ndarray) -> bytes:
    file = io.StringIO()
    header = ",".join(f"x{index}" for index in range(WIDTH))
    np.savetxt(file, rows, "%.6g", ",", header=header, comments="")
    return file.getvalue().encode()


if __name__ == "__main__":
    sys.exit(main())
