"""A server of Dubito with one perceptron, in a process of its own whose memory can be read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import torch
from benchmarks.networks import perceptron

from dubito_nn import export

FEATURES = 784


@dataclass(frozen=True)
class Served:
    """A server: where it answers, and its process."""

    url: str
    pid: int

    @property
    def memory_mb(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    @property
    def processor_s(self) -> float:
        """Processor time so far, of all threads."""
        stat = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def perceptron_server(
    folder: Path, code: Path, settings: Mapping[str, str] | None = None
) -> Iterator[Served]:
    bundle = _bundle(folder / "mlp.dubito")
    process = subprocess.Popen(
        [sys.executable, "-m", "dubito", "serve", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(code / part) for part in ("service", "models")),
            "OMP_NUM_THREADS": "1",
            "DUBITO_DATA_DIR": str(folder / "data"),
            **(settings or {}),
        },
    )
    try:
        assert process.stderr is not None
        found = None
        while found is None:
            found = re.search(r"http://[\d.]+:\d+", process.stderr.readline())
        threading.Thread(target=process.stderr.read, daemon=True).start()
        with httpx.Client(base_url=found[0], timeout=600) as client:
            octets = {"Content-Type": "application/octet-stream"}
            sent = client.post("/v1/models/mlp/versions", content=bundle, headers=octets)
            sent.raise_for_status()
        yield Served(found[0], process.pid)
    finally:
        process.kill()
        process.wait()


def _bundle(path: Path) -> bytes:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = torch.randn(3, FEATURES)
        export(perceptron(), rows, path, task="classification", output="logits")
    return path.read_bytes()
