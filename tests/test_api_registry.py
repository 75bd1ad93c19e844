"""Models, uploads, aliases, deletion and health over HTTP."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from dubito.settings import Settings

from .conftest import Bundles, Server
from .http import upload

VERSIONS = "/v1/models/animals/versions"
OCTETS = {"Content-Type": "application/octet-stream"}
GOOD = {"inputs": [[0.1, 0.2, 0.3, 0.4]]}


def test_an_upload_makes_the_model_and_its_alias(client: httpx.Client, bundles: Bundles) -> None:
    assert client.get("/v1/models").json() == {"models": []}
    reply = upload(client, "animals", bundles("first"))
    assert reply.status_code == 201
    assert reply.json() == {"model": "animals", "version": 1}
    assert reply.headers["Location"] == f"{VERSIONS}/1"
    page = client.get("/v1/models/animals").json()
    assert client.get("/v1/models").json() == {"models": [page]}
    assert page["aliases"] == {"default": {"version": 1, "revision": 1}}
    assert page["versions"][0]["state"] == "available"
    client.post("/v1/models/animals/predict", json=GOOD).raise_for_status()
    assert client.get("/v1/models/animals").json()["versions"][0]["state"] == "loaded"


def test_a_versions_page_shows_manifest_sites_defaults_and_calibration(
    ready: httpx.Client, bundles: Bundles
) -> None:
    page = ready.get(f"{VERSIONS}/1").json()
    assert page == ready.get(f"{VERSIONS}/default").json()
    assert page["digest"] == hashlib.sha256(bundles("first").read_bytes()).hexdigest()
    assert page["sites"][0]["drop_prob"] == pytest.approx(0.3)
    assert page["sites"][0]["module_path"] == "2"
    assert page["manifest"]["classes"] == ["ant", "bee", "cat"]
    assert page["notes"] == "made for a test"
    assert page["defaults"]["num_samples"] == 16
    assert page["active_calibration"] is None
    assert page["calibrations"] == []


def test_an_upload_is_checked_against_the_digest_that_the_caller_names(
    client: httpx.Client, bundles: Bundles
) -> None:
    body = bundles("first").read_bytes()
    digest = hashlib.sha256(body).hexdigest()
    for wrong, status in (("0" * 64, 422), ("abc", 422), (digest.upper(), 201)):
        reply = client.post(f"{VERSIONS}?sha256={wrong}", content=body, headers=OCTETS)
        assert reply.status_code == status, reply.text


def _zip(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"{}")
    return file.getvalue()


def _with_operator(bundle: bytes, old: bytes, new: bytes) -> bytes:
    """The bundle with another operator in its graphs, digests of the manifest left as they were."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bundle)) as source, zipfile.ZipFile(file, "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry).replace(old, new))
    return file.getvalue()


@pytest.mark.parametrize("name", ["empty", "truncated", "no zip", "dot dot", "operator"])
def test_a_bad_bundle_is_refused_and_nothing_is_stored(
    ready: httpx.Client, settings: Settings, bundles: Bundles, name: str
) -> None:
    good = bundles("second").read_bytes()
    body = {
        "empty": b"",
        "truncated": good[: len(good) // 2],
        "no zip": b"PK nothing",
        "dot dot": _zip("../../evil"),
        "operator": _with_operator(good, b"aten.relu.default", b"aten.from_file.default"),
    }[name]
    stored = sorted(settings.objects_dir.rglob("*"))
    reply = ready.post(VERSIONS, content=body, headers=OCTETS)
    assert reply.status_code == 422, reply.text
    assert reply.json()["type"] == "urn:dubito:error:bundle"
    assert sorted(settings.objects_dir.rglob("*")) == stored
    assert list(settings.incoming_dir.iterdir()) == []
    assert len(ready.get("/v1/models/animals").json()["versions"]) == 1
    assert upload(ready, "animals", bundles("second")).json()["version"] == 2


def test_an_upload_needs_its_content_type_a_name_and_a_size_in_bounds(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    server = serve(settings.model_copy(update={"max_bundle_bytes": 100}))
    with httpx.Client(base_url=server.url) as client:
        assert upload(client, "animals", bundles("first")).status_code == 413
        assert upload(client, "Animals", bundles("first")).status_code == 422
        assert client.post(VERSIONS, content=b"x").status_code == 415
        assert client.get("/v1/models").json() == {"models": []}
        assert list(settings.incoming_dir.iterdir()) == []


def test_uploads_at_once_get_numbers_of_their_own(client: httpx.Client, bundles: Bundles) -> None:
    def send(place: int) -> int:
        number: int = upload(client, "animals", bundles(["first", "second"][place % 2])).json()[
            "version"
        ]
        return number

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(send, range(12))) == list(range(1, 13))


def test_an_alias_moves_under_if_match(ready: httpx.Client, bundles: Bundles) -> None:
    upload(ready, "animals", bundles("second")).raise_for_status()
    path = "/v1/models/animals/aliases/default"
    moved = ready.put(path, json={"version": 2}, headers={"If-Match": '"1"'})
    assert (moved.status_code, moved.headers["ETag"]) == (200, '"2"')
    assert moved.json() == {"model": "animals", "alias": "default", "version": 2, "revision": 2}
    stale = ready.put(path, json={"version": 1}, headers={"If-Match": '"1"'})
    assert stale.status_code == 412
    assert ready.put(path, json={"version": 1}, headers={"If-Match": "x"}).status_code == 412
    assert ready.post("/v1/models/animals/predict", json=GOOD).json()["version"] == 2
    assert ready.put(path, json={"version": 1}, headers={"If-Match": "*"}).status_code == 200
    assert ready.put(path, json={"version": 3}).status_code == 404
    assert ready.put(path, json={"version": "1"}).status_code == 422
    assert ready.put("/v1/models/animals/aliases/7up", json={"version": 1}).status_code == 422
    made = ready.put("/v1/models/animals/aliases/best", json={"version": 2})
    assert made.json()["revision"] == 1


def test_tags_are_compared_as_lists_weakly_where_read_and_strongly_where_changed(
    ready: httpx.Client,
) -> None:
    path, tag = "/v1/models/animals/aliases/default", '"1"'
    held = (tag, f"W/{tag}", f'"0", W/{tag}', "*")
    for one in held:
        reply = ready.get(path, headers={"If-None-Match": one})
        assert (reply.status_code, reply.headers["ETag"], reply.content) == (304, tag, b"")
    assert ready.get(path, headers={"If-None-Match": '"0", "11"'}).status_code == 200
    weak = ready.put(path, json={"version": 1}, headers={"If-Match": f'"0", W/{tag}'})
    assert weak.status_code == 412
    two_lines = [("If-Match", '"0"'), ("If-Match", tag)]
    assert ready.put(path, json={"version": 1}, headers=two_lines).status_code == 200


def test_stars_tell_an_alias_that_exists_from_one_that_does_not(ready: httpx.Client) -> None:
    path, target = "/v1/models/animals/aliases/fresh", {"version": 1}
    only_if_there = {"If-Match": "*"}
    assert ready.put(path, json=target, headers=only_if_there).status_code == 412
    assert ready.delete(path, headers=only_if_there).status_code == 404
    only_if_new = {"If-None-Match": "*"}
    assert ready.put(path, json=target, headers=only_if_new).json()["revision"] == 1
    again = ready.put(path, json=target, headers=only_if_new)
    assert (again.status_code, "If-None-Match" in again.json()["detail"]) == (412, True)
    assert ready.put(path, json=target, headers={"If-None-Match": '"1"'}).status_code == 412
    assert ready.put(path, json=target, headers=only_if_there).json()["revision"] == 2


def test_a_version_is_deleted_unless_an_alias_names_it(
    ready: httpx.Client, bundles: Bundles
) -> None:
    upload(ready, "animals", bundles("second")).raise_for_status()
    assert ready.delete(f"{VERSIONS}/1").status_code == 409
    ready.post(f"{VERSIONS}/2/predict", json=GOOD).raise_for_status()
    gone = ready.delete(f"{VERSIONS}/2")
    assert (gone.status_code, gone.content) == (204, b"")
    assert ready.post(f"{VERSIONS}/2/predict", json=GOOD).status_code == 404
    assert ready.delete(f"{VERSIONS}/2").status_code == 404
    assert upload(ready, "animals", bundles("second")).json()["version"] == 3


def test_what_was_stored_is_there_after_a_restart(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    first = serve(settings)
    with httpx.Client(base_url=first.url) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        before = client.post("/v1/models/animals/predict", json=GOOD).content
    first.stop()
    with httpx.Client(base_url=serve(settings).url) as client:
        assert client.post("/v1/models/animals/predict", json=GOOD).content == before


def test_health_says_live_ready_and_whether_samples_vary(ready: httpx.Client) -> None:
    assert ready.get("/health/live").json() == {"live": True}
    assert ready.get("/health/ready").json()["models"] == []
    ready.post("/v1/models/animals/predict", json=GOOD).raise_for_status()
    reply = ready.get("/health/ready")
    assert reply.status_code == 200
    assert reply.json()["ready"] is True
    assert reply.json()["models"] == [
        {
            "model": "animals",
            "version": 1,
            "state": "loaded",
            "reason": None,
            "pinned": False,
            "samples_vary": True,
            "precision": "float32",
        }
    ]


def test_a_worker_whose_heart_is_old_is_not_live(
    serve: Callable[[Settings], Server], settings: Settings
) -> None:
    server = serve(settings)
    server.app.state.access.application.close()
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/health/live").status_code == 503
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.headers["Retry-After"]) == (503, "5")


ACTIONS = (
    "predict",
    "calibrate",
    "calibration",
    "evaluate",
    "fit",
    "fits",
    "select",
    "feedback",
    "monitoring",
)


def test_openapi_lists_the_paths_and_the_docs_are_there(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    paths = {path for path in paths if not path.startswith("/v2")}  # the Open Inference Protocol's
    one = "/v1/models/{model}/versions/{version}"
    assert set(paths) == {
        "/health/live",
        "/health/ready",
        "/metrics",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/models/{model}/versions",
        "/v1/models/{model}/versions/{version}",
        *(f"{one}/{action}" for action in ("load", "unload", "retire", "restore")),
        "/v1/models/{model}/audit",
        "/v1/models/{model}/aliases/{alias}",
        *(f"{of}/{action}" for action in ACTIONS for of in ("/v1/models/{model}", one)),
        *(f"/v1/jobs{rest}" for rest in ("", "/{job}", "/{job}/events", "/{job}/result")),
        *("/v1/pools", "/v1/pools/{pool}", "/v1/pools/{pool}/rows"),
    }
    assert client.get("/docs").status_code == 200


def test_the_page_of_the_documentation_needs_no_other_server(client: httpx.Client) -> None:
    page = client.get("/docs").text
    fetched = re.findall(r"""(?:src|href)="([^"]+)"|url: '([^']+)'""", page)
    addresses = [one or other for one, other in fetched]
    assert len(addresses) >= 4  # script, style, icon, description
    for address in addresses:
        assert address.startswith("/"), address
        reply = client.get(address)
        assert reply.status_code == 200
        assert len(reply.content) > 100
    assert "http://" not in page
    assert "https://" not in page
