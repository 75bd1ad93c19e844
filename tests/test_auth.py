"""The key of the settings, which opens everything; open addresses need one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from dubito.api import check_bind, create_app
from dubito.errors import InputError
from dubito.registry.database import Database
from dubito.registry.keys import KeyStore
from dubito.settings import Settings

from .conftest import Server

KEY = "a-long-key"


@pytest.fixture
def locked(serve: Callable[[Settings], Server], settings: Settings) -> Iterator[httpx.Client]:
    server = serve(settings.model_copy(update={"api_key": SecretStr(KEY)}))
    with httpx.Client(base_url=server.url) as client:
        yield client


def test_a_key_from_a_file_is_taken_without_its_line_break(settings: Settings) -> None:
    read = Settings(data_dir=settings.data_dir, api_key=SecretStr(f"{KEY}\n"))
    assert read.api_key == SecretStr(KEY)


@pytest.mark.parametrize(
    "header", ["", KEY, f"Basic {KEY}", "Bearer", "Bearer wrong", f"Bearer {KEY}x", "Bearer é"]
)
def test_a_wrong_key_is_refused_with_the_one_body(locked: httpx.Client, header: str) -> None:
    reply = locked.get("/v1/models", headers={b"Authorization": header.encode("latin-1")})
    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert reply.json()["type"] == "urn:dubito:error:unauthorized"
    assert KEY not in reply.text


def test_two_keys_in_one_request_are_refused(locked: httpx.Client) -> None:
    for first, second in ((KEY, "wrong"), ("wrong", KEY)):
        headers = [("Authorization", f"Bearer {first}"), ("Authorization", f"Bearer {second}")]
        reply = locked.get("/v1/models", headers=headers)
        assert (reply.status_code, "expected once" in reply.json()["detail"]) == (422, True)


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


def test_a_key_of_the_database_serves_an_open_address_until_it_is_revoked(tmp_path: Path) -> None:
    settings = Settings(host="0.0.0.0", data_dir=tmp_path)
    with pytest.raises(InputError, match="dubito keys create"):
        check_bind(settings)
    assert not any(tmp_path.iterdir())
    database = Database(settings.registry_url)
    database.prepare()
    store = KeyStore(database)
    store.create("first", "predict")
    check_bind(settings)
    store.revoke("first")
    with pytest.raises(InputError, match="dubito keys create"):
        check_bind(settings)
    database.close()


def test_an_empty_key_is_no_key() -> None:
    with pytest.raises(ValidationError, match="expected a key"):
        Settings(api_key=SecretStr(" "))


def test_the_key_is_never_shown() -> None:
    assert KEY not in repr(Settings(api_key=SecretStr(KEY)))


def test_every_setting_says_what_it_is() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
