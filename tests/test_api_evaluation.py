"""Reports over HTTP: the figures of what is served, both kinds of bodies, and nothing changed."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from dubito.calibration.record import Calibration
from dubito.engine import Engine, Sampling
from dubito.engine.heads.numbers import mean_and_variance
from dubito.settings import Settings

from .conftest import CLASSES, Bundles, Server
from .fits import evaluate_classification, evaluate_regression
from .http import normals, upload

EVALUATE = "/v1/models/animals/evaluate"
CLASS_KEYS = {
    *("accuracy", "nll", "brier", "ece", "adaptive_ece", "classwise_ece", "aurc", "e_aurc"),
    *("set_coverage", "set_size", "empty_sets", "ood_flag_rate"),
}
NUMBER_KEYS = {
    *("rmse", "nll", "crps", "ause", "interval_coverage", "interval_width", "interval_score"),
    "ood_flag_rate",
}
OOD_KEYS = {"ood_auroc", "ood_aupr", "ood_fpr95"}


def _labels(count: int, seed: int = 5) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, len(CLASSES), count)


def _body(count: int = 60, seed: int = 7) -> dict[str, Any]:
    return {"inputs": normals(count, seed).tolist(), "labels": _labels(count).tolist()}


def _evaluated(client: httpx.Client, body: dict[str, Any], path: str = EVALUATE) -> dict[str, Any]:
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def _state(client: httpx.Client) -> tuple[object, ...]:
    paths = ("versions/1", "calibration", "audit")
    return tuple(client.get(f"/v1/models/animals/{path}").json() for path in paths)


def test_a_report_has_the_figures_of_what_is_served(ready: httpx.Client, bundles: Bundles) -> None:
    fit = {"inputs": normals(120, 3).tolist(), "labels": _labels(120).tolist(), "alpha": 0.1}
    ready.post("/v1/models/animals/calibrate", json=fit).raise_for_status()
    before = _state(ready)
    strange = (30 * normals(20, 4)).tolist()
    reply = _evaluated(ready, {**_body(), "ood_inputs": strange, "coverage": 0.8})
    assert _state(ready) == before
    assert set(reply["report"]) == CLASS_KEYS | OOD_KEYS
    assert reply["intervals"].keys() == reply["report"].keys()
    assert (reply["calibration"], reply["num_rows"], reply["coverage"]) == (1, 60, 0.8)
    assert (reply["warnings"], reply["splits"]) == ([], {"report": 60})
    assert sum(one["count"] for one in reply["curves"]["bins"]) == 60
    assert sum(reply["curves"]["scores"]["ood_counts"]) == 20

    served = {"inputs": _body()["inputs"], "coverage": 0.8}
    outputs = ready.post("/v1/models/animals/predict", json=served).json()["outputs"]
    names = [CLASSES[index] for index in _labels(60)]
    right = [label == name for label, name in zip(outputs["label"], names, strict=True)]
    sets = outputs["prediction_set"]
    of_truth = [row[_labels(60)[b]] for b, row in enumerate(outputs["mean"])]
    expected = {
        "accuracy": np.mean(right),
        "nll": -np.mean(np.log(of_truth)),
        "set_coverage": np.mean([name in row for name, row in zip(names, sets, strict=True)]),
        "set_size": np.mean([len(row) for row in sets]),
        "ood_flag_rate": np.mean(outputs["ood"]["flag"]),
    }
    report = {name: reply["report"][name] for name in expected}
    assert report == pytest.approx(expected, abs=1e-6)


def test_the_report_is_that_of_the_engine_s_own_passes(
    shared: httpx.Client, bundles: Bundles
) -> None:
    reply = _evaluated(shared, {**_body(), "calibration": "none", "num_samples": 20, "seed": 3})
    engine = Engine.load(bundles("first"))
    passes = engine.sample(normals(60, 7), sampling=Sampling(num_samples=20, seed=3)).double()
    expected = evaluate_classification(passes.numpy(), _labels(60), calibration=None)
    assert reply["report"] == pytest.approx(expected.report, abs=1e-6)
    assert reply["calibration"] is None
    assert reply["report"]["set_size"] is None
    assert reply["intervals"]["set_size"] is None
    assert any("raw figures" in warning for warning in reply["warnings"])


def test_json_and_npz_give_the_same_report_and_names_are_classes(shared: httpx.Client) -> None:
    body = _body()
    file = io.BytesIO()
    np.savez(file, inputs=normals(60, 7), labels=_labels(60))
    archive = shared.post(
        "/v1/models/animals/versions/1/evaluate?num_samples=20&calibration=none",
        content=file.getvalue(),
        headers={"Content-Type": "application/x-npz"},
    )
    assert archive.status_code == 200, archive.text
    fields = {"num_samples": 20, "calibration": "none"}
    assert archive.json() == _evaluated(shared, body | fields)
    named = {**body, **fields, "labels": [CLASSES[index] for index in body["labels"]]}
    assert archive.json() == _evaluated(shared, named)


def test_before_a_calibration_and_with_other_settings_the_figures_are_raw(
    ready: httpx.Client,
) -> None:
    first = _evaluated(ready, _body())
    assert (first["calibration"], first["coverage"]) == (None, None)
    assert any("no active calibration" in warning for warning in first["warnings"])
    fit = {"inputs": normals(120, 3).tolist(), "labels": _labels(120).tolist(), "alpha": 0.1}
    ready.post("/v1/models/animals/calibrate", json=fit).raise_for_status()
    other = _evaluated(ready, _body() | {"seed": 9})
    assert other["calibration"] is None
    assert any("seed 0 (asked: 9)" in warning for warning in other["warnings"])
    assert _evaluated(ready, _body() | {"calibration": "none"})["report"] == first["report"]


def test_a_regression_is_judged_in_target_units(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    path = "/v1/models/heights/evaluate"
    targets = np.random.default_rng(2).normal(10, 2, (150, 1))
    body = {"inputs": normals(150, 8).tolist(), "targets": targets.tolist()}
    server = serve(settings)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        upload(client, "heights", bundles("regression")).raise_for_status()
        client.post("/v1/models/heights/calibrate", json=body).raise_for_status()
        page = client.get("/v1/models/heights/calibration").json()
        raw, calibrated = (
            _evaluated(client, {**body, "calibration": name}, path) for name in ("none", "active")
        )
    assert page["curves"]["after"]["sparsification"] is not None
    assert page["report"]["intervals"].keys() == {"before", "after"}
    library = server.app.state.access.application.library
    record = Calibration.from_json(library.page("heights", "1").calibration.document)
    engine = Engine.load(bundles("regression"))
    passes = engine.sample(normals(150, 8), sampling=Sampling(num_samples=16))
    means, variances = (part.numpy() for part in mean_and_variance(passes, engine.manifest))
    maps = engine.feature_maps(normals(150, 8)).numpy()
    for reply, calibration in ((raw, None), (calibrated, record)):
        asked = {"calibration": calibration, "features": maps}
        expected = evaluate_regression(means, np.log(variances), targets, **asked)
        assert set(reply["report"]) == NUMBER_KEYS
        assert reply["report"] == pytest.approx(expected.report, abs=1e-6)
        assert reply["report"]["nll"] is not None


def test_an_ensemble_is_judged_by_the_passes_of_all_members(
    ready: httpx.Client, bundles: Bundles
) -> None:
    upload(ready, "animals", bundles("second")).raise_for_status()
    fields = {"method": "ensemble", "members": [1, 2]}
    reply = _evaluated(ready, _body() | fields)
    predicted = ready.post(
        "/v1/models/animals/predict", json={"inputs": _body()["inputs"], **fields}
    ).json()["outputs"]["mean"]
    of_truth = [row[_labels(60)[b]] for b, row in enumerate(predicted)]
    assert reply["members"] == [1, 2]
    assert reply["report"]["nll"] == pytest.approx(-np.mean(np.log(of_truth)), abs=1e-6)
    assert reply["calibration"] is None


@pytest.mark.parametrize(
    ("fields", "status", "word"),
    [
        ({"labels": None}, 422, "`labels`"),
        ({"targets": [1.0]}, 422, "`targets`"),
        ({"labels": [0]}, 422, "60 in all"),
        ({"coverage": 1.5}, 422, "`coverage`"),
        ({"calibration": "best"}, 422, "calibration"),
        ({"alpha": 0.1}, 422, "alpha"),
        ({"tolerance": 0.1}, 422, "`tolerance`"),
        ({"members": [1, 2]}, 422, "`members`"),
        ({"ood_inputs": [[1.0]]}, 422, "4"),
        ({"inputs": []}, 422, "at least one row"),
    ],
)
def test_a_bad_evaluation_is_refused_with_the_reason(
    shared: httpx.Client, fields: dict[str, Any], status: int, word: str
) -> None:
    reply = shared.post(EVALUATE, json=_body() | fields)
    assert reply.status_code == status, reply.text
    assert word in reply.text
    _evaluated(shared, _body())


def test_the_queue_counts_rows_and_passes_and_a_deadline_ends_an_evaluation(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    server = serve(settings.model_copy(update={"max_queued_work": 70 * 16}))
    with httpx.Client(base_url=server.url, timeout=60) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        too_many = client.post(EVALUATE, json={**_body(60), "ood_inputs": normals(11, 1).tolist()})
        assert too_many.status_code == 422
        assert "rows x num_samples: expected at most 1120, got 1136" in too_many.text
        headers = {"X-Request-Timeout-Ms": "1"}
        late = client.post(EVALUATE, json=_body(), headers=headers)
        assert late.status_code == 504, late.text
        ten = {**_body(60), "ood_inputs": normals(10, 1).tolist()}
        assert _evaluated(client, ten)["report"]["ood_auroc"] is not None
