"""Tiny real networks, a fresh data directory per test, and a real server on a free port."""

from __future__ import annotations

import gc
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import certifi
import httpx
import pytest
import structlog
import torch
import uvicorn
from filelock import FileLock
from hypothesis import settings as of_examples
from torch import nn

from dubito.registry import Registry
from dubito.registry.database import Database
from dubito.registry.objects import Objects
from dubito.settings import Settings
from dubito_nn import export

from . import behind_ray
from . import postgres as postgres_server
from . import s3 as s3_server
from .declared import as_declared
from .http import NUM_FEATURES, upload
from .processes import command, environment

LONGEST_FIRST = """
readme transformers hostile_bundles evidence crashes family_served blocks advice engine moments
export jobs_crash lifting launched openapi_fuzzed swaps bench_engine export_refusals forms
networks_served flagging distilled cli fuzz_bundles cli_train page digits passes cli_imports
spelled examine granularity ensemble dockerfile sites wheel number_heads summing preprocess
report_intervals
"""
"""Files of tests by falling time: what is handed out last should be short."""

of_examples.register_profile("any machine", deadline=None)  # an example may meet a pause of it
of_examples.load_profile("any machine")

CLASSES = ("ant", "bee", "cat")
Bundles = Callable[[str], Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Hand the longest files out first; `--no-loadscope-reorder` keeps this order."""
    places = {f"test_{name}": place for place, name in enumerate(LONGEST_FIRST.split())}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
    if behind_ray.REPLICAS:
        behind_ray.leave_out(items)


def pytest_unconfigure() -> None:
    """Take down what served all tests."""
    behind_ray.end()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _what_is_imported_is_looked_at_once() -> None:
    """Garbage collections would look at all of torch again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _tracebacks_are_plain() -> None:
    """As those of `dubito serve`; others show all that a frame holds, which takes seconds."""
    *others, _ = structlog.get_config()["processors"]
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure([*others, plain])


@pytest.fixture(scope="session", autouse=True)
def _one_certificate_is_read(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Each client of httpx would read all that there are, which takes longer than its requests."""
    file = tmp_path_factory.mktemp("certificates") / "one.pem"
    file.write_text(
        "".join(Path(certifi.where()).read_text().partition("END CERTIFICATE-----")[:2])
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(file))
        yield


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    """Tests draw the same weights and rows in every run and in every order."""
    torch.manual_seed(0)


class Pair(nn.Module):
    """A regression network with a mean and a log-variance head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(NUM_FEATURES, 16), nn.ReLU(), nn.Dropout(0.3))
        self.mean = nn.Linear(16, 1)
        self.log_variance = nn.Linear(16, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.body(x)
        return self.mean(hidden), self.log_variance(hidden)


def _classifier(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(NUM_FEATURES, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, len(CLASSES))
    )


def _export_classifier(path: Path, seed: int) -> None:
    example = torch.randn(3, NUM_FEATURES)
    export(
        _classifier(seed),
        example,
        path,
        task="classification",
        output="logits",
        classes=CLASSES,
        notes="made for a test",
    )


def _export_regression(path: Path) -> None:
    torch.manual_seed(2)
    example = torch.randn(3, NUM_FEATURES)
    export(
        Pair(),
        example,
        path,
        task="regression",
        output="mean_and_log_variance",
        target_scale=([10.0], [2.0]),
    )


def _export_injected(path: Path) -> None:
    """A network trained without dropout, doubted behind its hidden layer."""
    torch.manual_seed(3)
    hidden = nn.Sequential(nn.Linear(NUM_FEATURES, 16), nn.ReLU())
    export(
        nn.Sequential(hidden, nn.Linear(16, len(CLASSES))),
        torch.randn(3, NUM_FEATURES),
        path,
        task="classification",
        output="logits",
        classes=CLASSES,
        drop_prob={"0.1": 0.2},
    )


def _export_normalised(path: Path) -> None:
    """A norm behind dropout, through which moments cannot be propagated."""
    torch.manual_seed(4)
    network = nn.Sequential(
        nn.Linear(NUM_FEATURES, 8), nn.Dropout(0.3), nn.LayerNorm(8), nn.Linear(8, len(CLASSES))
    )
    example = torch.randn(3, NUM_FEATURES)
    export(network, example, path, task="classification", output="logits", classes=CLASSES)


def _export_deep(path: Path) -> None:
    """Two dropouts, of which the second is the last."""
    torch.manual_seed(5)
    network = nn.Sequential(
        *(nn.Linear(NUM_FEATURES, 16), nn.ReLU(), nn.Dropout(0.3)),
        *(nn.Linear(16, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, len(CLASSES))),
    )
    example = torch.randn(3, NUM_FEATURES)
    export(network, example, path, task="classification", output="logits", classes=CLASSES)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """Bundles by name, each exported once; the names are those of `exports`."""
    folder = tmp_path_factory.mktemp("bundles")
    exports: dict[str, Callable[[Path], None]] = {
        "first": lambda path: _export_classifier(path, seed=0),
        "second": lambda path: _export_classifier(path, seed=1),
        "regression": _export_regression,
        "injected": _export_injected,
        "normalised": _export_normalised,
        "deep": _export_deep,
    }

    def bundle(name: str) -> Path:
        path = folder / f"{name}.dubito"
        if not path.exists():
            exports[name](path)
        return path

    return bundle


@pytest.fixture(scope="session")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder that `dubito demo` fills: once a run, by whichever worker comes first."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, is_made = shared / "demonstration", shared / "demonstration.made"
    with FileLock(shared / "demonstration.lock"):
        if not is_made.exists():
            settings = {"DUBITO_NUM_SAMPLES": "64"}
            with command(shared / "dubito"):
                variables = environment(folder, settings)
                subprocess.run([shared / "dubito", "demo"], env=variables, check=True)
            is_made.touch()
    return folder


@pytest.fixture(scope="session")
def demonstrated(demonstration: Path) -> Callable[[str], Path]:
    """The bundle of a model of the demonstration, by its name."""

    def bundle(model: str) -> Path:
        database = Database(f"sqlite:///{demonstration / 'dubito.sqlite3'}")
        registry = Registry(database, Objects.local(demonstration / "objects"))
        (version,) = registry.model(model).versions
        registry.close()
        (path,) = demonstration.rglob(f"{version.digest}.dubito")
        return path

    return bundle


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.Postgres]:
    """A PostgreSQL server, one per session."""
    programs = postgres_server.find_programs()
    if programs is None:
        pytest.skip("PostgreSQL's server program is not installed (Debian: postgresql)")
    pytest.importorskip("psycopg")
    with postgres_server.running(programs) as server:
        yield server


@pytest.fixture(scope="session")
def s3_session() -> Iterator[s3_server.S3]:
    with s3_server.running() as server:
        yield server


@pytest.fixture
def s3(s3_session: s3_server.S3, monkeypatch: pytest.MonkeyPatch) -> s3_server.S3:
    """An S3 server, one per session, that the environment names."""
    for name, value in s3_session.environment.items():
        monkeypatch.setenv(name, value)
    return s3_session


@pytest.fixture(scope="session")
def _migrated_postgres(postgres: postgres_server.Postgres) -> Iterator[str]:
    """The name of a database on PostgreSQL that has the tables and is copied."""
    with postgres.fresh() as url:
        database = Database(url)
        database.upgrade()
        database.close()
        yield url.rpartition("/")[2]


@pytest.fixture
def postgres_url(postgres: postgres_server.Postgres, _migrated_postgres: str) -> Iterator[str]:
    """The URL of a database on PostgreSQL with tables and nothing in them."""
    with postgres.fresh(_migrated_postgres) as url:
        yield url


BOTH = ("sqlite", pytest.param("postgres", marks=pytest.mark.postgres))


@pytest.fixture(params=BOTH)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with tables and nothing in them, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{with_tables(tmp_path) / 'dubito.sqlite3'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(params=BOTH)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'registry.sqlite3'}"
        return
    server: postgres_server.Postgres = request.getfixturevalue("postgres")
    with server.fresh() as url:
        yield url


def with_tables(folder: Path) -> Path:
    """Make a data folder with the SQLite database of a first start, as a copy; the folder.

    Migrations take five times as long, and `test_database` makes them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dubito.sqlite3").write_bytes(_migrated())
    return folder


@cache
def _migrated() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "dubito.sqlite3"
        database = Database(f"sqlite:///{path}")
        database.prepare()
        database.close()
        return path.read_bytes()


class LocalServer:
    """A real server in a thread of its own; `url` is where it answers.

    Args:
        settings: of the server.
        change: what a test adds to the application.
    """

    def __init__(self, settings: Settings, change: behind_ray.Change | None = None) -> None:
        from dubito.api import Server as HttpServer
        from dubito.api import create_app

        if settings.database_url is None and not settings.data_dir.exists():
            with_tables(settings.data_dir)
        self.app = create_app(settings)
        if change is not None:
            change(self.app)
        self.settings = settings
        config = uvicorn.Config(
            self.app,
            host="127.0.0.1",
            port=0,
            log_level="critical",
            timeout_keep_alive=600,  # a client that waited for its turn finds its connection open
        )
        self._listening = config.bind_socket()
        self._listening.listen()  # so that a client may come before the server is up
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.http = HttpServer(config, self.app)
        self._thread = threading.Thread(
            target=self.http.run, kwargs={"sockets": [self._listening]}, daemon=True
        )  # a daemon: a fixture that fails before `stop` does not keep pytest from ending

    def start(self) -> None:
        self._thread.start()
        with httpx.Client(base_url=self.url) as client:
            client.get("/health/live", timeout=120)

    def stop(self) -> None:
        self.http.should_exit = True
        self._thread.join(30)
        self._listening.close()


Server = behind_ray.RayServer if behind_ray.REPLICAS else LocalServer


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """As they are, but a queue that a slow machine does not make too long."""
    return Settings(data_dir=tmp_path / "data", num_samples=16, max_queue_ms=600_000)


@pytest.fixture
def serve() -> Iterator[Callable[[Settings], Server]]:
    """Starts servers that end with the test."""
    running: list[Server] = []

    def start(chosen: Settings) -> Server:
        server = Server(chosen)
        server.start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def client(serve: Callable[[Settings], Server], settings: Settings) -> Iterator[httpx.Client]:
    """A client of a fresh server with no models; its replies are what `/openapi.json` declares."""
    hooks = {"response": [as_declared]}
    url = serve(settings).url
    with httpx.Client(base_url=url, timeout=60, event_hooks=hooks) as client:
        yield client


@pytest.fixture(scope="module")
def shared_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of the server of `shared`; a module may have its own."""
    data_dir = tmp_path_factory.mktemp("shared") / "data"
    return Settings(data_dir=data_dir, num_samples=16, max_queue_ms=600_000)


@pytest.fixture(scope="module")
def shared(shared_settings: Settings, bundles: Bundles) -> Iterator[httpx.Client]:
    """As `ready`, one for all tests of a module: for those that only ask."""
    server = Server(shared_settings)
    server.start()
    try:
        hooks = {"response": [as_declared]}
        with httpx.Client(base_url=server.url, timeout=60, event_hooks=hooks) as client:
            upload(client, "animals", bundles("first")).raise_for_status()
            yield client
    finally:
        server.stop()


@pytest.fixture
def ready(client: httpx.Client, bundles: Bundles) -> httpx.Client:
    """A client of a server that has the model `animals`."""
    upload(client, "animals", bundles("first")).raise_for_status()
    return client
