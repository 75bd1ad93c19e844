"""Calibrations over HTTP: what they fill in, what they speak for, and going back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from torch import nn

from dubito_nn import export

from .conftest import CLASSES, NUM_FEATURES, Bundles
from .http import normals, npz, predicted, upload

PREDICT = "/v1/models/animals/predict"
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


def _calibrate(client: httpx.Client, count: int = 120, **fields: Any) -> httpx.Response:
    labels = np.random.default_rng(5).integers(0, len(CLASSES), count)
    body = {"inputs": normals(count, seed=3).tolist(), "labels": [CLASSES[i] for i in labels]}
    return client.post("/v1/models/animals/calibrate", json={**body, "alpha": 0.1, **fields})


def test_a_calibration_of_moments_holds_for_moments_alone(ready: httpx.Client) -> None:
    labels = np.random.default_rng(5).integers(0, len(CLASSES), 120).tolist()
    body = {"inputs": normals(120, seed=3).tolist(), "labels": labels, "alpha": 0.1}
    fitted = ready.post("/v1/models/animals/calibrate", json={**body, "method": "moments"})
    assert fitted.status_code == 200, fitted.text
    covered = predicted(ready, normals(4), method="moments")
    assert covered["calibration"] == 1
    assert covered["outputs"]["prediction_set"] is not None
    other = predicted(ready, normals(4))
    assert other["calibration"] is None
    assert any("method moments (asked: mc)" in warning for warning in other["warnings"])


def test_a_calibration_of_moments_fills_the_quantiles_of_a_regression(
    client: httpx.Client, bundles: Bundles
) -> None:
    upload(client, "animals", bundles("regression")).raise_for_status()
    targets = np.random.default_rng(5).normal(10, 2, (120, 1)).tolist()
    body = {"inputs": normals(120, seed=3).tolist(), "targets": targets, "alpha": 0.1}
    fitted = client.post("/v1/models/animals/calibrate", json={**body, "method": "moments"})
    assert fitted.status_code == 200, fitted.text
    outputs = predicted(client, normals(4), method="moments")["outputs"]
    low, middle, high = (np.array(outputs["quantiles"][key]) for key in ("0.05", "0.5", "0.95"))
    assert (low < middle).all()
    assert (middle < high).all()
    np.testing.assert_allclose(middle, outputs["mean"], atol=0.2)


def test_a_calibration_fills_what_was_null(ready: httpx.Client) -> None:
    answer = _calibrate(ready)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {
        "model",
        "version",
        "calibration",
        "active",
        "verdict",
        "num_rows",
        "splits",
        "report",
        "warnings",
        "ood",
        "policy",
    }
    assert answer.json()["calibration"] == 1
    assert answer.json()["active"] is True
    assert answer.json()["verdict"].startswith("no different from no fit beyond chance: ")
    page = ready.get("/v1/models/animals/calibration").json()
    assert page["verdict"] == answer.json()["verdict"]
    reply = predicted(ready, normals(4))
    outputs = reply["outputs"]
    assert reply["calibration"] == 1
    assert all(set(names) <= set(CLASSES) for names in outputs["prediction_set"])
    assert set(outputs["ood"]) == {"score", "p_value", "flag"}
    assert all(0 < p <= 1 for p in outputs["ood"]["p_value"])
    assert [p <= 0.1 for p in outputs["ood"]["p_value"]] == outputs["ood"]["flag"]
    by_row = zip(outputs["ood"]["flag"], outputs["prediction_set"], strict=True)
    assert outputs["decision"] == [
        "reject" if flag else "accept" if len(names) == 1 else "review" for flag, names in by_row
    ]
    assert reply["warnings"] == []


def test_the_temperature_of_the_calibration_is_applied(ready: httpx.Client) -> None:
    raw = predicted(ready, normals(4))["outputs"]["mean"]
    _calibrate(ready, scaling="temperature")
    page = ready.get("/v1/models/animals/calibration").json()
    assert page["temperature"] != 1.0
    reply = predicted(ready, normals(4), outputs=["mean", "samples"])["outputs"]
    assert reply["mean"] != raw
    np.testing.assert_allclose(np.mean(reply["samples"], axis=1), reply["mean"], atol=1e-5)
    assert predicted(ready, normals(4), calibration="none")["outputs"]["mean"] == raw


def test_a_calibration_does_not_speak_for_other_settings(ready: httpx.Client) -> None:
    _calibrate(ready)
    reply = predicted(ready, normals(2), seed=9)
    assert reply["calibration"] is None
    assert reply["outputs"]["ood"] is None
    assert any("seed 0 (asked: 9)" in warning for warning in reply["warnings"])


def test_a_wider_coverage_gives_larger_sets(ready: httpx.Client) -> None:
    _calibrate(ready)
    narrow, wide = (
        sum(map(len, predicted(ready, normals(30), coverage=share)["outputs"]["prediction_set"]))
        for share in (0.4, 0.9)
    )
    assert narrow < wide


def test_a_fit_that_is_worse_than_none_leaves_the_active_calibration_where_it_is(
    client: httpx.Client, tmp_path: Path
) -> None:
    num_rows, num_classes = 1600, 200
    network = nn.Sequential(nn.Dropout(0.2), nn.Linear(NUM_FEATURES, num_classes))
    nn.init.normal_(network[1].weight, std=0.2)
    export_to = tmp_path / "wide.dubito"
    example, names = torch.randn(3, NUM_FEATURES), [f"c{index}" for index in range(num_classes)]
    export(network, example, export_to, task="classification", output="logits", classes=names)
    upload(client, "wide", export_to).raise_for_status()
    generator, rows = np.random.default_rng(0), normals(num_rows)
    with torch.no_grad():
        chance = network.eval()(torch.from_numpy(rows)).softmax(-1).numpy()
    labels = (chance.cumsum(-1) < generator.random((num_rows, 1))).sum(-1).clip(max=199)
    body = npz(inputs=rows, labels=labels)
    headers = {"Content-Type": "application/x-npz"}

    def fit(scaling: str) -> dict[str, Any]:
        asked = {"method": "point", "scaling": scaling}
        path = "/v1/models/wide/calibrate"
        reply = client.post(path, params=asked, content=body, headers=headers)
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        return answer

    def active() -> int:
        number: int = client.get("/v1/models/wide/calibration").json()["calibration"]
        return number

    assert fit("vector")["active"] is False
    assert active() is None
    assert (fit("none")["active"], active()) == (True, 2)
    worse = fit("vector")
    assert (worse["calibration"], worse["active"], active()) == (3, False, 2)
    assert worse["verdict"].startswith("worse than no fit beyond chance: ")
    assert client.put("/v1/models/wide/calibration", json={"active": 3}).status_code == 200
    assert active() == 3


def test_one_may_go_back_to_an_earlier_calibration_or_none(ready: httpx.Client) -> None:
    empty = {"model": "animals", "version": 1, "calibration": None}
    assert ready.get("/v1/models/animals/calibration").json() == empty
    for number in (1, 2):
        assert _calibrate(ready).json()["calibration"] == number
    path = "/v1/models/animals/versions/1/calibration"
    assert ready.put(path, json={"active": 1}).json()["calibration"] == 1
    assert predicted(ready, normals(1))["calibration"] == 1
    assert ready.put(path, json={"active": None}).json() == empty
    assert predicted(ready, normals(1))["calibration"] is None
    assert ready.put(path, json={"active": 3}).status_code == 404


def test_a_calibration_may_come_as_npz_with_strange_rows(ready: httpx.Client) -> None:
    labels = np.random.default_rng(5).integers(0, len(CLASSES), 120)
    body = npz(inputs=normals(120, seed=3), labels=labels, ood_inputs=30 * normals(20, seed=4))
    reply = ready.post(
        "/v1/models/animals/versions/default/calibrate?alpha=0.1",
        content=body,
        headers={"Content-Type": "application/x-npz"},
    )
    assert reply.status_code == 200, reply.text
    assert "ood_auroc" in reply.json()["report"]["after"]


def test_a_regression_answers_in_target_units(client: httpx.Client, bundles: Bundles) -> None:
    upload(client, "heights", bundles("regression")).raise_for_status()
    rows = normals(150)
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
    quantiles = reply["outputs"]["quantiles"]
    assert list(quantiles) == ["0.05", "0.5", "0.95"]
    below = [(np.array(targets) <= quantiles[level]).mean() for level in quantiles]
    np.testing.assert_allclose(below, [0.05, 0.5, 0.95], atol=0.1)
    parts = np.add(reply["outputs"]["epistemic_variance"], reply["outputs"]["aleatoric_variance"])
    np.testing.assert_allclose(reply["outputs"]["variance"], parts, rtol=1e-9)
    assert reply["outputs"]["variance"] != raw["variance"]


def test_an_interval_without_an_end_is_null_and_said(
    client: httpx.Client, bundles: Bundles
) -> None:
    upload(client, "heights", bundles("regression")).raise_for_status()
    rows = normals(150).tolist()
    targets = np.random.default_rng(1).normal(10, 2, size=150).tolist()
    client.post("/v1/models/heights/calibrate", json={"inputs": rows, "targets": targets})
    reply = client.post(
        "/v1/models/heights/predict", json={"inputs": rows[:1], "coverage": 0.9999}
    ).json()
    assert reply["outputs"]["interval"] == {"lower": [[None]], "upper": [[None]]}
    assert any("too few" in warning for warning in reply["warnings"])


def _strange(count: int) -> list[list[float]]:
    return (8 + np.random.default_rng(9).normal(size=(count, NUM_FEATURES))).tolist()


def test_a_named_score_flags_far_rows_and_is_served_as_it_was_fitted(ready: httpx.Client) -> None:
    answer = _calibrate(ready, count=240, ood_score="knn", ood_inputs=_strange(30))
    assert answer.status_code == 200, answer.text
    assert answer.json()["ood"]["score"] == "knn"
    assert answer.json()["splits"]["features"] == 48
    outputs = predicted(ready, normals(4))["outputs"]
    only = predicted(ready, normals(4), outputs=["ood"])["outputs"]
    assert only["ood"] == outputs["ood"]
    one_by_one = [predicted(ready, row[None])["outputs"]["ood"]["score"][0] for row in normals(4)]
    np.testing.assert_allclose(one_by_one, outputs["ood"]["score"], atol=1e-6)
    page = ready.get("/v1/models/animals/calibration").json()
    assert page["ood_fitted"]["bank"]["num_rows"] == 48


def test_a_score_of_features_is_evaluated_as_it_is_served(ready: httpx.Client) -> None:
    assert _calibrate(ready, count=240, ood_score="knn").status_code == 200
    rows = normals(30, seed=8)
    body = {"inputs": rows.tolist(), "labels": [0] * 30, "ood_inputs": _strange(30)}
    answer = ready.post("/v1/models/animals/evaluate", json=body)
    assert answer.status_code == 200, answer.text
    flags = predicted(ready, rows)["outputs"]["ood"]["flag"]
    report = answer.json()["report"]
    assert report["ood_flag_rate"] == pytest.approx(np.mean(flags))
    assert report["ood_auroc"] is not None


def test_auto_says_what_it_compared(ready: httpx.Client) -> None:
    answer = _calibrate(ready, count=240, ood_score="auto", ood_inputs=_strange(40))
    assert answer.status_code == 200, answer.text
    compared = answer.json()["ood"]["compared"]
    assert compared[answer.json()["ood"]["score"]] == max(compared.values())
    assert {"knn", "relative_mahalanobis", "combined", "energy_spread"} <= set(compared)
    assert answer.json()["splits"]["strange_choice"] == 20


def test_a_share_of_accepted_rows_is_kept_by_the_decisions(ready: httpx.Client) -> None:
    answer = _calibrate(ready, count=240, target_acceptance=0.5)
    assert answer.status_code == 200, answer.text
    policy = answer.json()["policy"]
    assert policy["kind"] == "acceptance"
    assert policy["num_rows"] == answer.json()["splits"]["policy"] == 48
    outputs = predicted(ready, normals(200, seed=5))["outputs"]
    accepted = [decision == "accept" for decision in outputs["decision"]]
    assert 0.25 < np.mean(accepted) < 0.8
    least = max(
        max(mean)
        for mean, decision in zip(outputs["mean"], outputs["decision"], strict=True)
        if decision == "review"
    )
    assert least < min(
        max(mean) for mean, is_in in zip(outputs["mean"], accepted, strict=True) if is_in
    )


def test_a_regression_decides_too(client: httpx.Client, bundles: Bundles) -> None:
    upload(client, "animals", bundles("regression")).raise_for_status()
    targets = np.random.default_rng(5).normal(10, 2, (120, 1)).tolist()
    body = {"inputs": normals(120, seed=3).tolist(), "targets": targets, "alpha": 0.1}
    assert client.post("/v1/models/animals/calibrate", json=body).status_code == 200
    outputs = predicted(client, normals(40))["outputs"]
    flags = outputs["ood"]["flag"]
    assert outputs["decision"] == ["reject" if flag else "accept" for flag in flags]
    refused = client.post("/v1/models/animals/calibrate", json={**body, "target_risk": 0.1})
    assert refused.status_code == 422
    assert "target_acceptance" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ood_score": "wild"}, "expected one of predictive_entropy"),
        ({"ood_score": "auto"}, "send `ood_inputs`"),
        ({"target_risk": 0.0}, "`target_risk` expects a number between 0 and 1"),
        ({"target_risk": 0.3, "target_acceptance": 0.5}, "give one"),
        ({"risk_confidence": 0.9}, "belongs to `target_risk`"),
        ({"target_risk": 0.3}, "the smallest that they can is"),
    ],
)
def test_what_cannot_be_promised_is_refused_with_the_remedy(
    fields: dict[str, object], message: str, ready: httpx.Client
) -> None:
    answer = _calibrate(ready, count=240, **fields)
    assert answer.status_code == 422
    assert message in answer.json()["detail"]
