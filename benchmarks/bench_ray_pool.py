"""A large stored pool searched by workers of Ray: the choice of one machine, also where one dies.

    python benchmarks/bench_ray_pool.py [--rows 2000000] [--json FILE]     # needs 'dubito[ray]'

The pool and the network of bench_pool.py, BALD, k = 1000, T = 16, a thread for each worker. Three
runs of `dubito select`: here alone, by the workers of a cluster of this machine, and by them with
another seed while the process of a worker is killed once a third is done. Times hold the start of
Python and of the cluster. The third is held against a run of its seed here alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "service"), str(ROOT / "models")]

from benchmarks.bench_pool import _export, _write_pool  # noqa: E402

from dubito.bench.machine import describe_machine  # noqa: E402
from dubito.cli.console import kept  # noqa: E402

COMMAND = [sys.executable, "-m", "dubito"]


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {
            "PYTHONPATH": os.pathsep.join(sys.path[:3]),
            "OMP_NUM_THREADS": "1",
            "DUBITO_THREADS": "1",
            "DUBITO_DATA_DIR": str(folder / "data"),
            "DUBITO_NUM_SAMPLES": "16",
            "DUBITO_JOB_CHECKPOINT_MS": "500",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        _export(folder / "mlp.dubito")
        _write_pool(folder / "pool.npy", options.rows)
        _run("register", str(folder / "mlp.dubito"), "--model", "mlp")
        _run("pool", "add", str(folder / "pool.npy"), "--name", "pool")
        result = _measured(options)
    result["machine"] = asdict(describe_machine(torch.device("cpu"))) | {"load": os.getloadavg()}
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--k", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _run(*words: str) -> str:
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _measured(options: argparse.Namespace) -> dict[str, object]:
    asked = ["select", "mlp", "--pool", "pool", "--strategy", "bald", "-k", str(options.k)]
    first, second = [*asked, "--seed", "1", "--json"], [*asked, "--seed", "2", "--json"]
    alone, alone_s = _timed(first)
    on_ray, on_ray_s = _timed([*first, "--ray"])
    other, _ = _timed(second)
    killed, killed_s, done = _killed([*second, "--ray"], options.rows)
    return {
        "rows": options.rows,
        "k": options.k,
        "alone_s": alone_s,
        "on_ray_s": on_ray_s,
        "killed_s": killed_s,
        "killed_at_row": done,
        "same": on_ray == alone,
        "same_after_a_kill": killed == other,
    }


def _timed(words: list[str]) -> tuple[object, float]:
    began_s = time.monotonic()
    return json.loads(_run(*words)), time.monotonic() - began_s


def _killed(words: list[str], rows: int) -> tuple[object, float, int]:
    began_s, done = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([*COMMAND, *words], stdout=out, stderr=subprocess.DEVNULL)
        while done < rows / 3 and process.poll() is None:
            time.sleep(0.2)
            with kept() as known:
                done = known.jobs.all()[0].done
        workers = _workers()
        assert workers, "no worker runs: take more rows"
        os.kill(workers[0], signal.SIGKILL)
        assert process.wait() == 0
        out.seek(0)
        return json.loads(out.read()), time.monotonic() - began_s, done


def _workers() -> list[int]:
    """Process ids of the workers, as they name themselves."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(b"ray::MapWorker(MapBatches(SearchWorker))"):
                found.append(int(path.parent.name))
    return found


if __name__ == "__main__":
    main()
