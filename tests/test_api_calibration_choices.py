"""`scaling`, `sets`, `per_class` and `intervals` over HTTP: what they change and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from scipy.special import entr

from dubito.calibration.heads.classes import ClassHead
from dubito.calibration.heads.logits import LogitScaling
from dubito.calibration.record import Calibration
from dubito.settings import Settings

from .conftest import CLASSES, Bundles
from .http import upload

COUNT = 500


def _rows(count: int, seed: int = 0) -> list[list[float]]:
    rows: list[list[float]] = np.random.default_rng(seed).normal(size=(count, 4)).tolist()
    return rows


def _calibrate(client: httpx.Client, count: int = COUNT, **asked: object) -> httpx.Response:
    labels = np.random.default_rng(5).integers(0, len(CLASSES), count).tolist()
    body = {"inputs": _rows(count, seed=3), "labels": labels, **asked}
    return client.post("/v1/models/animals/calibrate", json=body)


def _predict(client: httpx.Client, rows: list[list[float]], **asked: object) -> httpx.Response:
    return client.post("/v1/models/animals/predict", json={"inputs": rows, **asked})


@pytest.mark.parametrize("scaling", ["temperature", "vector", "isotonic", "none"])
def test_every_scaling_reaches_mean_entropies_and_variances(
    ready: httpx.Client, scaling: str
) -> None:
    raw = _predict(ready, _rows(6)).json()["outputs"]
    fitted = _calibrate(ready, scaling=scaling)
    assert fitted.status_code == 200, fitted.text
    page = ready.get("/v1/models/animals/calibration").json()
    assert page["scaling"] == scaling
    outputs = ["mean", "variance", "expected_entropy", "predictive_entropy", "samples"]
    got = _predict(ready, _rows(6), outputs=outputs).json()["outputs"]
    samples_BTC = np.array(got["samples"])
    np.testing.assert_allclose(samples_BTC.mean(axis=1), got["mean"], atol=1e-9)
    np.testing.assert_allclose(samples_BTC.var(axis=1), got["variance"], atol=1e-9)
    np.testing.assert_allclose(
        entr(samples_BTC).sum(axis=-1).mean(axis=-1), got["expected_entropy"], atol=1e-9
    )
    np.testing.assert_allclose(
        entr(np.array(got["mean"])).sum(axis=-1), got["predictive_entropy"], atol=1e-9
    )
    assert (got["mean"] == raw["mean"]) == (scaling == "none")


@pytest.mark.parametrize("sets", ["aps", "raps"])
def test_randomised_sets_do_not_hang_on_place_nor_on_batch_mates(
    ready: httpx.Client, sets: str
) -> None:
    assert _calibrate(ready, sets=sets, coverage=0.6).status_code == 200
    rows = _rows(20)
    first, again = (_predict(ready, rows, outputs=["prediction_set"]) for _ in range(2))
    assert first.content == again.content
    together = first.json()["outputs"]["prediction_set"]
    turned = _predict(ready, rows[::-1], outputs=["prediction_set"]).json()
    assert turned["outputs"]["prediction_set"] == together[::-1]
    alone = [
        _predict(ready, [row], outputs=["prediction_set"]).json()["outputs"]["prediction_set"][0]
        for row in rows[:5]
    ]
    assert alone == together[:5]


def test_empty_sets_are_allowed_and_counted(ready: httpx.Client) -> None:
    asked = {"sets": "aps", "coverage": 0.3}
    report = _calibrate(ready, **asked, empty_sets=True).json()["report"]
    assert report["before"]["empty_sets"] is None
    share = report["after"]["empty_sets"]
    assert 0 < share < 1
    reply = _predict(ready, _rows(60)).json()
    assert [] in reply["outputs"]["prediction_set"]
    assert reply["warnings"] == []
    filled = _calibrate(ready, **asked).json()["report"]["after"]
    assert filled["empty_sets"] == 0
    assert filled["set_size"] == pytest.approx(report["after"]["set_size"] + share)
    outputs = _predict(ready, _rows(60)).json()["outputs"]
    pairs = zip(outputs["label"], outputs["prediction_set"], strict=True)
    assert all(label in members for label, members in pairs)


def test_thresholds_per_class_are_one_for_each(ready: httpx.Client) -> None:
    assert _calibrate(ready, per_class=True, scaling="vector").status_code == 200
    page = ready.get("/v1/models/animals/calibration").json()
    assert page["set_rule"]["per_class"] is True
    assert len(page["conformal"]["thresholds"]) == len(CLASSES)
    reply = _predict(ready, _rows(3), coverage=0.999).json()
    assert all(names == list(CLASSES) for names in reply["outputs"]["prediction_set"])
    assert any("held-out rows of a class are too few" in one for one in reply["warnings"])


def test_a_class_with_too_few_rows_is_refused_with_the_number_that_would_do(
    ready: httpx.Client,
) -> None:
    def fit(of_last: int) -> httpx.Response:
        labels = [0] * 150 + [1] * 150 + [2] * of_last
        return ready.post(
            "/v1/models/animals/calibrate",
            json={"inputs": _rows(len(labels)), "labels": labels, "per_class": True},
        )

    refused = fit(20)
    assert refused.status_code == 422
    assert "at least 47 labelled rows of each class" in refused.json()["detail"]
    assert "of class index 2" in refused.json()["detail"]
    assert fit(47).status_code == 200


def test_isotonic_scaling_of_few_rows_is_refused_with_the_number_that_would_do(
    ready: httpx.Client,
) -> None:
    refused = _calibrate(ready, count=120, scaling="isotonic")
    assert refused.status_code == 422
    assert "at least 398 labelled rows, got 120: it needs 100 to fit" in refused.json()["detail"]
    assert _calibrate(ready, count=398, scaling="isotonic").status_code == 200


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"scaling": "platt"}, "'temperature', 'vector', 'isotonic' or 'none'"),
        ({"sets": "LAC"}, "'lac', 'aps' or 'raps'"),
        ({"per_class": "yes"}, "expected true or false"),
        ({"intervals": "cqr"}, "`intervals` belongs to a regression"),
        ({"labels": ["ant", "emu"] * (COUNT // 2)}, "'emu' in row 1"),
        ({"labels": [1] * COUNT}, "at least 2 classes, got only class 1"),
        ({"labels": [0, 1] * COUNT}, "500 in all"),
        ({"inputs": _rows(3), "labels": [0, 1, 2]}, "got 3"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    shared: httpx.Client, asked: dict[str, object], message: str
) -> None:
    refused = _calibrate(shared, **asked)
    assert refused.status_code == 422, refused.text
    assert message in json.dumps(refused.json(), ensure_ascii=False)
    assert shared.get("/v1/models/animals/calibration").json()["calibration"] is None


def test_rows_that_are_not_finite_are_refused(shared: httpx.Client) -> None:
    rows = _rows(COUNT)
    text = json.dumps({"inputs": rows, "labels": [0, 1] * (COUNT // 2)})
    spoilt = text.replace(json.dumps(rows[1][0]), "NaN", 1)
    headers = {"Content-Type": "application/json"}
    refused = shared.post("/v1/models/animals/calibrate", content=spoilt, headers=headers)
    assert refused.status_code == 422


def test_a_retired_version_is_not_calibrated(ready: httpx.Client, bundles: Bundles) -> None:
    upload(ready, "animals", bundles("second")).raise_for_status()
    path = "/v1/models/animals/versions/2"
    ready.post(f"{path}/retire", json={"reason": "worse than the first"}).raise_for_status()
    body = {"inputs": _rows(120), "labels": [0, 1, 2] * 40}
    refused = ready.post(f"{path}/calibrate", json=body)
    assert refused.status_code == 409
    assert "worse than the first" in refused.json()["detail"]


def _regression(client: httpx.Client, bundles: Bundles, **asked: object) -> httpx.Response:
    upload(client, "animals", bundles("regression")).raise_for_status()
    targets = np.random.default_rng(1).normal(10, 2, size=150).tolist()
    body = {"inputs": _rows(150), "targets": targets, **asked}
    return client.post("/v1/models/animals/calibrate", json=body)


def test_intervals_of_quantiles_are_served_at_any_coverage(
    client: httpx.Client, bundles: Bundles
) -> None:
    fitted = _regression(client, bundles, intervals="cqr")
    assert fitted.status_code == 200, fitted.text
    assert fitted.json()["report"]["after"]["interval_coverage"] > 0.7
    ends = {}
    for coverage in (0.5, 0.9):
        reply = _predict(client, _rows(4), coverage=coverage).json()
        interval, quantiles = (reply["outputs"][name] for name in ("interval", "quantiles"))
        ends[coverage] = np.array(interval["lower"]), np.array(interval["upper"])
        assert (ends[coverage][0] <= ends[coverage][1]).all()
    off = ends[0.9][0] - quantiles["0.05"]
    np.testing.assert_allclose(off, off[0, 0], rtol=2e-4)  # one for all rows, but for ties
    np.testing.assert_allclose(quantiles["0.95"] - ends[0.9][1], off[0, 0], rtol=2e-4)
    assert (ends[0.9][0] <= ends[0.5][0]).all()
    assert (ends[0.5][1] <= ends[0.9][1]).all()
    alone = _predict(client, _rows(4), outputs=["interval"]).json()["outputs"]["interval"]
    np.testing.assert_allclose(alone["lower"], ends[0.9][0], atol=1e-9)


def test_intervals_of_quantiles_need_all_passes_and_say_so(
    serve: object, settings: Settings, bundles: Bundles
) -> None:
    few = settings.model_copy(update={"max_sample_values": 100})
    with httpx.Client(base_url=serve(few).url, timeout=60) as client:  # type: ignore[operator]
        assert _regression(client, bundles, intervals="cqr").status_code == 200
        reply = _predict(client, _rows(20)).json()
        assert reply["outputs"]["interval"] is None
        assert any("`interval` is null: it needs all passes" in one for one in reply["warnings"])
        small = _predict(client, _rows(2)).json()
        assert small["outputs"]["interval"] is not None


@pytest.mark.parametrize("name", ["scaling", "sets", "per_class"])
def test_what_belongs_to_classes_is_refused_for_numbers(
    client: httpx.Client, bundles: Bundles, name: str
) -> None:
    value = {"scaling": "vector", "sets": "aps", "per_class": True}[name]
    refused = _regression(client, bundles, **{name: value})
    assert refused.status_code == 422
    assert f"`{name}` belongs to a classification" in refused.json()["detail"]


def test_a_constant_target_is_refused(client: httpx.Client, bundles: Bundles) -> None:
    refused = _regression(client, bundles, intervals="cqr", targets=[3.0] * 150)
    assert refused.status_code == 422
    assert "targets that vary" in refused.json()["detail"]


def test_records_without_the_choices_are_read_as_they_were_meant() -> None:
    text = Path(__file__).with_name("calibration_record_1.json").read_text()
    record = Calibration.from_json(text)
    assert isinstance(record.head, ClassHead)
    assert record.head.scaling == LogitScaling("temperature", json.loads(text)["temperature"])
    assert record.head.set_rule.kind == "lac"
    assert not record.head.set_rule.per_class
    written = record.to_json()
    assert written["report"].pop("intervals") == {}  # type: ignore[attr-defined]
    assert {name: written[name] for name in json.loads(text)} == json.loads(text)
