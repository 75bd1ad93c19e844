"""kill -9 at random moments: what was acknowledged is there, nothing is there by halves."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import httpx
import pytest

from dubito.registry import ModelFact, Registry
from dubito.registry.check import check
from dubito.registry.database import Database
from dubito.registry.objects import Objects

from . import victim
from .conftest import Bundles
from .http import upload
from .processes import Forked, environment, serving
from .victim import ALIASES, LABELS, MODEL, ROWS

pytestmark = pytest.mark.slow

NUM_KILLS = 50  # on each of two databases
NUM_SERVER_KILLS = 3
CHECK_EVERY = 10  # kills: a check reads every object that is there
MOST_CHANGES = 4  # that are acknowledged before a kill, beside the first
LONGEST_WAIT_S = 0.1  # after the last of them: the next one is under way
Change = Mapping[str, object]
Changes = list[Change]


def live_and_die(
    work: Callable[[], None], settings: Mapping[str, str], draw: random.Random
) -> Changes:
    """Let a victim live for some changes and a moment; the changes that it acknowledged."""
    process = Forked(work, settings, 1)
    lines = []
    with process.written as written:
        while (line := written.readline()) != "ready\n":
            lines.append(line)
        lines += islice(written, draw.randint(0, MOST_CHANGES))
        threading.Event().wait(draw.uniform(0, LONGEST_WAIT_S))  # the random moment itself
        process.kill()
        return [json.loads(line) for line in [*lines, *written]]


class Truth:
    """All that was acknowledged so far, and whether a registry has it."""

    def __init__(self) -> None:
        self.digests: dict[int, str] = {}
        self.aliases: dict[str, tuple[int, int]] = {}
        self.calibrations: dict[int, int] = {}
        self.counts: Counter[str] = Counter()

    def add(self, change: Change) -> None:
        kind = str(change["change"])
        self.counts[kind] += 1
        number = int(str(change["version"]))
        if kind == "upload":
            self.digests[number] = str(change["digest"])
        elif kind == "alias":
            self.aliases[str(change["alias"])] = (int(str(change["revision"])), number)
        else:
            self.calibrations[number] = int(str(change["calibration"]))

    def assert_kept(self, model: ModelFact) -> None:
        versions = {version.number: version for version in model.versions}
        for number, digest in self.digests.items():
            assert versions[number].digest == digest
        for number, calibration in self.calibrations.items():
            assert calibration in versions[number].calibrations
        found = {alias.name: (alias.revision, alias.version) for alias in model.aliases}
        for name, (revision, number) in self.aliases.items():
            # A move may have been written and not have been acknowledged any more.
            assert found[name][0] >= revision
            assert found[name] == (revision, number) or found[name][0] > revision


def test_after_a_hundred_kills_every_acknowledged_change_is_there_and_nothing_by_halves(
    bundles: Bundles, database_url: str, tmp_path: Path
) -> None:
    settings = {"DUBITO_DATABASE_URL": database_url, "DUBITO_WARM_UP_ROWS": ""}
    variables = environment(tmp_path / "data", settings)
    database = Database(database_url)
    objects = Objects.local(tmp_path / "data" / "objects")
    truth, draw = Truth(), random.Random(0)
    num_orphans = 0
    for seed in range(NUM_KILLS):
        work = partial(victim.work, bundles("first"), seed)
        for change in live_and_die(work, variables, draw):
            truth.add(change)
        registry = Registry(database, objects)
        model = registry.model(MODEL)
        truth.assert_kept(model)
        uploads = [c for c in registry.audit(limit=10**6) if c.action == "upload"]
        assert len(uploads) == len(model.versions)
        assert [version.number for version in model.versions] == list(
            range(1, len(model.versions) + 1)
        )
        if (seed + 1) % CHECK_EVERY == 0:
            report = check(database, objects)
            assert (report.problems, report.num_versions) == ((), len(model.versions))
            num_orphans = len(report.orphans)
    print(f"{NUM_KILLS} kills, acknowledged {dict(truth.counts)}, {num_orphans} orphans")
    assert set(truth.counts) == {"upload", "alias", "calibrate"}
    report = check(database, objects, fix=True, min_age_s=0)
    assert (report.problems, check(database, objects).orphans) == ((), ())
    database.close()


def _until_killed(change: Callable[[], Change], truth: Truth, lock: threading.Lock) -> None:
    """Change over and over and note what is acknowledged, until the server is gone."""
    while True:
        try:
            done = change()
        except httpx.TransportError:
            return
        with lock:
            truth.add(done)


def test_a_server_that_is_killed_comes_back_with_all_that_it_acknowledged(
    bundles: Bundles, tmp_path: Path
) -> None:
    truth, lock, draw = Truth(), threading.Lock(), random.Random(1)
    path = f"/v1/models/{MODEL}"
    for turn in range(NUM_SERVER_KILLS):
        with (
            serving(tmp_path / "data", {}) as server,
            httpx.Client(base_url=server.url, timeout=60) as client,
            ThreadPoolExecutor(3) as pool,
        ):

            def send() -> Change:
                reply = upload(client, MODEL, bundles("first"))
                assert reply.status_code == 201, reply.text
                number = reply.json()["version"]
                page = client.get(f"{path}/versions/{number}").json()
                return {"change": "upload", "version": number, "digest": page["digest"]}

            def move() -> Change:
                alias, number = draw.choice(ALIASES), 1
                reply = client.put(f"{path}/aliases/{alias}", json={"version": number})
                assert reply.status_code == 200, reply.text
                return {"change": "alias", **reply.json()}

            def fit() -> Change:
                body = {"inputs": ROWS.tolist(), "labels": LABELS.tolist()}
                reply = client.post(f"{path}/versions/1/calibrate", json=body)
                assert reply.status_code == 200, reply.text
                return {"change": "calibrate", **reply.json()}

            truth.add(send())
            running: list[Future[None]] = [
                pool.submit(_until_killed, change, truth, lock) for change in (send, move, fit)
            ]
            threading.Event().wait(draw.uniform(0.2, 1.5))  # the random moment itself
            server.process.kill()
            for future in running:
                future.result(60)
        assert turn < NUM_SERVER_KILLS
    database = Database(f"sqlite:///{tmp_path / 'data' / 'dubito.sqlite3'}")
    objects = Objects.local(tmp_path / "data" / "objects")
    registry = Registry(database, objects)
    truth.assert_kept(registry.model(MODEL))
    assert check(database, objects).problems == ()
    print(f"{NUM_SERVER_KILLS} kills of a server, acknowledged {dict(truth.counts)}")
    registry.close()
