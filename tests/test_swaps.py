"""Versions come and go under load: no failed or mixed reply, and the memory comes back."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import torch
from torch import nn

from dubito.settings import Settings
from dubito_nn import export

from .conftest import Bundles, Server
from .http import agree, upload
from .processes import serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MODEL = "/v1/models/animals"
ALIASES = ("default", "best")
NUM_PREDICTIONS = 600  # of each alias
NUM_MOVES = 10  # of each alias
NUM_LOADS = 20
PATIENT = {"X-Request-Timeout-Ms": "300000"}  # of a server beside other work
VERSIONS = (1, 2, 3)
BODIES = [{"inputs": [[0.1 * place, 0.2, -0.3, 0.4]]} for place in range(10)]


class Progress:
    """How many predictions of an alias are done; a mover waits for a number of them."""

    def __init__(self) -> None:
        self._done = 0
        self._is_over = False
        self._changed = threading.Condition()

    @contextmanager
    def going(self) -> Iterator[None]:
        """One that asks; where it fails nobody waits for the others any more."""
        try:
            yield
        except BaseException:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()
            raise

    def add(self) -> None:
        with self._changed:
            self._done += 1
            self._changed.notify_all()

    def wait_for(self, number: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or self._done >= number, 600)
            assert self._done >= number


def test_every_reply_through_alias_moves_is_that_of_the_version_it_names(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    url = serve(settings).url
    with httpx.Client(base_url=url, timeout=60) as client:
        for name in ("first", "second", "injected"):
            upload(client, "animals", bundles(name)).raise_for_status()
        client.put(f"{MODEL}/aliases/best", json={"version": 2}).raise_for_status()
        own = {
            (number, place): client.post(f"{MODEL}/versions/{number}/predict", json=body).json()
            for number in VERSIONS
            for place, body in enumerate(BODIES)
        }
    progress = {alias: Progress() for alias in ALIASES}

    def ask(alias: str) -> Counter[int]:
        seen: Counter[int] = Counter()
        with (
            httpx.Client(base_url=url, timeout=300, headers=PATIENT) as client,
            progress[alias].going(),
        ):
            for turn in range(NUM_PREDICTIONS // 2):
                place = turn % len(BODIES)
                reply = client.post(f"{MODEL}/versions/{alias}/predict", json=BODIES[place])
                assert reply.status_code == 200, reply.text
                page = reply.json()
                expected = own[page["version"], place]
                agree(expected["outputs"], page["outputs"], abs=1e-6)  # asked beside others
                assert page["warnings"] == expected["warnings"]
                seen[page["version"]] += 1
                progress[alias].add()
        return seen

    def move(alias: str) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            for turn in range(NUM_MOVES):
                progress[alias].wait_for((turn + 1) * NUM_PREDICTIONS // (NUM_MOVES + 1))
                path = f"{MODEL}/aliases/{alias}"
                at = client.get(path)
                target = {"version": at.json()["version"] % len(VERSIONS) + 1}
                # so that a move has to load it while the others answer
                client.post(f"{MODEL}/versions/{target['version']}/unload").raise_for_status()
                moved = client.put(path, json=target, headers={"If-Match": at.headers["ETag"]})
                assert moved.status_code == 200, moved.text

    with ThreadPoolExecutor(6) as pool:
        asking = [(alias, pool.submit(ask, alias)) for alias in ALIASES for _ in range(2)]
        moving = [pool.submit(move, alias) for alias in ALIASES]
        answered = [(alias, future.result()) for alias, future in asking]
        for future in moving:
            future.result()
        for alias in ALIASES:
            seen = sum((done for name, done in answered if name == alias), Counter())
            print(alias, dict(seen))
            assert seen.total() == NUM_PREDICTIONS
            assert set(seen) == set(VERSIONS)


def _wide(path: Path) -> Path:
    """A bundle of 36 MiB in one weight: the C library gives blocks above 32 MiB back at once.

    Of smaller ones it may keep some in the arena of the thread that loaded them, as it likes.
    """
    width = 3072
    network = nn.Sequential(
        nn.Linear(4, width),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(width, width),
        nn.Linear(width, 3),
    )
    export(network, torch.randn(2, 4), path, task="classification", output="logits")
    return path


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_comes_back_from_twenty_loads_and_unloads(tmp_path: Path) -> None:
    quick = {"DUBITO_NUM_SAMPLES": "2", "DUBITO_WARM_UP_ROWS": "1"}
    with serving(tmp_path / "data", quick) as server:
        pid = server.process.pid
        with httpx.Client(base_url=server.url, timeout=120) as client:
            upload(client, "animals", _wide(tmp_path / "wide.dubito")).raise_for_status()

            def cycle() -> tuple[int, int]:
                client.post(f"{MODEL}/versions/1/load").raise_for_status()
                loaded = _resident_bytes(pid)
                client.post(f"{MODEL}/versions/1/unload").raise_for_status()
                return loaded, _resident_bytes(pid)

            _, baseline = cycle()
            sizes = [cycle() for _ in range(NUM_LOADS)]
    loaded, after = sizes[-1]
    worst = max(size for _, size in sizes)
    mib = 2**20
    print(
        f"{baseline / mib:.0f} MiB, {after / mib:.0f} after {NUM_LOADS} (worst {worst / mib:.0f})"
    )
    assert loaded > after + 20 * mib
    assert worst < 1.05 * baseline
