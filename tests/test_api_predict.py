"""Predictions over HTTP: fields, identities, formats, many clients at once."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import log
from pathlib import Path

import httpx
import numpy as np
import orjson
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from dubito.serving.worker import Check
from dubito.settings import Settings
from dubito_nn import export
from dubito_nn.dropout import DropConnect

from .conftest import CLASSES, Bundles, Server
from .http import agree, normals, npy, npz, predicted, upload

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


def test_a_reply_has_the_documented_fields_and_nulls_what_no_calibration_covers(
    shared: httpx.Client,
) -> None:
    reply = predicted(shared, normals(2))
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
        "draw": "stratified",
        "method": "mc",
        "tolerance": None,
        "calibration": None,
    }
    assert set(outputs) == CLASSIFICATION
    for name in ("prediction_set", "decision", "ood"):
        assert outputs[name] is None
    assert any("no active calibration" in warning for warning in reply["warnings"])
    assert all(label in CLASSES for label in outputs["label"])
    assert outputs["num_samples_used"] == [16, 16]


def test_the_entropies_add_up_and_stay_within_their_bounds(shared: httpx.Client) -> None:
    outputs = predicted(shared, normals(32))["outputs"]
    total, expected, mutual = (
        np.array(outputs[name])
        for name in ("predictive_entropy", "expected_entropy", "mutual_information")
    )
    np.testing.assert_allclose(total, expected + mutual, atol=1e-6)
    assert (mutual >= 0).all()
    assert (mutual <= log(len(CLASSES))).all()
    np.testing.assert_allclose(np.sum(outputs["mean"], axis=1), 1, atol=1e-6)
    assert (np.array(outputs["variance"]) > 0).any()


def test_the_same_request_twice_gives_the_same_bytes(shared: httpx.Client) -> None:
    body = {"inputs": normals(5).tolist(), "num_samples": 8, "seed": 3}
    first, second = (shared.post(PREDICT, json=body) for _ in range(2))
    assert first.content == second.content
    assert first.headers["X-Request-Id"] == first.json()["request_id"]
    assert shared.post(PREDICT, json={**body, "seed": 4}).content != first.content


def test_rows_together_and_alone_get_the_same_answers(shared: httpx.Client) -> None:
    rows = normals(7)
    together = predicted(shared, rows)["outputs"]
    for place, row in enumerate(rows):
        alone = predicted(shared, row[None])["outputs"]
        for name in ("mean", "variance", "mutual_information", "standard_error"):
            np.testing.assert_allclose(alone[name][0], together[name][place], atol=1e-5)


def test_more_samples_keep_the_masks_of_fewer(shared: httpx.Client) -> None:
    few, many = (
        np.array(
            predicted(shared, normals(2), num_samples=count, outputs=["samples"])["outputs"][
                "samples"
            ]
        )
        for count in (8, 16)
    )
    assert few.shape == (2, 8, len(CLASSES))
    np.testing.assert_allclose(many[:, :8], few, atol=1e-6)
    mean = np.array(predicted(shared, normals(2), outputs=["mean"])["outputs"]["mean"])
    np.testing.assert_allclose(many.mean(axis=1), mean, atol=1e-5)


def test_outputs_restrict_the_reply(shared: httpx.Client) -> None:
    outputs = predicted(shared, normals(2), outputs=["mean", "predictive_entropy"])["outputs"]
    assert list(outputs) == ["mean", "predictive_entropy"]


def test_a_point_prediction_takes_one_pass(shared: httpx.Client) -> None:
    reply = predicted(shared, normals(2), method="point", num_samples=1)
    assert (reply["num_samples"], reply["method"]) == (1, "point")
    assert reply["outputs"]["num_samples_used"] == [1, 1]
    assert reply["outputs"]["mutual_information"] == [0.0, 0.0]


def test_independent_masks_are_drawn_on_request(shared: httpx.Client) -> None:
    same = np.repeat(normals(1), 2, axis=0)
    reply = predicted(shared, same, masks="independent")
    assert reply["masks"] == "independent"
    assert reply["outputs"]["mean"][0] != reply["outputs"]["mean"][1]


def test_binary_bodies_say_the_same_as_json(shared: httpx.Client) -> None:
    rows = normals(3)
    wanted = predicted(shared, rows, seed=2)["outputs"]
    query = {"seed": "2", "outputs": "mean,label"}
    for kind, body in (
        ("application/x-npy", npy(rows)),
        ("application/x-npy", npy(rows.astype(">f4", order="F"))),
        ("application/x-npz", npz(inputs=rows)),
    ):
        reply = shared.post(PREDICT, content=body, params=query, headers={"Content-Type": kind})
        assert reply.status_code == 200, reply.text
        outputs = reply.json()["outputs"]
        np.testing.assert_allclose(outputs["mean"], wanted["mean"], atol=1e-6)
        assert set(outputs) == {"mean", "label"}


def test_arrays_come_back_where_accept_asks(shared: httpx.Client) -> None:
    body = {"inputs": normals(3).tolist()}
    wanted = shared.post(PREDICT, json=body).json()
    reply = shared.post(PREDICT, json=body, headers={"Accept": "application/x-npz"})
    assert reply.headers["Content-Type"] == "application/x-npz"
    with np.load(io.BytesIO(reply.content), allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["mean"], wanted["outputs"]["mean"])
        assert arrays["label"].tolist() == wanted["outputs"]["label"]
        assert orjson.loads(arrays["reply"].tobytes())["model"] == "animals"
        assert arrays["classes"].tolist() == list(CLASSES)
    one = shared.post(
        PREDICT, json={**body, "outputs": ["mean"]}, headers={"Accept": "application/x-npy"}
    )
    np.testing.assert_array_equal(np.load(io.BytesIO(one.content)), wanted["outputs"]["mean"])


def test_many_clients_at_once_get_their_own_right_answers(shared: httpx.Client) -> None:
    questions = [(normals(1 + place % 3, seed=place), place % 4) for place in range(24)]
    wanted = [predicted(shared, rows, seed=seed)["outputs"]["mean"] for rows, seed in questions]

    def ask(question: tuple[NDArray[np.float32], int]) -> object:
        rows, seed = question
        with httpx.Client(base_url=shared.base_url, timeout=60) as own:
            return predicted(own, rows, seed=seed)["outputs"]["mean"]

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, questions))
    agree(wanted, answers, abs=1e-6)  # rows of several clients may have been computed at once


def test_two_networks_answer_side_by_side(ready: httpx.Client, bundles: Bundles) -> None:
    upload(ready, "animals", bundles("second")).raise_for_status()
    first, second = (
        ready.post(f"/v1/models/animals/versions/{number}/predict", json={"inputs": [[1, 2, 3, 4]]})
        for number in (1, 2)
    )
    assert (first.json()["version"], second.json()["version"]) == (1, 2)
    assert first.json()["outputs"]["mean"] != second.json()["outputs"]["mean"]


def test_a_deadline_that_passes_is_told_and_the_next_request_is_answered(
    shared: httpx.Client,
) -> None:
    body = {"inputs": normals(2000).tolist(), "num_samples": 1000}
    late = shared.post(PREDICT, json=body, headers={"X-Request-Timeout-Ms": "1"})
    assert late.status_code == 504
    assert late.json()["type"] == "urn:dubito:error:deadline"
    predicted(shared, normals(1))


class Gate:
    """A task that says when it runs, and holds the worker until it is let go."""

    def __init__(self) -> None:
        self.is_running = threading.Event()
        self.may_end = threading.Event()

    def __call__(self, check: Check) -> None:
        self.is_running.set()
        assert self.may_end.wait(30)


def test_the_request_of_a_caller_who_went_away_is_dropped(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    server = serve(settings)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        predicted(client, normals(1))
        worker = server.app.state.access.application.worker
        gate = Gate()
        worker.submit(worker.reserve(1), gate)
        assert gate.is_running.wait(30)
        with pytest.raises(httpx.ReadTimeout):
            client.post(PREDICT, json={"inputs": normals(3).tolist()}, timeout=0.5)
        deadline_s = time.monotonic() + 30
        while worker.queued_work > 1:
            assert time.monotonic() < deadline_s
        gate.may_end.set()
        predicted(client, normals(1))


def test_bodies_beyond_the_memory_for_them_wait_outside(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    server = serve(settings.model_copy(update={"max_pending_bytes": 1000}))
    with httpx.Client(base_url=server.url, timeout=60) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        with server.app.state.access.application.admission.holding() as room:
            room.take(990)
            full = client.post(PREDICT, json={"inputs": normals(1).tolist()})
        assert (full.status_code, full.headers["Retry-After"]) == (429, "1")
        predicted(client, normals(1))


def test_a_queue_that_is_full_says_when_to_come_back(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    server = serve(settings.model_copy(update={"max_queued_work": 64}))
    with httpx.Client(base_url=server.url, timeout=60) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        held = server.app.state.access.application.worker.reserve(1)
        held.resize(64)
        full = client.post(PREDICT, json={"inputs": [[1, 2, 3, 4]]})
        assert full.status_code == 429
        assert int(full.headers["Retry-After"]) >= 1
        held.release()
        predicted(client, normals(4))
        too_much = client.post(PREDICT, json={"inputs": normals(5).tolist()})
        assert too_much.status_code == 422
        assert "at most 64, got 80" in too_much.json()["detail"]
        predicted(client, normals(4))


def test_every_reply_of_a_version_with_injected_dropout_says_so(
    client: httpx.Client, bundles: Bundles
) -> None:
    upload(client, "animals", bundles("injected")).raise_for_status()
    version = client.get("/v1/models/animals/versions/1").json()
    assert len([line for line in version["warnings"] if "injected" in line]) == 1
    for fields in ({}, {"calibration": "none"}, {"method": "point"}, {"outputs": ["mean"]}):
        warnings = predicted(client, normals(2), **fields)["warnings"]
        assert [line for line in warnings if "injected" in line] == [
            "dropout injected at export: `0.1`: the network was not trained with it, so its spread"
            " is no posterior's; calibrate before you rely on it"
        ]


def test_a_tolerance_stops_rows_early_and_stands_in_the_reply(shared: httpx.Client) -> None:
    reply = predicted(shared, normals(12), num_samples=256, tolerance=0.03)
    assert reply["tolerance"] == 0.03
    used = np.array(reply["outputs"]["num_samples_used"])
    assert used.min() < 256
    error = np.max(reply["outputs"]["standard_error"], axis=1)
    assert (error[used < 256] <= 0.03).all()
    alone = predicted(shared, normals(12)[3:4], num_samples=256, tolerance=0.03)
    assert alone["outputs"]["num_samples_used"] == [used[3]]


def test_both_draws_are_served(shared: httpx.Client) -> None:
    even, iid = (predicted(shared, normals(3), draw=draw) for draw in ("stratified", "iid"))
    assert (even["draw"], iid["draw"]) == ("stratified", "iid")
    assert even["outputs"]["mean"] != iid["outputs"]["mean"]


def test_moments_take_one_pass_and_are_near_many_samples(shared: httpx.Client) -> None:
    reply = predicted(shared, normals(6), method="moments")
    assert (reply["num_samples"], reply["method"]) == (1, "moments")
    outputs = reply["outputs"]
    many = predicted(shared, normals(6), num_samples=5000)["outputs"]
    np.testing.assert_allclose(outputs["mean"], many["mean"], atol=0.01)
    np.testing.assert_allclose(outputs["mutual_information"], many["mutual_information"], atol=0.01)
    assert outputs["num_samples_used"] == [1] * 6
    assert not np.any(outputs["standard_error"])
    assert outputs["mutual_information_corrected"] == outputs["mutual_information"]
    again = predicted(shared, normals(6), method="moments", seed=7, num_samples=3)
    assert again["outputs"] == outputs


def test_a_network_that_moments_cannot_pass_is_refused_by_operator_and_reason(
    client: httpx.Client, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    dropped = DropConnect(nn.Linear(4, 6), 0.3)  # weights, of which all rows share a draw
    network = nn.Sequential(dropped, nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, len(CLASSES)))
    path, declared = tmp_path / "dropped.dubito", {"output": "logits", "classes": CLASSES}
    export(network, torch.randn(4, 4), path, task="classification", **declared)  # type: ignore[arg-type]
    upload(client, "animals", path).raise_for_status()
    body = {"inputs": normals(2).tolist(), "method": "moments"}
    refused = client.post(PREDICT, json=body)
    assert refused.status_code == 422
    for word in ("`moments`", "behind the random `0`", "all rows share a draw"):
        assert word in refused.json()["detail"]
    assert "use method `mc`" in refused.json()["detail"]
    predicted(client, normals(2))


@pytest.fixture(scope="module")
def three(shared: httpx.Client, bundles: Bundles) -> httpx.Client:
    """A client of a server that has three versions of `animals`; the third has another task."""
    upload(shared, "animals", bundles("second")).raise_for_status()
    upload(shared, "animals", bundles("regression")).raise_for_status()
    shared.put("/v1/models/animals/aliases/next", json={"version": 2}).raise_for_status()
    return shared


def test_an_ensemble_answers_for_all_passes_of_its_members(three: httpx.Client) -> None:
    reply = predicted(
        three,
        normals(5),
        method="ensemble",
        members=["next", 1],
        seed=4,
        outputs=["samples", "mean"],
    )
    assert (reply["version"], reply["members"], reply["method"]) == (1, [1, 2], "ensemble")
    assert (reply["num_samples"], reply["seed"], reply["calibration"]) == (16, 4, None)
    alone = []
    for number in (1, 2):
        body = {"inputs": normals(5).tolist(), "seed": 3 + number, "outputs": ["samples"]}
        answer = three.post(f"/v1/models/animals/versions/{number}/predict", json=body)
        alone.append(answer.json()["outputs"]["samples"])
    samples = np.concatenate(alone, axis=1)
    np.testing.assert_allclose(reply["outputs"]["samples"], samples, atol=1e-9)
    np.testing.assert_allclose(reply["outputs"]["mean"], samples.mean(1), atol=1e-9)
    again = predicted(three, normals(5), method="ensemble", members=[1, 2], seed=4)["outputs"]
    np.testing.assert_allclose(again["variance"], samples.var(1), atol=1e-9)
    assert again["num_samples_used"] == [32] * 5
    total, expected, mutual = (
        np.array(again[name])
        for name in ("predictive_entropy", "expected_entropy", "mutual_information")
    )
    np.testing.assert_allclose(total, expected + mutual, atol=1e-12)


def test_no_calibration_covers_an_ensemble(three: httpx.Client) -> None:
    reply = predicted(three, normals(2), method="ensemble", members=[1, 2])
    assert reply["outputs"]["prediction_set"] is None
    assert any("no calibration covers an ensemble" in line for line in reply["warnings"])
    labels = [0, 1] * 60
    body = {"inputs": normals(120).tolist(), "labels": labels, "method": "ensemble"}
    refused = three.post("/v1/models/animals/calibrate", json={**body, "members": [1, 2]})
    assert refused.status_code == 422
    assert "expects one version" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("members", "status", "words"),
    [
        ([1, 9], 404, ["9"]),
        ([1, "nobody"], 404, ["nobody"]),
        ([1, 3], 422, ["the same task", "classification in version 1"]),
    ],
)
def test_members_that_do_not_exist_or_agree_are_refused(
    three: httpx.Client, members: list[object], status: int, words: list[str]
) -> None:
    body = {"inputs": normals(1).tolist(), "method": "ensemble", "members": members}
    refused = three.post(PREDICT, json=body)
    assert refused.status_code == status
    for word in words:
        assert word in refused.json()["detail"]
    predicted(three, normals(1))


def test_the_work_of_an_ensemble_counts_all_its_members(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    server = serve(settings.model_copy(update={"max_queued_work": 64}))
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for name in ("first", "second"):
            upload(client, "animals", bundles(name)).raise_for_status()
        body = {"method": "ensemble", "members": [1, 2]}
        assert predicted(client, normals(2), **body)["outputs"]["num_samples_used"] == [32, 32]
        refused = client.post(PREDICT, json={"inputs": normals(3).tolist(), **body})
        assert refused.status_code == 422
        assert "at most 64, got 96" in refused.json()["detail"]


def test_members_of_a_query_are_written_with_commas(three: httpx.Client) -> None:
    query = {"method": "ensemble", "members": "1,next", "outputs": "mean"}
    header = {"Content-Type": "application/x-npy"}
    reply = three.post(PREDICT, content=npy(normals(2)), params=query, headers=header).json()
    wanted = predicted(three, normals(2), method="ensemble", members=[1, 2])["outputs"]
    assert reply["members"] == [1, 2]
    np.testing.assert_allclose(reply["outputs"]["mean"], wanted["mean"], atol=1e-6)
