"""The key: asked on every route but health; open addresses need one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest
from pydantic import SecretStr, ValidationError
from starlette.routing import BaseRoute

from dubito.api import check_bind, create_app
from dubito.errors import InputError
from dubito.settings import Settings

from .conftest import Server

KEY = "a-long-key"
HEALTH = {"/health/live", "/health/ready"}
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")


@pytest.fixture
def locked(serve: Callable[[Settings], Server], settings: Settings) -> Iterator[httpx.Client]:
    server = serve(settings.model_copy(update={"api_key": SecretStr(KEY)}))
    with httpx.Client(base_url=server.url) as client:
        yield client


def _paths(routes: list[BaseRoute]) -> set[str]:
    return {getattr(route, "path") for route in routes if hasattr(route, "path")}  # noqa: B009


def test_a_key_from_a_file_is_taken_without_its_line_break(settings: Settings) -> None:
    read = Settings(data_dir=settings.data_dir, api_key=SecretStr(f"{KEY}\n"))
    assert read.api_key == SecretStr(KEY)


def test_every_route_but_health_asks_for_the_key(locked: httpx.Client, settings: Settings) -> None:
    app = create_app(settings)
    documented = set(app.openapi()["paths"])
    paths = _paths(list(app.routes)) | documented | {"/", "/nobody", "/metrics", "/v1/jobs"}
    assert paths > HEALTH
    assert {"/docs", "/openapi.json"} < paths
    for path in sorted(paths):
        filled = path.replace("{model}", "animals").replace("{version}", "1")
        for method in METHODS:
            status = locked.request(method, filled).status_code
            if path in HEALTH:
                assert status != 401, (method, path)
            else:
                assert status == 401, (method, path)


@pytest.mark.parametrize(
    "header", ["", KEY, f"Basic {KEY}", "Bearer", "Bearer wrong", f"Bearer {KEY}x", "Bearer é"]
)
def test_a_wrong_key_is_refused_with_the_one_body(locked: httpx.Client, header: str) -> None:
    reply = locked.get("/v1/models", headers={b"Authorization": header.encode("latin-1")})
    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert reply.json()["type"] == "urn:dubito:error:unauthorized"
    assert KEY not in reply.text


def test_the_right_key_opens_and_health_needs_none(locked: httpx.Client) -> None:
    for scheme in ("Bearer", "bearer"):
        headers = {"Authorization": f"{scheme} {KEY}"}
        assert locked.get("/v1/models", headers=headers).status_code == 200
    assert locked.get("/health/live").status_code == 200
    assert locked.get("/health/ready").status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    check_bind(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", ""])
def test_an_open_address_needs_a_key_or_a_plain_word(host: str) -> None:
    with pytest.raises(InputError, match="DUBITO_API_KEY"):
        check_bind(Settings(host=host))
    with pytest.raises(InputError, match="--insecure"):
        create_app(Settings(host=host))
    check_bind(Settings(host=host, insecure=True))
    check_bind(Settings(host=host, api_key=SecretStr(KEY)))


def test_an_empty_key_is_no_key() -> None:
    with pytest.raises(ValidationError, match="expected a key"):
        Settings(api_key=SecretStr(" "))


def test_the_key_is_never_shown() -> None:
    assert KEY not in repr(Settings(api_key=SecretStr(KEY)))


def test_every_setting_says_what_it_is() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
