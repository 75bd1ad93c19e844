"""Servers in processes of their own, as a person starts them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class ServerProcess:
    """`dubito serve` on a free port; `url` is where it answers."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dubito", "serve", "--port", "0"],
            stderr=subprocess.PIPE,
            text=True,
            env=environment(data_dir, settings),
        )
        assert self.process.stderr is not None
        first = self.process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", first)
        self.lines = [first]
        self._drain = threading.Thread(target=self._read)
        self._drain.start()
        if found is None:
            self.kill()
        assert found is not None, "".join(self.lines)
        self.url = found[0]

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.process.kill()
        self.process.wait()
        self._drain.join()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(self.process.stderr)


def environment(data_dir: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """What a process of Dubito reads."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "OMP_NUM_THREADS": "1",
        "DUBITO_DATA_DIR": str(data_dir),
        "DUBITO_NUM_SAMPLES": "16",
        **settings,
    }


@contextmanager
def serving(data_dir: Path, settings: Mapping[str, str]) -> Iterator[ServerProcess]:
    """A server for the time of the block."""
    server = ServerProcess(data_dir, settings)
    try:
        yield server
    finally:
        server.kill()
