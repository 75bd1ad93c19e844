"""A full disk and a folder that may not be written: what is told, and that nothing half stays."""

from __future__ import annotations

import fcntl
import io
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from sqlalchemy import event
from structlog.testing import capture_logs

from dubito import disk
from dubito.errors import StorageFullError, UnavailableError
from dubito.models.opening import open_database, open_objects
from dubito.registry import Registry
from dubito.registry.database import Database
from dubito.registry.objects import Objects
from dubito.settings import Settings

from .conftest import CLASSES, NUM_FEATURES, Bundles, Server
from .http import upload
from .shell import run_command

MIB = 2**20
NPY = {"Content-Type": "application/x-npy"}
NPZ = {"Content-Type": "application/x-npz"}
DISK_BYTES = 8 * MIB


def _rows(num_bytes: int) -> np.ndarray:
    return np.zeros((num_bytes // 4 // NUM_FEATURES, NUM_FEATURES), np.float32)


def _npy(num_bytes: int) -> bytes:
    file = io.BytesIO()
    np.save(file, _rows(num_bytes))
    return file.getvalue()


def _npz(num_bytes: int) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, inputs=_rows(num_bytes))
    return file.getvalue()


def _files(settings: Settings) -> list[str]:
    """What lies in the data folder beside the database, as paths within it."""
    found = (path.relative_to(settings.data_dir) for path in settings.data_dir.rglob("*"))
    return sorted(str(path) for path in found if len(path.parts) > 1 and path.suffix)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    kind = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(kind, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small disk of its own needs root with the right to mount one")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def _check_full(reply: httpx.Response, folder: str) -> None:
    """A 507 that names a folder and its free bytes, and no path of the machine."""
    assert reply.status_code == 507, reply.text
    body = reply.json()
    assert body["type"] == "urn:dubito:error:disk-full"
    found = re.search(rf"server's folder `{folder}`, got (\d+) free bytes", body["detail"])
    assert found, body["detail"]
    assert 0 <= int(found[1]) < DISK_BYTES
    assert "/disk" not in reply.text


def test_a_full_disk_is_told_everywhere_and_nothing_half_stays(
    serve: Callable[[Settings], Server], small_disk: Path, bundles: Bundles
) -> None:
    settings = Settings(data_dir=small_disk / "data", num_samples=16, poll_ms=50, job_chunk_ms=20)
    server = serve(settings)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        pool = _npy(MIB // 4)
        client.post("/v1/pools?name=small", content=pool, headers=NPY).raise_for_status()
        before = _files(settings)

        with capture_logs() as logs:
            reply = client.post("/v1/pools", content=_npy(2 * DISK_BYTES), headers=NPY)
        _check_full(reply, "incoming")
        (line,) = (one for one in logs if one["event"] == "disk full")
        assert f"{settings.incoming_dir}: expected room" in line["reason"]
        assert "DUBITO_DATA_DIR" in line["reason"]
        for content, kind, folder in (
            (_npz(2 * DISK_BYTES), NPZ, "pools"),  # little until it is unpacked
            (_npy(5 * MIB // 2), NPY, "objects"),  # third copy of three
        ):
            _check_full(client.post("/v1/pools", content=content, headers=kind), folder)
            assert _files(settings) == before
        reply = client.post(
            "/v1/models/animals/versions",
            content=bytes(DISK_BYTES),
            headers={"Content-Type": "application/octet-stream"},
        )
        _check_full(reply, "incoming")
        assert _files(settings) == before

        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space"):
            _fill(filler)
        rows = np.random.default_rng(0).normal(size=(120, NUM_FEATURES)).round(3).tolist()
        body = {"inputs": rows, "labels": [CLASSES[place % 3] for place in range(120)]}
        _check_full(client.post("/v1/models/animals/calibrate", json=body), "data")
        reply = client.post("/v1/models/animals/predict", json={"inputs": rows[:2]})
        assert reply.status_code == 200
        assert client.get("/v1/models/animals/calibration").json()["calibration"] is None
        os.truncate(filler, filler.stat().st_size - MIB)

        job = client.post("/v1/models/animals/predict", json={"pool": "small"}).json()["job"]
        with httpx.stream("GET", f"{server.url}/v1/jobs/{job}/events", timeout=60) as events:
            assert '"failed"' in list(events.iter_lines())[-2]
        assert "disk full: " in client.get(f"/v1/jobs/{job}").json()["reason"]
        assert _files(settings) == before
        filler.unlink()
        assert client.post("/v1/models/animals/calibrate", json=body).status_code == 200


def _fill(path: Path) -> None:
    with path.open("wb", 0) as file:
        while True:
            file.write(bytes(4096))


@contextmanager
def _files_limited(num_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_refusal_for_want_of_room_reaches_a_client_that_is_still_sending(
    ready: httpx.Client, settings: Settings
) -> None:
    before = _files(settings)
    with _files_limited(2 * MIB):
        reply = ready.post("/v1/pools", content=_npy(24 * MIB), headers=NPY)
        assert reply.status_code == 507, reply.text
        assert "`incoming`" in reply.json()["detail"]
        reply = ready.post("/v1/pools", content=_npz(24 * MIB), headers=NPZ)
        assert "`pools`" in reply.json()["detail"]
        assert reply.status_code == 507, reply.text
    assert _files(settings) == before
    assert ready.post("/v1/pools", content=_npy(MIB), headers=NPY).status_code == 201


@pytest.fixture
def full_database(settings: Settings) -> Iterator[Database]:
    """A database whose file may not grow."""

    def limit(connection: object, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # type: ignore[attr-defined]

    database = open_database(settings)
    database.prepare()
    event.listen(database.engine, "connect", limit)
    database.engine.dispose()
    yield database
    database.close()


def test_a_bundle_whose_row_finds_no_room_goes_again(
    full_database: Database, settings: Settings, bundles: Bundles
) -> None:
    registry = Registry(full_database, open_objects(settings))
    with pytest.raises(StorageFullError, match=f"{settings.data_dir}: expected room"):
        registry.register("animals", bundles("first"), defaults={"note": "long" * 10_000})
    assert _files(settings) == []
    assert registry.models() == ()


@contextmanager
def _shut(folder: Path) -> Iterator[None]:
    """A folder that this process may not write, whoever runs it."""
    folder.chmod(0o500)
    user = os.geteuid()
    if user == 0:
        try:
            os.seteuid(65534)  # nobody
        except OSError:
            pytest.skip("root may write everywhere, and may not become another user here")
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o700)


def test_a_folder_that_may_not_be_written_is_named_in_the_log_alone(
    ready: httpx.Client, settings: Settings, tmp_path: Path
) -> None:
    with capture_logs() as logs, _shut(settings.incoming_dir):
        reply = ready.post("/v1/pools", content=_npy(MIB), headers=NPY)
    assert reply.status_code == 503
    assert "may not write to its folder `incoming`" in reply.json()["detail"]
    assert str(tmp_path) not in reply.text
    (line,) = (one for one in logs if one["event"] == "not ready")
    assert f"{settings.incoming_dir}: expected a folder that may be written" in line["reason"]
    assert "DUBITO_DATA_DIR" in line["reason"]


def test_a_bundle_that_is_gone_from_the_store_is_told_and_its_place_stands_in_the_log(
    serve: Callable[[Settings], Server], tmp_path: Path, bundles: Bundles
) -> None:
    settings = Settings(data_dir=tmp_path / "data", pinned_models="animals")
    with httpx.Client(base_url=serve(settings).url, timeout=60) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
    (path,) = settings.data_dir.glob("objects/**/*.dubito")
    for content in (path.read_bytes()[:-9], None):
        path.unlink() if content is None else path.write_bytes(content)
        with (
            capture_logs() as logs,
            httpx.Client(base_url=serve(settings).url, timeout=60) as client,
        ):
            asked = {"inputs": [[0, 0, 0, 0]]}
            while (
                reply := client.post("/v1/models/animals/predict", json=asked)
            ).status_code == 429:
                pass  # a loop that was late while the server started
            ready = client.get("/health/ready")
        assert (reply.status_code, ready.status_code) == (503, 503)
        assert reply.json()["type"] == "urn:dubito:error:damaged"
        assert "ask whoever runs the server to restore it" in reply.json()["detail"]
        assert str(tmp_path) not in reply.text + ready.text
        reasons = [line["reason"] for line in logs if "reason" in line]
        assert any("objects" in one and "registry check" in one for one in reasons), logs


def test_the_command_line_names_a_folder_that_may_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shut").mkdir()
    for folder in (tmp_path / "shut", tmp_path / "shut" / "data"):
        monkeypatch.setenv("DUBITO_DATA_DIR", str(folder))
        with _shut(tmp_path / "shut"):
            code, _, err = run_command(capsys, monkeypatch, "models")
        assert (code, err.count("\n")) == (1, 1), err
        assert f"{folder}: expected a folder that may be written, got: " in err
        assert "DUBITO_DATA_DIR" in err
        assert "DATABASE_URL" not in err.partition("DUBITO_DATA_DIR or")[0]


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(UnavailableError, match=f"{place}: expected a folder"):
            Objects.local(place)


def test_a_file_that_is_there_is_not_opened_since_closing_it_would_end_the_locks_on_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "locked"
    disk.make_private(path)
    assert path.stat().st_mode & 0o077 == 0
    script = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with path.open("w") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        disk.make_private(path)
        other = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
        )
    assert "BlockingIOError" in other.stderr
