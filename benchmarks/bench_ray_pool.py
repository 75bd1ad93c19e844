"""A large stored pool searched by workers of Ray: the choice of one machine, also where parts die.

    python benchmarks/bench_ray_pool.py [--rows 2000000] [--json FILE]     # needs 'dubito[ray]'

The pool and the network of bench_pool.py, BALD, k = 1000, T = 16, a thread for each worker. Runs of
`dubito select`: here alone, by the workers of a cluster of this machine, by them while the process
of a worker is killed once a third is done, and by them twice: the command is killed once a third is
done, and started again. Times hold the start of Python and of the cluster; memory is the largest
resident set of the command and of a worker, of which what Ray shares with others is a part.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
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
LOOK_S = 0.2


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
            "RAY_ADDRESS": "local",  # a cluster that ends with the command
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
    words = ["select", "mlp", "--pool", "pool", "--strategy", "bald", "-k", str(options.k)]
    words += ["--seed", "1", "--json"]
    alone = Run(words)
    alone.follow()
    on_ray = Run([*words, "--ray"])
    on_ray.follow()
    less = Run([*words, "--ray"])
    less.follow(options.rows // 3, _kill_a_worker)
    first = Run([*words, "--ray"])
    first.follow(options.rows // 3, first.process.kill)
    again = Run([*words, "--ray"])
    again.follow()
    expected = alone.reply()
    runs = {"alone": alone, "on_ray": on_ray, "worker_killed": less, "command_again": again}
    return {
        "rows": options.rows,
        "k": options.k,
        "command_killed_at_row": first.struck_at,
        "worker_killed_at_row": less.struck_at,
        "command_went_on": "goes on" in again.said,
        **{name: run.told(expected) for name, run in runs.items()},
    }


class Run:
    """A command that runs, and what it and the workers take.

    Args:
        words: of the command.
    """

    def __init__(self, words: list[str]) -> None:
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115, which ends with the run
        self._err = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._began_s = time.monotonic()
        self.process = subprocess.Popen([*COMMAND, *words], stdout=self._out, stderr=self._err)
        self.seconds = 0.0
        self.struck_at: int | None = None
        self.said = ""
        self._largest = {"command": 0, "worker": 0}

    def follow(self, rows: int = 0, strike: Callable[[], object] | None = None) -> None:
        """Wait for the end; once so many rows are done, strike."""
        while self.process.poll() is None:
            time.sleep(LOOK_S)
            self._look("command", [self.process.pid])
            self._look("worker", _workers())
            if strike is not None and self.struck_at is None:
                with kept() as known:
                    newest = known.jobs.all()[0]
                if newest.state == "running" and newest.done >= rows:
                    self.struck_at = newest.done
                    strike()
        self.seconds = time.monotonic() - self._began_s
        print(f"{self.seconds:.0f} s, {self._largest} KiB, struck at {self.struck_at}", flush=True)
        self._err.seek(0)
        self.said = self._err.read()
        assert strike is None or self.struck_at is not None, "nothing was struck: take more rows"

    def reply(self) -> object:
        """What the command printed."""
        assert self.process.returncode == 0, self.said
        self._out.seek(0)
        return json.loads(self._out.read())

    def told(self, expected: object) -> dict[str, object]:
        """The result."""
        return {
            "seconds": self.seconds,
            "same": self.reply() == expected,
            **{f"{name}_mib": size // 1024 for name, size in self._largest.items()},
        }

    def _look(self, name: str, pids: list[int]) -> None:
        """The largest resident set so far, in KiB."""
        for pid in pids:
            with suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                found = re.search(r"VmHWM:\s+(\d+)", status)
                self._largest[name] = max(self._largest[name], int(found[1]) if found else 0)


def _kill_a_worker() -> None:
    workers = _workers()
    assert workers, "no worker runs: take more rows"
    os.kill(workers[0], signal.SIGKILL)


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
