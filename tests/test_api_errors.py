"""Every bad request has its documented status and a message, and the next good one succeeds."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from contextlib import closing

import httpx
import numpy as np
import pytest

from dubito.application import Application
from dubito.settings import Settings

from .conftest import NUM_FEATURES, Bundles, Server
from .http import npy, upload

PREDICT = "/v1/models/animals/predict"
GOOD = {"inputs": [[0.1, 0.2, 0.3, 0.4]]}
JSON = {"Content-Type": "application/json"}
FIELDS = {"type", "title", "status", "detail", "error", "request_id"}


def _check(reply: httpx.Response, status: int, *words: str) -> None:
    """The one error body, with every word in its detail."""
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert set(body) - {"fields"} == FIELDS
    assert body["status"] == status
    assert body["error"] == body["detail"]
    assert body["request_id"] == reply.headers["X-Request-Id"]
    assert reply.headers["Content-Type"] == "application/json"
    for word in words:
        assert word in body["detail"], body["detail"]


def _check_next(client: httpx.Client) -> None:
    assert client.post(PREDICT, json=GOOD).status_code == 200


Fields = dict[str, object]
ENSEMBLE = {**GOOD, "method": "ensemble"}
BAD_FIELDS: dict[str, tuple[Fields, list[str]]] = {
    "a wrong shape": ({"inputs": [[1, 2, 3]]}, ["4", "3"]),
    "ragged rows": ({"inputs": [[1, 2, 3, 4], [1, 2]]}, []),
    "text for numbers": ({"inputs": [["a", "b", "c", "d"]]}, []),
    "no rows": ({"inputs": []}, []),
    "inputs null": ({"inputs": None}, []),
    "inputs a number": ({"inputs": 3}, []),
    "too large a number": ({"inputs": [[1e39, 0, 0, 0]]}, []),
    "no inputs": ({}, ["`inputs`"]),
    "an unknown input": ({"inputs": {"nobody": [[1, 2, 3, 4]]}}, ["nobody"]),
    "no samples": ({**GOOD, "num_samples": 0}, ["at least 2", "got 0"]),
    "one sample": ({**GOOD, "num_samples": 1}, ["at least 2", "got 1"]),
    "a billion samples": ({**GOOD, "num_samples": 10**9}, ["at most 10000", "got 1000000000"]),
    "a negative seed": ({**GOOD, "seed": -1}, ["[0, 2**63)"]),
    "a seed too large": ({**GOOD, "seed": 2**63}, ["[0, 2**63)"]),
    "text for a count": ({**GOOD, "num_samples": "64"}, ["`num_samples`"]),
    "a fraction for a count": ({**GOOD, "num_samples": 3.5}, ["`num_samples`"]),
    "true for a count": ({**GOOD, "num_samples": True}, ["`num_samples`"]),
    "unknown masks": ({**GOOD, "masks": "none"}, ["`masks`", "shared"]),
    "an unknown field": ({**GOOD, "samples": 3}, ["`samples`", "unknown field"]),
    "a mistyped field": ({"input": GOOD["inputs"]}, ["`input`", "write `inputs`"]),
    "an unknown output": ({**GOOD, "outputs": ["bald"]}, ["bald", "predictive_entropy"]),
    "no outputs": ({**GOOD, "outputs": []}, ["predictive_entropy"]),
    "a format without a pool": ({**GOOD, "format": "parquet"}, ["`format`", "Accept"]),
    "a coverage of 1": ({**GOOD, "coverage": 1.0}, ["`coverage`", "between 0 and 1"]),
    "an unknown calibration": ({**GOOD, "calibration": "best"}, ["`calibration`"]),
    "a tolerance of 0": ({**GOOD, "tolerance": 0.0}, ["`tolerance`", "above 0"]),
    "a tolerance below 0": ({**GOOD, "tolerance": -1}, ["`tolerance`", "above 0"]),
    "a tolerance without samples": (
        {**GOOD, "tolerance": 0.01, "method": "point"},
        ["`tolerance`", "`mc`"],
    ),
    "a tolerance and all samples": (
        {**GOOD, "tolerance": 0.01, "outputs": ["samples"]},
        ["`tolerance`", "different numbers"],
    ),
    "members of no ensemble": ({**GOOD, "members": [1, 2]}, ["`members`", "`ensemble`", "`mc`"]),
    "an ensemble of none": ({**GOOD, "method": "ensemble"}, ["`members`", "got method"]),
    "an ensemble of one": ({**ENSEMBLE, "members": [1]}, ["`members`", "2 to 16", "got 1"]),
    "an ensemble of too many": ({**ENSEMBLE, "members": [1] * 10_000}, ["2 to 16", "got 10000"]),
    "a member twice": ({**ENSEMBLE, "members": [1, "default"]}, ["different versions", "got 1"]),
    "members of no name": ({**ENSEMBLE, "members": [1.5]}, ["`members"]),
    "samples of moments": (
        {**GOOD, "method": "moments", "outputs": ["samples"]},
        ["`moments`", "`samples`", "`mc`"],
    ),
    "samples beyond the bound": ({**GOOD, "outputs": ["samples"], "num_samples": 10_000}, ["1000"]),
}


@pytest.fixture(scope="module")
def shared_settings(shared_settings: Settings) -> Settings:
    return shared_settings.model_copy(update={"max_sample_values": 1000})


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_bad_field_is_refused_by_name(shared: httpx.Client, name: str) -> None:
    body, words = BAD_FIELDS[name]
    _check(shared.post(PREDICT, json=body), 422, *words)
    _check_next(shared)


BAD_JSON = [
    b"",
    b"{",
    b'{"inputs": [[NaN, 0, 0, 0]]}',
    b'{"inputs": [[Infinity, 0, 0, 0]]}',
    b'{"inputs": [[1e999, 0, 0, 0]]}',
    b"[]",
    b"null",
    b'{"inputs": "\xff"}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("body", BAD_JSON)
def test_broken_json_is_refused(shared: httpx.Client, body: bytes) -> None:
    _check(shared.post(PREDICT, content=body, headers=JSON), 422)
    _check_next(shared)


def test_single_fields_are_named_with_their_paths(shared: httpx.Client) -> None:
    reply = shared.post(PREDICT, json={**GOOD, "seed": "x", "nonsense": 1, "outputs": [3]})
    assert {field["path"] for field in reply.json()["fields"]} == {"seed", "nonsense", "outputs.0"}


@pytest.mark.parametrize(
    "body",
    [
        {**GOOD, "outputs": [1] * 100_000},
        {**GOOD, **{f"field{position}": 1 for position in range(100_000)}},
        {**GOOD, "x" * 1_000_000: 1},
        {"inputs": [[]] * 1_000_000},
    ],
    ids=["wrong outputs", "unknown fields", "a long name", "empty rows"],
)
def test_a_body_that_is_wrong_in_many_places_gets_a_short_answer(
    shared: httpx.Client, body: dict[str, object]
) -> None:
    reply = shared.post(PREDICT, json=body)
    _check(reply, 422)
    assert len(reply.content) < 10_000
    _check_next(shared)


def test_a_row_that_overflows_gets_no_class_no_set_no_flag_and_no_decision(
    ready: httpx.Client,
) -> None:
    rows = np.random.default_rng(0).normal(size=(120, NUM_FEATURES)).tolist()
    held_out = {"inputs": rows, "labels": [0, 1, 2] * 40, "alpha": 0.1}
    ready.post("/v1/models/animals/calibrate", json=held_out).raise_for_status()
    names = ["label", "variation_ratio", "prediction_set", "decision", "ood"]
    body = {"inputs": [[3e38] * 4, [0.0] * 4], "outputs": names}
    reply = ready.post(PREDICT, json=body).json()
    columns = {**reply["outputs"].pop("ood"), **reply["outputs"]}
    for name, column in columns.items():
        assert [value is None for value in column] == [True, False], name
    assert len(columns) == 7
    (warning,) = reply["warnings"]
    assert "`prediction_set`, `decision`, `ood`: null in 1 rows" in warning
    packed = ready.post(PREDICT, json=body, headers={"Accept": "application/x-npz"})
    assert packed.status_code == 200, packed.text
    arrays = np.load(io.BytesIO(packed.content))
    assert [arrays[name][0] for name in ("label", "decision")] == ["", ""]
    assert not arrays["prediction_set"][0].any()
    assert np.isnan(arrays["ood.p_value"][0])


def test_what_a_killed_upload_left_is_removed_at_the_next_start(settings: Settings) -> None:
    settings.incoming_dir.mkdir(parents=True)
    old, young = (settings.incoming_dir / name for name in ("old.dubito", "young.dubito"))
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (0, 0))
    with Application(settings).running():
        assert not old.exists()
        assert young.exists()


@pytest.mark.parametrize(
    "kind", ["text/html", "application/octet-stream", "application/x-pickle", "json", None]
)
def test_a_content_type_that_is_not_read_is_refused(shared: httpx.Client, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    reply = shared.post(PREDICT, content=b"{}", headers=headers)
    _check(reply, 415, "application/json", f"got {kind or 'none'}: ")
    _check_next(shared)


def test_a_body_in_another_encoding_is_refused(shared: httpx.Client) -> None:
    for name in ("br", "deflate", "gzip, gzip"):
        headers = {**JSON, "Content-Encoding": name}
        reply = shared.post(PREDICT, content=b"{}", headers=headers)
        _check(reply, 415, "expected gzip, zstd or none", name)


def test_a_json_request_takes_no_query(shared: httpx.Client) -> None:
    _check(shared.post(f"{PREDICT}?seed=3", json=GOOD), 422, "query.seed")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/models/nobody/predict", 404),
        ("POST", "/v1/models/animals/versions/9/predict", 404),
        ("POST", "/v1/models/animals/versions/nobody/predict", 404),
        ("GET", "/v1/models/nobody", 404),
        ("GET", "/v1/models/..%2f..%2fetc", 404),
        ("GET", "/v1/models/animals/versions/2", 404),
        ("GET", "/v1/models/animals/versions/nobody/calibration", 404),
        ("GET", "/v1/models/", 404),
        ("GET", "/v1/keys", 404),
        ("POST", "/v1/models/animals/train", 404),
        ("GET", PREDICT, 405),
        ("DELETE", "/v1/models", 405),
    ],
)
def test_what_does_not_exist_has_the_one_error_body(
    shared: httpx.Client, method: str, path: str, status: int
) -> None:
    body = GOOD if method == "POST" else None
    _check(shared.request(method, path, json=body), status)
    _check_next(shared)


def test_a_method_that_is_not_allowed_names_those_that_are(shared: httpx.Client) -> None:
    reply = shared.get(PREDICT)
    assert reply.headers["Allow"] == "POST"
    _check(reply, 405, f"{PREDICT}: expected POST, got GET")
    _check(shared.get("/v1/modles"), 404, "'/v1/modles'")


@pytest.mark.parametrize("text", ["0", "-1", "soon", "1e9", "999999999999", "9" * 5000, "\u00b2"])
def test_a_timeout_that_is_none_is_refused(shared: httpx.Client, text: str) -> None:
    reply = shared.post(
        PREDICT, json=GOOD, headers={b"X-Request-Timeout-Ms": text.encode("latin-1")}
    )
    _check(reply, 422, "X-Request-Timeout-Ms", "correct it")
    _check_next(shared)


def test_a_site_of_thousands_of_digits_names_none(shared: httpx.Client) -> None:
    headers = {"Content-Type": "application/x-npy"}
    reply = shared.post(
        f"{PREDICT}?sites={'9' * 5000}", content=npy(np.zeros((1, 4), np.float32)), headers=headers
    )
    assert reply.status_code == 422
    _check_next(shared)


def _small(serve: Callable[[Settings], Server], settings: Settings, **bounds: int) -> httpx.Client:
    server = serve(settings.model_copy(update=bounds))
    return httpx.Client(base_url=server.url, timeout=60)


def test_a_body_over_the_limit_is_refused_whether_it_says_its_length_or_not(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    with _small(serve, settings, max_body_bytes=1000) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        body = b" " * 2000
        remedy = ".npy", "DUBITO_MAX_BODY_BYTES"
        _check(client.post(PREDICT, content=body, headers=JSON), 413, "1000", "2000", *remedy)
        _check(client.post(PREDICT, content=iter([body]), headers=JSON), 413, "1000")
        _check_next(client)


def test_an_archive_that_swells_is_refused(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, inputs=np.zeros((100_000, 4), np.float32))
    headers = {"Content-Type": "application/x-npz"}
    with _small(serve, settings, max_body_bytes=100_000) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        assert len(file.getvalue()) < 100_000
        _check(client.post(PREDICT, content=file.getvalue(), headers=headers), 413, "decompressed")
        _check_next(client)


def test_too_many_rows_are_refused(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    with _small(serve, settings, max_rows=3) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        rows = {"inputs": [[0, 0, 0, 0]] * 4}
        _check(client.post(PREDICT, json=rows), 422, "at most 3 rows", "got 4")
        _check_next(client)


def _lying_npy() -> bytes:
    """A header that promises 2**62 bytes."""
    good = npy(np.zeros((8, 4), np.float32))
    return good.replace(b"(8, 4), }                ", b"(1152921504606846976, 4),}")


BAD_ARRAYS = {
    "empty": b"",
    "text": b"hello",
    "truncated": npy(np.zeros((3, 4), np.float32))[:-5],
    "objects": npy(np.array([{"a": 1}], dtype=object), allow_pickle=True),
    "a lying header": _lying_npy(),
    "a broken header": npy(np.zeros((2, 4), np.float32)).replace(b"}", b"("),
    "complex": npy(np.zeros((2, 4), np.complex64)),
    "nan": npy(np.full((2, 4), np.nan, np.float32)),
    "shape": npy(np.zeros((2, 5), np.float32)),
    "no rows": npy(np.zeros((0, 4), np.float32)),
    "no axis": npy(np.float32(3)),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_a_bad_array_is_refused(shared: httpx.Client, name: str) -> None:
    headers = {"Content-Type": "application/x-npy"}
    _check(shared.post(PREDICT, content=BAD_ARRAYS[name], headers=headers), 422)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inputs.npy", BAD_ARRAYS[name])
    headers = {"Content-Type": "application/x-npz"}
    _check(shared.post(PREDICT, content=file.getvalue(), headers=headers), 422)
    _check_next(shared)


def test_a_damaged_archive_is_refused(shared: httpx.Client) -> None:
    file = io.BytesIO()
    np.savez(file, inputs=np.zeros((1, 4), np.float32))
    headers = {"Content-Type": "application/x-npz"}
    for body in (file.getvalue()[10:], file.getvalue()[:-10], b"PK\x05\x06", b""):
        _check(shared.post(PREDICT, content=body, headers=headers), 422, "npz")
    _check_next(shared)


def test_an_array_that_another_would_hide_is_refused(shared: httpx.Client) -> None:
    headers = {"Content-Type": "application/x-npz"}
    for names, told in (
        (("inputs.npy", "inputs", "labels.npy"), "a name twice"),
        (("inputs.npy", "inputs.mask.npy", "labels.npy"), "got both"),
        (("inputs.mask.npy", "inputs.npy", "labels.npy"), "got both"),
    ):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(name, npy(np.zeros((1, 4), np.float32)))
        reply = shared.post("/v1/models/animals/evaluate", content=file.getvalue(), headers=headers)
        _check(reply, 422, told)


def test_a_bad_query_of_a_binary_body_is_refused(shared: httpx.Client) -> None:
    headers = {"Content-Type": "application/x-npy"}
    body = npy(np.zeros((1, 4), np.float32))
    for query in ("seed=x", "nonsense=1", "seed=1&seed=2", "num_samples=1"):
        _check(shared.post(f"{PREDICT}?{query}", content=body, headers=headers), 422)
    _check_next(shared)


CALIBRATE: dict[str, tuple[Fields, str]] = {
    "no truths": ({}, "`labels`"),
    "both truths": ({"labels": [0], "targets": [0.0]}, "`labels`"),
    "an unknown class": ({"labels": ["dog"]}, "'dog'"),
    "a class index too large": ({"labels": [3]}, "0 to 2"),
    "too few labels": ({"labels": []}, "`labels`"),
    "too few rows": ({"labels": [1]}, "at least"),
    "an alpha of 0": ({"labels": [1], "alpha": 0}, "`alpha`"),
    "noise": ({"labels": [1], "noise_precision": 1.0}, "`noise_precision`"),
    "alpha": ({"labels": [1], "alpha": 1.5}, "such as 0.1"),
    "tolerance": ({"labels": [1], "tolerance": 0.1}, "predict with the same num_samples and no"),
    "an alpha that no rows meet": ({"labels": [1], "alpha": 1e-300}, "ask for a higher one"),
    "a coverage that no rows meet": ({"labels": [1], "coverage": 1 - 1e-16}, "ask for a lower"),
    "an unknown field": ({"labels": [1], "score": "energy"}, "`score`"),
    "strange rows of another shape": ({"labels": [1], "ood_inputs": [[1]]}, "4"),
}


@pytest.mark.parametrize("name", CALIBRATE)
def test_a_bad_calibration_is_refused_and_stores_nothing(shared: httpx.Client, name: str) -> None:
    fields, word = CALIBRATE[name]
    _check(shared.post("/v1/models/animals/calibrate", json={**GOOD, **fields}), 422, word)
    assert shared.get("/v1/models/animals/calibration").json()["calibration"] is None
    _check_next(shared)


@pytest.mark.parametrize("targets", [[[1.0, 2.0]], [[1.0], [2.0, 3.0]], ["high"], [None], 3])
def test_bad_targets_are_refused(client: httpx.Client, bundles: Bundles, targets: object) -> None:
    upload(client, "heights", bundles("regression")).raise_for_status()
    body = {**GOOD, "targets": targets}
    _check(client.post("/v1/models/heights/calibrate", json=body), 422, "`targets`")


def test_the_unforeseen_is_told_without_details(ready: httpx.Client, settings: Settings) -> None:
    with closing(sqlite3.connect(settings.data_dir / "dubito.sqlite3")) as database, database:
        database.execute("UPDATE versions SET defaults = '{\"unheard_of\": 1}'")
    reply = ready.post(PREDICT, json=GOOD)
    _check(reply, 500)
    assert reply.json()["detail"] == "internal error"
    assert ready.get("/v1/models").status_code == 200


def test_a_callers_request_id_is_kept_if_it_is_a_plain_one(shared: httpx.Client) -> None:
    reply = shared.post(PREDICT, json=GOOD, headers={"X-Request-Id": "order-7.a"})
    assert reply.json()["request_id"] == reply.headers["X-Request-Id"] == "order-7.a"
    reply = shared.post(PREDICT, json=GOOD, headers={"X-Request-Id": "a b<script>"})
    assert "script" not in reply.headers["X-Request-Id"]


def test_a_refusal_reaches_a_client_that_is_still_sending(shared: httpx.Client) -> None:
    url, body = str(shared.base_url.join("/v1/models/animals/predict")), b"0" * 12_000_000
    for kind, status in (("text/plain", 415), ("text/plain", 415), ("application/json", 422)):
        asked = urllib.request.Request(url, body, {"Content-Type": kind})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asked, timeout=60)
        assert refused.value.code == status
        assert json.load(refused.value)["request_id"]
        refused.value.close()
