"""Predictions and calibrations over HTTP: fields, identities, formats, many clients at once."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import log
from typing import Any

import httpx
import numpy as np
import orjson
from numpy.typing import NDArray

from dubito.settings import Settings

from .conftest import CLASSES, NUM_FEATURES, Bundles, Server, upload

PREDICT = "/v1/models/animals/predict"
CLASSIFICATION = {
    "label",
    "mean",
    "variance",
    "standard_error",
    "num_samples_used",
    "predictive_entropy",
    "expected_entropy",
    "mutual_information",
    "mutual_information_corrected",
    "variation_ratio",
    "prediction_set",
    "decision",
    "ood",
}
REGRESSION = {
    "mean",
    "variance",
    "epistemic_variance",
    "aleatoric_variance",
    "standard_error",
    "num_samples_used",
    "quantiles",
    "interval",
    "decision",
    "ood",
}


def _rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, NUM_FEATURES)).astype(np.float32)


def _npz(**arrays: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _npy(array: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _predict(client: httpx.Client, rows: NDArray[np.float32], **fields: Any) -> dict[str, Any]:
    reply = client.post(PREDICT, json={"inputs": rows.tolist(), **fields})
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def _calibrate(client: httpx.Client, count: int = 120) -> httpx.Response:
    labels = np.random.default_rng(5).integers(0, len(CLASSES), count)
    body = {"inputs": _rows(count, seed=3).tolist(), "labels": [CLASSES[i] for i in labels]}
    return client.post("/v1/models/animals/calibrate", json={**body, "alpha": 0.1})


def test_a_reply_has_the_documented_fields_and_nulls_what_no_calibration_covers(
    ready: httpx.Client,
) -> None:
    reply = _predict(ready, _rows(2))
    outputs = reply["outputs"]
    assert isinstance(outputs, dict)
    head = {name: value for name, value in reply.items() if name not in ("outputs", "warnings")}
    head.pop("request_id")
    assert head == {
        "model": "animals",
        "version": 1,
        "num_samples": 16,
        "seed": 0,
        "masks": "shared",
        "draw": "iid",
        "method": "mc",
        "calibration": None,
    }
    assert set(outputs) == CLASSIFICATION
    for name in ("prediction_set", "decision", "ood"):
        assert outputs[name] is None
    assert any("no active calibration" in warning for warning in reply["warnings"])
    assert all(label in CLASSES for label in outputs["label"])
    assert outputs["num_samples_used"] == [16, 16]


def test_the_entropies_add_up_and_stay_within_their_bounds(ready: httpx.Client) -> None:
    outputs = _predict(ready, _rows(32))["outputs"]
    total, expected, mutual = (
        np.array(outputs[name])
        for name in ("predictive_entropy", "expected_entropy", "mutual_information")
    )
    np.testing.assert_allclose(total, expected + mutual, atol=1e-6)
    assert (mutual >= 0).all()
    assert (mutual <= log(len(CLASSES))).all()
    np.testing.assert_allclose(np.sum(outputs["mean"], axis=1), 1, atol=1e-6)
    assert (np.array(outputs["variance"]) > 0).any()


def test_the_same_request_twice_gives_the_same_bytes(ready: httpx.Client) -> None:
    body = {"inputs": _rows(5).tolist(), "num_samples": 8, "seed": 3}
    first, second = (ready.post(PREDICT, json=body) for _ in range(2))
    assert first.content == second.content
    assert first.headers["X-Request-Id"] == first.json()["request_id"]
    assert ready.post(PREDICT, json={**body, "seed": 4}).content != first.content


def test_rows_together_and_alone_get_the_same_answers(ready: httpx.Client) -> None:
    rows = _rows(7)
    together = _predict(ready, rows)["outputs"]
    for place, row in enumerate(rows):
        alone = _predict(ready, row[None])["outputs"]
        for name in ("mean", "variance", "mutual_information", "standard_error"):
            np.testing.assert_allclose(alone[name][0], together[name][place], atol=1e-5)


def test_more_samples_keep_the_masks_of_fewer(ready: httpx.Client) -> None:
    few, many = (
        np.array(
            _predict(ready, _rows(2), num_samples=count, outputs=["samples"])["outputs"]["samples"]
        )
        for count in (8, 16)
    )
    assert few.shape == (2, 8, len(CLASSES))
    np.testing.assert_allclose(many[:, :8], few, atol=1e-6)
    mean = np.array(_predict(ready, _rows(2), outputs=["mean"])["outputs"]["mean"])
    np.testing.assert_allclose(many.mean(axis=1), mean, atol=1e-5)


def test_outputs_restrict_the_reply(ready: httpx.Client) -> None:
    outputs = _predict(ready, _rows(2), outputs=["mean", "predictive_entropy"])["outputs"]
    assert list(outputs) == ["mean", "predictive_entropy"]


def test_a_point_prediction_takes_one_pass(ready: httpx.Client) -> None:
    reply = _predict(ready, _rows(2), method="point", num_samples=1)
    assert (reply["num_samples"], reply["method"]) == (1, "point")
    assert reply["outputs"]["num_samples_used"] == [1, 1]
    assert reply["outputs"]["mutual_information"] == [0.0, 0.0]


def test_independent_masks_are_drawn_on_request(ready: httpx.Client) -> None:
    same = np.repeat(_rows(1), 2, axis=0)
    reply = _predict(ready, same, masks="independent")
    assert reply["masks"] == "independent"
    assert reply["outputs"]["mean"][0] != reply["outputs"]["mean"][1]


def test_binary_bodies_say_the_same_as_json(ready: httpx.Client) -> None:
    rows = _rows(3)
    wanted = _predict(ready, rows, seed=2)["outputs"]
    query = {"seed": "2", "outputs": "mean,label"}
    for kind, body in (
        ("application/x-npy", _npy(rows)),
        ("application/x-npy", _npy(rows.astype(">f4", order="F"))),
        ("application/x-npz", _npz(inputs=rows)),
    ):
        reply = ready.post(PREDICT, content=body, params=query, headers={"Content-Type": kind})
        assert reply.status_code == 200, reply.text
        outputs = reply.json()["outputs"]
        np.testing.assert_allclose(outputs["mean"], wanted["mean"], atol=1e-6)
        assert set(outputs) == {"mean", "label"}


def test_arrays_come_back_where_accept_asks(ready: httpx.Client) -> None:
    body = {"inputs": _rows(3).tolist()}
    wanted = ready.post(PREDICT, json=body).json()
    reply = ready.post(PREDICT, json=body, headers={"Accept": "application/x-npz"})
    assert reply.headers["Content-Type"] == "application/x-npz"
    with np.load(io.BytesIO(reply.content), allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["mean"], wanted["outputs"]["mean"])
        assert arrays["label"].tolist() == wanted["outputs"]["label"]
        assert orjson.loads(arrays["reply"].tobytes())["model"] == "animals"
    one = ready.post(
        PREDICT, json={**body, "outputs": ["mean"]}, headers={"Accept": "application/x-npy"}
    )
    np.testing.assert_array_equal(np.load(io.BytesIO(one.content)), wanted["outputs"]["mean"])


def test_many_clients_at_once_get_their_own_right_answers(ready: httpx.Client) -> None:
    questions = [(_rows(1 + place % 3, seed=place), place % 4) for place in range(24)]
    wanted = [_predict(ready, rows, seed=seed)["outputs"]["mean"] for rows, seed in questions]

    def ask(question: tuple[NDArray[np.float32], int]) -> object:
        rows, seed = question
        with httpx.Client(base_url=ready.base_url, timeout=60) as own:
            return _predict(own, rows, seed=seed)["outputs"]["mean"]

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(ask, questions)) == wanted


def test_two_networks_answer_side_by_side(ready: httpx.Client, bundles: Bundles) -> None:
    upload(ready, "animals", bundles("second")).raise_for_status()
    first, second = (
        ready.post(f"/v1/models/animals/versions/{number}/predict", json={"inputs": [[1, 2, 3, 4]]})
        for number in (1, 2)
    )
    assert (first.json()["version"], second.json()["version"]) == (1, 2)
    assert first.json()["outputs"]["mean"] != second.json()["outputs"]["mean"]


def test_a_calibration_fills_what_was_null(ready: httpx.Client) -> None:
    answer = _calibrate(ready)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {
        "model",
        "version",
        "calibration",
        "num_rows",
        "splits",
        "report",
        "warnings",
    }
    assert answer.json()["calibration"] == 1
    reply = _predict(ready, _rows(4))
    outputs = reply["outputs"]
    assert reply["calibration"] == 1
    assert all(set(names) <= set(CLASSES) for names in outputs["prediction_set"])
    assert set(outputs["ood"]) == {"score", "p_value", "flag"}
    assert all(0 < p <= 1 for p in outputs["ood"]["p_value"])
    assert [p <= 0.1 for p in outputs["ood"]["p_value"]] == outputs["ood"]["flag"]
    assert outputs["decision"] is None
    assert any("selective-risk" in warning for warning in reply["warnings"])


def test_the_temperature_of_the_calibration_is_applied(ready: httpx.Client) -> None:
    raw = _predict(ready, _rows(4))["outputs"]["mean"]
    _calibrate(ready)
    page = ready.get("/v1/models/animals/calibration").json()
    assert page["temperature"] != 1.0
    reply = _predict(ready, _rows(4), outputs=["mean", "samples"])["outputs"]
    assert reply["mean"] != raw
    np.testing.assert_allclose(np.mean(reply["samples"], axis=1), reply["mean"], atol=1e-5)
    assert _predict(ready, _rows(4), calibration="none")["outputs"]["mean"] == raw


def test_a_calibration_does_not_speak_for_other_settings(ready: httpx.Client) -> None:
    _calibrate(ready)
    reply = _predict(ready, _rows(2), seed=9)
    assert reply["calibration"] is None
    assert reply["outputs"]["ood"] is None
    assert any("seed 0 (asked: 9)" in warning for warning in reply["warnings"])


def test_a_wider_coverage_gives_larger_sets(ready: httpx.Client) -> None:
    _calibrate(ready)
    narrow, wide = (
        sum(map(len, _predict(ready, _rows(30), coverage=share)["outputs"]["prediction_set"]))
        for share in (0.4, 0.9)
    )
    assert narrow < wide


def test_one_may_go_back_to_an_earlier_calibration_or_none(ready: httpx.Client) -> None:
    empty = {"model": "animals", "version": 1, "calibration": None}
    assert ready.get("/v1/models/animals/calibration").json() == empty
    for number in (1, 2):
        assert _calibrate(ready).json()["calibration"] == number
    path = "/v1/models/animals/versions/1/calibration"
    assert ready.put(path, json={"active": 1}).json()["calibration"] == 1
    assert _predict(ready, _rows(1))["calibration"] == 1
    assert ready.put(path, json={"active": None}).json() == empty
    assert _predict(ready, _rows(1))["calibration"] is None
    assert ready.put(path, json={"active": 3}).status_code == 404


def test_a_calibration_may_come_as_npz_with_strange_rows(ready: httpx.Client) -> None:
    labels = np.random.default_rng(5).integers(0, len(CLASSES), 120)
    body = _npz(inputs=_rows(120, seed=3), labels=labels, ood_inputs=30 * _rows(20, seed=4))
    reply = ready.post(
        "/v1/models/animals/versions/default/calibrate?alpha=0.1",
        content=body,
        headers={"Content-Type": "application/x-npz"},
    )
    assert reply.status_code == 200, reply.text
    assert "ood_auroc" in reply.json()["report"]["after"]


def test_a_regression_answers_in_target_units(client: httpx.Client, bundles: Bundles) -> None:
    upload(client, "heights", bundles("regression")).raise_for_status()
    rows = _rows(150)
    body = {"inputs": rows.tolist()}
    raw = client.post("/v1/models/heights/predict", json=body).json()["outputs"]
    assert set(raw) == REGRESSION
    assert np.array(raw["mean"]).shape == (150, 1)
    np.testing.assert_allclose(np.mean(raw["mean"]), 10, atol=3)
    parts = np.add(raw["epistemic_variance"], raw["aleatoric_variance"])
    np.testing.assert_allclose(raw["variance"], parts, rtol=1e-9)
    assert raw["interval"] is None
    noise = np.random.default_rng(1).normal(size=(150, 1))
    targets = (np.array(raw["mean"]) + noise).tolist()
    fit = client.post("/v1/models/heights/calibrate", json={**body, "targets": targets})
    assert fit.status_code == 200, fit.text
    reply = client.post("/v1/models/heights/predict", json=body).json()
    lower, upper = (np.array(reply["outputs"]["interval"][end]) for end in ("lower", "upper"))
    inside = (lower <= targets) & (np.array(targets) <= upper)
    assert 0.8 <= inside.mean() <= 1.0
    parts = np.add(reply["outputs"]["epistemic_variance"], reply["outputs"]["aleatoric_variance"])
    np.testing.assert_allclose(reply["outputs"]["variance"], parts, rtol=1e-9)
    assert reply["outputs"]["variance"] != raw["variance"]


def test_an_interval_without_an_end_is_null_and_said(
    client: httpx.Client, bundles: Bundles
) -> None:
    upload(client, "heights", bundles("regression")).raise_for_status()
    rows = _rows(150).tolist()
    targets = np.random.default_rng(1).normal(10, 2, size=150).tolist()
    client.post("/v1/models/heights/calibrate", json={"inputs": rows, "targets": targets})
    reply = client.post(
        "/v1/models/heights/predict", json={"inputs": rows[:1], "coverage": 0.9999}
    ).json()
    assert reply["outputs"]["interval"] == {"lower": [[None]], "upper": [[None]]}
    assert any("too few" in warning for warning in reply["warnings"])


def test_a_deadline_that_passes_is_told_and_the_next_request_is_answered(
    ready: httpx.Client,
) -> None:
    body = {"inputs": _rows(2000).tolist(), "num_samples": 1000}
    late = ready.post(PREDICT, json=body, headers={"X-Request-Timeout-Ms": "1"})
    assert late.status_code == 504
    assert late.json()["type"] == "urn:dubito:error:deadline"
    _predict(ready, _rows(1))


def test_a_queue_that_is_full_says_when_to_come_back(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    server = serve(settings.model_copy(update={"max_queued_work": 64}))
    with httpx.Client(base_url=server.url, timeout=60) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        held = server.app.state.access.application.reserve()
        held.resize(64)
        full = client.post(PREDICT, json={"inputs": [[1, 2, 3, 4]]})
        assert full.status_code == 429
        assert int(full.headers["Retry-After"]) >= 1
        held.release()
        _predict(client, _rows(4))
        too_much = client.post(PREDICT, json={"inputs": _rows(5).tolist()})
        assert too_much.status_code == 422
        assert "at most 64, got 80" in too_much.json()["detail"]
        _predict(client, _rows(4))
