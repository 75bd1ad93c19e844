"""The life of a version over HTTP: load, unload, retire, restore, aliases, pins, the audit."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx
import pytest

from dubito.settings import Settings

from .conftest import Bundles, Server
from .http import upload

MODEL = "/v1/models/animals"
GOOD = {"inputs": [[0.1, 0.2, 0.3, 0.4]]}
Serve = Callable[[Settings], Server]


@pytest.fixture
def two(ready: httpx.Client, bundles: Bundles) -> httpx.Client:
    """A client of a server whose model has two versions."""
    upload(ready, "animals", bundles("second")).raise_for_status()
    return ready


def _states(client: httpx.Client) -> list[str]:
    return [version["state"] for version in client.get(MODEL).json()["versions"]]


def test_a_version_is_loaded_and_unloaded_by_request(two: httpx.Client) -> None:
    assert _states(two) == ["available", "available"]
    page = two.post(f"{MODEL}/versions/2/load")
    assert (page.status_code, page.json()["state"], page.json()["reason"]) == (200, "loaded", None)
    assert _states(two) == ["available", "loaded"]
    assert two.get("/health/ready").json()["models"][0]["version"] == 2
    assert two.post(f"{MODEL}/versions/2/unload").json()["state"] == "available"
    assert two.post(f"{MODEL}/versions/2/unload").status_code == 200
    assert two.post(f"{MODEL}/versions/2/predict", json=GOOD).status_code == 200
    assert _states(two) == ["available", "loaded"]
    for action in ("load", "unload", "restore"):
        assert two.post(f"{MODEL}/versions/9/{action}").status_code == 404
        assert two.post(f"/v1/models/nobody/versions/1/{action}").status_code == 404


def test_a_version_that_cannot_be_loaded_says_why_and_leaves_the_old_one_serving(
    two: httpx.Client, settings: Settings
) -> None:
    before = two.post(f"{MODEL}/predict", json=GOOD).json()
    digest = two.get(f"{MODEL}/versions/2").json()["digest"]
    (path,) = settings.objects_dir.rglob(f"{digest}.dubito")
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    failed = two.put(f"{MODEL}/aliases/default", json={"version": 2})
    assert failed.status_code == 503
    page = two.get(f"{MODEL}/versions/2").json()
    assert (page["state"], "damaged" in page["reason"]) == ("failed", True)
    assert two.get(f"{MODEL}/aliases/default").json()["version"] == 1
    assert two.post(f"{MODEL}/predict", json=GOOD).json() == before
    path.write_bytes(content)
    assert two.put(f"{MODEL}/aliases/default", json={"version": 2}).status_code == 200
    assert two.get(f"{MODEL}/versions/2").json()["state"] == "loaded"


def test_an_alias_move_loads_the_version_before_it_is_seen(two: httpx.Client) -> None:
    two.put(f"{MODEL}/aliases/default", json={"version": 2}).raise_for_status()
    assert _states(two) == ["available", "loaded"]


def test_an_alias_is_read_with_its_etag_and_deleted_under_if_match(two: httpx.Client) -> None:
    path = f"{MODEL}/aliases/best"
    assert two.get(path).status_code == 404
    two.put(path, json={"version": 2}).raise_for_status()
    two.put(path, json={"version": 1}).raise_for_status()
    shown = two.get(path)
    assert shown.json() == {"model": "animals", "alias": "best", "version": 1, "revision": 2}
    assert shown.headers["ETag"] == '"2"'
    assert two.delete(path, headers={"If-Match": '"1"'}).status_code == 412
    assert two.delete(path, headers={"If-Match": shown.headers["ETag"]}).status_code == 204
    assert two.delete(path).status_code == 404
    refused = two.delete(f"{MODEL}/aliases/default")
    assert (refused.status_code, "move it instead" in refused.json()["detail"]) == (409, True)


def test_a_retired_version_answers_409_with_the_reason_until_it_is_restored(
    two: httpx.Client,
) -> None:
    path = f"{MODEL}/versions/2"
    two.post(f"{path}/load").raise_for_status()
    assert two.post(f"{MODEL}/versions/1/retire", json={"reason": "x"}).status_code == 409
    page = two.post(f"{path}/retire", json={"reason": "leaks the labels"}).json()
    assert (page["state"], page["reason"]) == ("retired", "leaks the labels")
    assert two.get("/health/ready").json()["models"] == []
    labelled = {"inputs": [[0.0] * 4] * 60, "labels": [0] * 60}
    for refused in (
        two.post(f"{path}/predict", json=GOOD),
        two.post(f"{path}/calibrate", json=labelled),
        two.post(f"{path}/load"),
        two.put(f"{MODEL}/aliases/default", json={"version": 2}),
    ):
        assert refused.status_code == 409
        assert "leaks the labels" in refused.json()["detail"]
    assert two.post(f"{path}/restore").json()["state"] == "available"
    assert two.post(f"{path}/predict", json=GOOD).status_code == 200


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": 3}, {"reason": "x" * 501}])
def test_a_retirement_needs_a_reason(two: httpx.Client, body: dict[str, object]) -> None:
    assert two.post(f"{MODEL}/versions/2/retire", json=body).status_code == 422
    assert _states(two) == ["available", "available"]


def test_provenance_is_on_the_page_and_changes_in_the_audit(
    serve: Serve, settings: Settings, bundles: Bundles
) -> None:
    locked = Settings.model_validate({**settings.model_dump(), "api_key": "secret"})
    with httpx.Client(
        base_url=serve(locked).url, headers={"Authorization": "Bearer secret"}, timeout=60
    ) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        client.put(f"{MODEL}/aliases/best", json={"version": 1}).raise_for_status()
        page = client.get(f"{MODEL}/versions/1").json()
        assert page["uploader"] == "key"
        assert page["torch_version"].startswith("2.")
        changes = client.get(f"{MODEL}/audit").json()["changes"]
        assert [(change["action"], change["actor"]) for change in changes] == [
            ("alias", "key"),
            ("upload", "key"),
        ]
        assert changes[1]["details"] == {"digest": page["digest"]}
        assert client.get("/v1/models/nobody/audit").status_code == 404


def _until_ready(client: httpx.Client, is_ready: bool) -> dict[str, object]:
    """The page of health once it says so; every look is a request of its own."""
    deadline = time.monotonic() + 30
    while True:
        reply = client.get("/health/ready")
        page: dict[str, object] = reply.json()
        if page["ready"] == is_ready:
            assert reply.status_code == (200 if is_ready else 503)
            return page
        assert time.monotonic() < deadline, page


def test_the_server_is_ready_when_what_is_pinned_is_loaded(
    serve: Serve, settings: Settings, bundles: Bundles
) -> None:
    pinned = settings.model_copy(
        update={"pinned_models": ("animals",), "poll_ms": 10, "max_loaded_versions": 2}
    )
    with httpx.Client(base_url=serve(pinned).url, timeout=60) as client:
        page = _until_ready(client, False)
        line = page["models"][0]  # type: ignore[index]
        assert (line["model"], line["version"], line["state"]) == ("animals", None, "missing")
        assert "no model 'animals'" in line["reason"]
        upload(client, "animals", bundles("first")).raise_for_status()
        page = _until_ready(client, True)
        assert [line["state"] for line in page["models"]] == ["loaded"]  # type: ignore[attr-defined]
        refused = client.post(f"{MODEL}/versions/1/unload")
        assert (refused.status_code, "pinned" in refused.json()["detail"]) == (409, True)
        for name in ("second", "regression"):
            upload(client, "others", bundles(name)).raise_for_status()
        for number in (1, 2):
            client.post(f"/v1/models/others/versions/{number}/predict", json=GOOD)
        states = client.get("/v1/models/others").json()["versions"]
        assert [version["state"] for version in states] == ["available", "loaded"]
        assert client.get("/health/ready").json()["ready"] is True
        upload(client, "animals", bundles("second")).raise_for_status()
        client.put(f"{MODEL}/aliases/default", json={"version": 2}).raise_for_status()
        page = _until_ready(client, True)
        assert _states(client)[1] == "loaded"
