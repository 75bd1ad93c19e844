"""Backups of the registry, made while a server writes, and restored elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from dubito.errors import ConflictError, InputError
from dubito.presence import announced
from dubito.registry import Registry
from dubito.registry.backup import back_up, restore
from dubito.registry.database import Database
from dubito.registry.objects import Objects
from dubito.registry.objects.cache import BundleCache
from dubito.settings import Settings
from dubito_nn import load_bundle
from dubito_nn.bundle import bundle_bytes

from . import s3 as s3_server
from .conftest import Bundles, Server
from .http import normals, npz, upload
from .shell import run_command


class Writer:
    """Somebody who publishes versions and deletes them again, until told to stop."""

    def __init__(self, url: str, bundle: Path) -> None:
        self._url, self._bundle = url, load_bundle(bundle)
        self._stopping, self.has_written = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.problems: list[str] = []

    def __enter__(self) -> Writer:
        self._thread.start()
        assert self.has_written.wait(120)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            for turn in range(10_000):
                if self._stopping.is_set():
                    return
                manifest = replace(self._bundle.manifest, notes=f"turn {turn}")
                bundle = self._bundle
                content = bundle_bytes(manifest, bundle.sampling, bundle.point, bundle.weights)
                headers = {"Content-Type": "application/octet-stream"}
                made = client.post("/v1/models/churn/versions", content=content, headers=headers)
                if made.status_code != 201:
                    self.problems.append(made.text)
                elif turn:  # the first has the alias
                    client.delete(f"/v1/models/churn/versions/{made.json()['version']}")
                    self.has_written.set()


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command on a data folder."""

    def command(folder: Path, *words: object) -> tuple[int, str, str]:
        monkeypatch.setenv("DUBITO_DATA_DIR", str(folder))
        return run_command(capsys, monkeypatch, *words)

    return command


def test_a_backup_made_under_writes_is_whole_and_answers_the_same_elsewhere(
    serve: Callable[[Settings], Server],
    settings: Settings,
    bundles: Bundles,
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    server, elsewhere = serve(settings), tmp_path / "else where%20"
    rows, labels = normals(150), np.arange(150) % 3
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert upload(client, "animals", bundles("first")).status_code == 201
        pool = npz(inputs=rows)
        headers = {"Content-Type": "application/x-npz"}
        assert client.post("/v1/pools?name=rows", content=pool, headers=headers).status_code == 201
        labelled = npz(inputs=rows, labels=labels)
        calibrated = client.post(
            "/v1/models/animals/calibrate?num_samples=16", content=labelled, headers=headers
        )
        assert calibrated.status_code == 200, calibrated.text
        with Writer(server.url, bundles("second")) as writer:
            for number in range(3):
                code, out, err = run(
                    settings.data_dir, "backup", "create", tmp_path / f"backup-{number}"
                )
                assert (code, "no problems" in out) == (0, True), out + err
        assert not writer.problems
        asked = {"inputs": rows[:4].tolist(), "num_samples": 16}
        before = client.post("/v1/models/animals/predict", json=asked).json()
    assert before["calibration"] == 1
    code, out, err = run(elsewhere, "backup", "restore", tmp_path / "backup-2")
    assert (code, "no problems, no orphans" in out) == (0, True), out + err
    assert run(elsewhere, "registry", "check")[0] == 0
    for folder in (tmp_path / "backup-2", elsewhere):
        files = list(folder.glob("*.sqlite3*"))  # hashes of keys are for their owner alone
        assert files
        assert not any(file.stat().st_mode & 0o077 for file in files)
    again = serve(settings.model_copy(update={"data_dir": elsewhere}))
    with httpx.Client(base_url=again.url, timeout=60) as client:
        after = client.post("/v1/models/animals/predict", json=asked).json()
        assert client.get("/v1/pools/rows").status_code == 200
        assert client.get("/v1/models/churn").status_code == 200
    assert after == before


class Kept:
    """A registry in a data folder, with two versions of one model."""

    def __init__(self, folder: Path, objects: Objects, bundles: Bundles) -> None:
        folder.mkdir(exist_ok=True)
        self.database, self.objects = _database(folder), objects
        self.database.upgrade()
        self.registry = Registry(self.database, objects)
        for name in ("first", "second"):
            self.registry.register("animals", bundles(name))


@pytest.fixture
def kept(tmp_path: Path, bundles: Bundles) -> Iterator[Kept]:
    kept = Kept(tmp_path / "data", Objects.local(tmp_path / "data" / "objects"), bundles)
    yield kept
    kept.registry.close()


def _database(folder: Path) -> Database:
    return Database(f"sqlite:///{folder / 'dubito.sqlite3'}")


class Vanishing:
    """Objects of which somebody deletes a version when the first is read."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def __getattr__(self, name: str) -> object:
        return getattr(self._kept.objects, name)

    def pieces(self, digest: str) -> Iterator[bytes]:
        if len(self._kept.registry.model("animals").versions) == 2:
            self._kept.registry.delete_version("animals", "2")
        return self._kept.objects.pieces(digest)


def test_what_is_deleted_meanwhile_is_in_no_backup(kept: Kept, tmp_path: Path) -> None:
    objects: Any = Vanishing(kept)
    report = back_up(kept.database, objects, tmp_path / "backup")
    assert (report.num_versions, report.problems) == (1, ())


def test_objects_of_a_bucket_are_copied_and_put_into_another(
    s3: s3_server.S3, bundles: Bundles, tmp_path: Path
) -> None:
    here, there = (
        Objects.open(
            f"s3://{s3.bucket()}/models", BundleCache(tmp_path / name, 2**30), allow_http=True
        )
        for name in ("cache", "other")
    )
    kept = Kept(tmp_path / "data", here, bundles)
    assert not back_up(kept.database, here, tmp_path / "backup").problems
    (tmp_path / "new").mkdir()
    restored = _database(tmp_path / "new")
    report = restore(tmp_path / "backup", restored, there, tmp_path / "incoming")
    assert (report.num_objects, report.problems, report.orphans) == (2, (), ())
    for database in (kept.database, restored):
        database.close()


def test_a_backup_that_cannot_be_made_says_why(
    kept: Kept, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").touch()
    with pytest.raises(ConflictError, match=r"new or an empty folder, got .*: name another"):
        back_up(kept.database, kept.objects, full)
    elsewhere = Database("postgresql://somebody@127.0.0.1/nothing")
    with pytest.raises(InputError, match=r"expects SQLite, got PostgreSQL: use pg_dump"):
        back_up(elsewhere, kept.objects, tmp_path / "backup")
    back_up(kept.database, kept.objects, tmp_path / "backup")
    assert "without a registry, got one" in run(data, "backup", "restore", tmp_path / "backup")[2]
    new = tmp_path / "new"
    assert "folder of a backup" in run(new, "backup", "restore", full)[2]
    with announced(new, "http://127.0.0.1:8000"):
        assert "stop it first" in run(new, "backup", "restore", tmp_path / "backup")[2]
    (bundle,) = (tmp_path / "backup").rglob(f"{kept.registry.version('animals').digest}.dubito")
    bundle.unlink()
    assert "without some" in run(new, "backup", "restore", tmp_path / "backup")[2]
    assert not (new / "dubito.sqlite3").exists()
