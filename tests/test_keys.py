"""Keys of the API: what each opens and shows, their limits, and what is kept of them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import SecretStr
from sqlalchemy.engine import URL
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from dubito.api.border.auth import needs
from dubito.api.border.lag import LoopLag
from dubito.errors import ConflictError, InputError, KeyLimitError
from dubito.keys import KeyScope
from dubito.keys.allowance import Allowance
from dubito.registry import Registry
from dubito.registry.database import Database
from dubito.registry.keys import KeyStore
from dubito.registry.objects import Objects
from dubito.settings import Settings

from .conftest import Bundles, Server
from .http import normals, npy, predicted, upload
from .shell import Run, run_command

ADMIN = "the-key-of-the-settings"
SCOPES = ("predict", "select", "calibrate", "admin")
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
OPEN = {"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
OPEN |= {"/", "/page/main.js", "/docs", "/docs/oauth2-redirect", "/openapi.json"}
NEEDED = {  # by API and path; what is not named needs `predict`
    "select": r"(GET|POST|DELETE) /v1/pools(/.*)?|POST .*/select",
    "calibrate": r"POST .*/(calibrate|evaluate|fit)|PUT .*/(calibration|fits)",
    "admin": r"POST /v1/models/{model}/versions|DELETE /v1/models/.*|PUT .*/aliases/{alias}"
    r"|POST .*/(load|unload|retire|restore)",
}
UNKNOWN = {"model": "animals", "version": "1", "alias": "a", "pool": "p", "job": "0" * 16}


@dataclass
class Locked:
    """A server with a key of each scope, and one of `admin` for the model `animals` alone."""

    server: Server
    keys: dict[str, str]

    def ask(self, key: str | None, method: str, path: str, **sent: Any) -> httpx.Response:
        """The reply to a request with a key, named by its name, or without one."""
        headers = {} if key is None else {"Authorization": f"Bearer {self.keys[key]}"}
        with httpx.Client(base_url=self.server.url, timeout=60, headers=headers) as client:
            return client.request(method, path, **sent)

    def client(self, key: str) -> httpx.Client:
        """A client with a key."""
        headers = {"Authorization": f"Bearer {self.keys[key]}"}
        return httpx.Client(base_url=self.server.url, timeout=60, headers=headers)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Runs a command."""
    return partial(run_command, capsys, monkeypatch)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, bundles: Bundles) -> Iterator[Locked]:
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("locked") / "data",
        num_samples=16,
        api_key=SecretStr(ADMIN),
        timing_limit_ms=0,
        warm_up_rows=(),
    )
    server = Server(settings, _with_more_routes)
    server.start()
    keys = {"settings": ADMIN} | {name: _made(server, name, name) for name in SCOPES}
    keys["restricted"] = _made(server, "restricted", "admin", models=("animals",))
    keys["elsewhere"] = _made(server, "elsewhere", "admin", models=("numbers",))
    locked = Locked(server, keys)
    with locked.client("admin") as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        upload(client, "numbers", bundles("regression")).raise_for_status()
    yield locked
    server.stop()


def _with_more_routes(app: FastAPI) -> None:
    app.add_api_route("/undeclared", _nobody, methods=["GET"])
    app.add_route("/plain", _plain)
    app.add_api_route("/broken", _broken, methods=["GET"])


def _nobody() -> str:
    return "nobody"


@needs(KeyScope.PREDICT)
def _broken(request: Request) -> PlainTextResponse:
    key = request.headers["authorization"]
    raise RuntimeError(f"a bug beside a key of {len(key)} letters")


async def _plain(request: Request) -> PlainTextResponse:
    return PlainTextResponse("nobody")


@contextmanager
def _store(url: URL | str) -> Iterator[KeyStore]:
    """The keys of a database, as another process has them."""
    database = Database(url)
    yield KeyStore(database)
    database.close()


def _made(server: Server, name: str, scope: str, **limits: Any) -> str:
    """A key that the server knows already."""
    with _store(server.settings.registry_url) as store:
        key = store.create(name, scope, **limits)
    _until(server, key, 200)
    return key


def _until(server: Server, key: str, status: int) -> None:
    """Ask with a key until the status is this, for a second at most."""
    until_s = time.monotonic() + 1.0
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=server.url, headers=headers) as client:
        while client.get("/v2").status_code != status:
            assert time.monotonic() < until_s


def _routes(server: Server) -> list[tuple[str, str]]:
    """Method and path of every route of the application."""
    return [
        (method, route.path or "")
        for route in iter_route_contexts(server.app.router.routes)
        if isinstance(route.original_route, APIRoute)
        for method in sorted(route.methods or ())
    ]


def _needed(method: str, path: str) -> str:
    named = f"{method} {path}"
    return next((scope for scope in NEEDED if re.fullmatch(NEEDED[scope], named)), "predict")


def test_without_a_key_every_route_is_shut_but_those_that_hold_no_data(locked: Locked) -> None:
    paths = {path.format(**UNKNOWN) for _, path in _routes(locked.server)} | OPEN
    assert len(paths) > 50
    with httpx.Client(base_url=locked.server.url, timeout=60) as client:
        for path in sorted(paths | {"/", "/nobody", "/metrics", "/plain", "/undeclared"}):
            for method in METHODS:
                status = client.request(method, path).status_code
                assert (status == 401) == (path not in OPEN), (method, path, status)


def test_every_route_opens_to_its_scope_and_those_above_alone(locked: Locked) -> None:
    clients = {name: locked.client(name) for name in (*SCOPES, "elsewhere")}
    routes = [
        route
        for route in _routes(locked.server)
        if route[1] not in OPEN | {"/undeclared", "/broken"}
    ]
    assert {_needed(*route) for route in routes} == set(SCOPES)
    for method, path in sorted(routes):
        needed, there = _needed(method, path), path.format(**UNKNOWN)
        if "{model}" in path:
            reply = clients["elsewhere"].request(method, there)
            assert reply.status_code == 403, (method, path)
            assert "expected one for the model 'animals', got one for numbers" in reply.text
        for scope in SCOPES:
            is_opened = SCOPES.index(scope) >= SCOPES.index(needed)
            if is_opened and (needed == "admin" or method == "DELETE"):
                there = path.format(**UNKNOWN | {"model": "nothing"})  # what is there stays so
            reply = clients[scope].request(method, there)
            assert (reply.status_code == 403) != is_opened, (scope, method, path, reply.text)
            assert is_opened or f"expected the scope `{needed}`, got `{scope}`" in reply.text
    for client in clients.values():
        client.close()


@pytest.mark.parametrize("path", ["/undeclared", "/plain"])
def test_a_route_that_declares_no_scope_opens_to_nobody(locked: Locked, path: str) -> None:
    reply = locked.ask("settings", "GET", path)
    assert reply.status_code == 403
    assert "declares none" in reply.json()["detail"]


def test_under_load_a_key_is_told_what_it_never_opens_and_not_to_come_again(
    locked: Locked, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(key: str) -> dict[str, int]:
        path = "/v1/models/animals"
        actions = ("predict", "select", "calibrate", "evaluate", "fit")
        return {
            action: locked.ask(key, "POST", f"{path}/{action}").status_code for action in actions
        }

    with monkeypatch.context() as busy:
        busy.setattr(LoopLag, "ahead_s", 100.0)
        assert asked("predict") == dict(
            predict=429, select=403, calibrate=403, evaluate=403, fit=403
        )
        assert asked("select") == dict(
            predict=429, select=429, calibrate=403, evaluate=403, fit=403
        )
        assert set(asked("restricted").values()) == {429}
        assert set(asked("elsewhere").values()) == {403}
    assert asked("predict") == dict(predict=415, select=403, calibrate=403, evaluate=403, fit=403)


def test_the_document_names_the_scope_of_every_route(locked: Locked) -> None:
    for path, methods in locked.server.app.openapi()["paths"].items():
        for method, operation in methods.items():
            if path in OPEN | {"/undeclared"}:
                assert "security" not in operation
            else:
                assert operation["security"] == [{"key": [_needed(method.upper(), path)]}]


def test_lists_show_what_a_key_may_see(locked: Locked) -> None:
    for key, seen in {"predict": {"animals", "numbers"}, "restricted": {"animals"}}.items():
        models = locked.ask(key, "GET", "/v1/models").json()["models"]
        index = locked.ask(key, "POST", "/v2/repository/index").json()
        statistics = locked.ask(key, "GET", "/v2/models/stats").json()["model_stats"]
        assert {model["model"] for model in models} == seen
        assert {entry["name"] for entry in index} == seen
        assert {entry["name"] for entry in statistics} == seen


def test_a_key_sees_its_own_jobs_and_one_for_some_models_its_own_pools(locked: Locked) -> None:
    rows, kind = npy(normals(5)), {"Content-Type": "application/x-npy"}
    for key in ("select", "restricted"):
        locked.ask(
            key, "POST", f"/v1/pools?name=of-{key}", content=rows, headers=kind
        ).raise_for_status()
    jobs = {}
    for key in ("predict", "select"):
        asked = locked.ask(
            key, "POST", "/v1/models/animals/predict", json={"pool": "of-select", "num_samples": 2}
        )
        assert asked.status_code == 202, asked.text
        jobs[key] = asked.json()["job"]
    for key, seen in {
        "predict": {"predict"},
        "select": {"select"},
        "admin": {"predict", "select"},
        "elsewhere": set(),
    }.items():
        listed = {job["job"] for job in locked.ask(key, "GET", "/v1/jobs").json()["jobs"]}
        assert listed == {jobs[one] for one in seen}
        for owner, job in jobs.items():
            for path in ("", "/events", "/result"):
                status = locked.ask(key, "GET", f"/v1/jobs/{job}{path}").status_code
                assert (status == 404) == (owner not in seen), (key, owner, path)
        assert key in seen or locked.ask(key, "DELETE", f"/v1/jobs/{jobs['select']}").is_error
    for key, pools in {
        "select": {"of-select", "of-restricted"},
        "restricted": {"of-restricted"},
        "elsewhere": set(),
    }.items():
        listed = {pool["pool"] for pool in locked.ask(key, "GET", "/v1/pools").json()["pools"]}
        assert listed == pools
    asked = locked.ask(
        "restricted",
        "POST",
        "/v1/models/animals/select",
        json={"pool": "of-select", "strategy": "random", "k": 1},
    )
    assert asked.status_code == 404
    assert locked.ask("restricted", "DELETE", "/v1/pools/of-select").status_code == 404


def test_what_changes_is_written_down_with_the_name_of_the_key(
    locked: Locked,
    bundles: Bundles,
    run: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = {"inputs": normals(90).tolist(), "labels": [0, 1, 2] * 30}
    npys = {"content": npy(normals(5)), "headers": {"Content-Type": "application/x-npy"}}
    bundle = {
        "content": bundles("second").read_bytes(),
        "headers": {"Content-Type": "application/octet-stream"},
    }
    versions = "/v1/models/audited/versions"
    changes: list[tuple[str, str, str, dict[str, Any]]] = [
        ("upload", "POST", versions, bundle),
        ("upload", "POST", versions, bundle),
        ("alias", "PUT", "/v1/models/audited/aliases/best", {"json": {"version": 2}}),
        ("alias-delete", "DELETE", "/v1/models/audited/aliases/best", {}),
        ("calibrate", "POST", "/v1/models/audited/calibrate", {"json": data}),
        ("activate", "PUT", "/v1/models/audited/calibration", {"json": {"active": None}}),
        ("load", "POST", f"{versions}/2/load", {}),
        ("unload", "POST", f"{versions}/2/unload", {}),
        ("retire", "POST", f"{versions}/2/retire", {"json": {"reason": "old"}}),
        ("restore", "POST", f"{versions}/2/restore", {}),
        ("delete", "DELETE", f"{versions}/2", {}),
        ("pool-add", "POST", "/v1/pools?name=audited", npys),
        ("pool-delete", "DELETE", "/v1/pools/audited", {}),
    ]
    for _, method, path, sent in changes:
        reply = locked.ask("admin", method, path, **sent)
        assert reply.is_success, reply.text
    data_dir = locked.server.settings.data_dir
    registry = Registry(
        Database(locked.server.settings.registry_url), Objects.local(data_dir / "objects")
    )
    written = registry.audit(limit=len(changes))[::-1]
    registry.close()
    assert [change.action for change in written] == [action for action, *_ in changes]
    assert {change.actor for change in written} == {"admin"}
    monkeypatch.setenv("DUBITO_DATA_DIR", str(data_dir))
    _, shown, _ = run("registry", "audit")
    assert re.search(r"key-create .* key restricted, scope admin, models animals", shown)
    assert re.search(r"admin +│ pool-delete", shown)


@pytest.mark.parametrize("name", ["Key", "", "key", "local", "anonymous", "predict"])
def test_names_of_keys_are_names_and_never_given_twice(locked: Locked, name: str) -> None:
    url = locked.server.settings.registry_url
    with _store(url) as store, pytest.raises((InputError, ConflictError), match="key"):
        store.create(name, "admin")


def test_keys_are_made_shown_once_listed_and_revoked(
    database_url: str, tmp_path: Path, run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DUBITO_DATABASE_URL", database_url)
    words = "keys create ci --scope predict --model a --model b --rate 2.5 --concurrency 3"
    _, made, told = run(*words.split())
    key = made.split()[-1]
    assert re.fullmatch(r"dubito_[A-Za-z0-9_-]{43}", key)
    assert "not shown again" in told
    assert "no model a yet" in told
    with _store(database_url) as store:
        (fact,) = store.all()
    assert (fact.scope, fact.models) == ("predict", ("a", "b"))
    assert (fact.rate, fact.concurrency) == (2.5, 3)
    assert key not in repr(fact)
    _, listed, _ = run("keys", "list")
    assert "a, b" in listed
    assert run("keys", "revoke", "ci")[0] == 0
    with _store(database_url) as store:
        assert store.all()[0].revoked_at is not None
    code, _, refusal = run("keys", "revoke", "nobody")
    assert code == 1
    assert "`dubito keys list`" in refusal


def test_servers_see_new_and_revoked_keys_within_a_second(
    serve: Callable[[Settings], Server], settings: Settings
) -> None:
    server = serve(settings)
    _until(server, "none is asked for", 200)
    with _store(settings.registry_url) as store:
        key = store.create("first", "predict")
        _until(server, "none", 401)
        _until(server, key, 200)
        store.revoke("first")
        _until(server, key, 401)
    _until(server, "none", 401)  # once there was a key, the server stays shut


def test_a_rate_is_kept_with_a_burst_of_one_second() -> None:
    now_s = [100.0]
    allowance = Allowance(4.0, None, clock=lambda: now_s[0])
    for _ in range(4):
        allowance.begin()
    with pytest.raises(KeyLimitError, match="at most 4") as caught:
        allowance.begin()
    assert caught.value.retry_after_s == pytest.approx(0.25)
    now_s[0] += 0.25
    allowance.begin()
    with pytest.raises(KeyLimitError):
        allowance.begin()
    slow = Allowance(0.1, None, clock=lambda: now_s[0])
    slow.begin()
    with pytest.raises(KeyLimitError) as caught:
        slow.begin()
    assert caught.value.retry_after_s == pytest.approx(10.0)


def test_requests_at_once_are_bounded_and_given_back() -> None:
    allowance = Allowance(None, 2)
    allowance.begin()
    allowance.begin()
    with pytest.raises(KeyLimitError, match="at most 2"):
        allowance.begin()
    allowance.end()
    allowance.begin()


def test_a_key_over_its_limit_is_told_when_to_come_again(locked: Locked) -> None:
    locked.keys["slow"] = _made(locked.server, "slow", "predict", rate=0.05)
    reply = locked.ask("slow", "GET", "/v1/models")
    assert reply.status_code == 429
    assert 1 <= int(reply.headers["Retry-After"]) <= 100
    assert reply.json()["type"] == "urn:dubito:error:key-limit"
    assert locked.ask("predict", "GET", "/v1/models").status_code == 200


def test_each_reply_gives_its_place_back(locked: Locked) -> None:
    locked.keys["single"] = _made(locked.server, "single", "predict", concurrency=1)
    with locked.client("single") as client:
        body = {"inputs": normals(2).tolist(), "num_samples": 2}
        for _ in range(3):  # each gives its place back
            assert client.post("/v1/models/animals/predict", json=body).status_code == 200
        assert client.post("/v1/models/animals/predict", json={"inputs": []}).status_code == 422
        assert client.get("/broken").status_code == 500
        predicted(client, normals(2))


def test_no_key_reaches_a_log_or_an_error(
    locked: Locked, capfd: pytest.CaptureFixture[str]
) -> None:
    told = [locked.ask(key, "GET", "/broken").text for key in locked.keys if key != "slow"]
    wrong = {"Authorization": "Bearer a-wrong-key"}
    told.append(httpx.get(f"{locked.server.url}/v1/models", headers=wrong).text)
    told.append(locked.ask("predict", "DELETE", "/v1/models/animals/versions/1").text)
    logged = "".join(capfd.readouterr())
    assert "a bug beside a key" in logged
    for key in (*locked.keys.values(), "a-wrong-key"):
        assert key not in logged
        assert not [text for text in told if key in text]


def test_the_database_holds_no_key(locked: Locked) -> None:
    folder = locked.server.settings.data_dir
    content = b"".join(path.read_bytes() for path in folder.glob("dubito.sqlite3*"))
    assert b"restricted" in content
    for key in locked.keys.values():
        assert key.encode() not in content
