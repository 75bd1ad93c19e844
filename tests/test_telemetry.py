"""`/metrics`: what is counted agrees with what happened; its labels are few."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dubito.settings import Settings
from dubito.telemetry.histogram import BulkHistogram
from dubito.telemetry.labels import MOST_MODELS, OTHERS, ModelLabels

from .conftest import Bundles, Server
from .http import ANIMALS, normals, predicted
from .processes import serving

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
UNITS = ("seconds", "bytes", "rows", "nats", "ratio", "total", "info")
UNITLESS = {"dubito_queue_work", "dubito_batch_work", "dubito_jobs", "dubito_loaded_versions"}
UNITLESS |= {"dubito_ready", "dubito_alarm", "dubito_samples_vary", "dubito_live_outcomes"}
UNITLESS |= {"dubito_drift_martingale", "dubito_drift_alarm_level", "dubito_http_requests"}
UNITLESS |= {"dubito_rejected_requests", "dubito_running_devices"}


def series(client: httpx.Client) -> Series:
    """All samples by name and labels."""
    reply = client.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["Content-Type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


def grown(before: Series, after: Series, name: str, **labels: str) -> float:
    """How much a sample has grown."""
    key = name, frozenset(labels.items())
    return after[key] - before.get(key, 0.0)


@pytest.fixture(scope="module")
def calibrated(shared: httpx.Client) -> httpx.Client:
    """`shared`, with an active calibration and true outcomes of a prediction."""
    rows = normals(120, seed=1)
    labels = [int(label) for label in rows[:, 0] > 0]
    body = {"inputs": rows.tolist(), "labels": labels, "num_samples": 16, "scaling": "none"}
    fitted = shared.post(f"{ANIMALS}/calibrate", json=body)
    assert fitted.status_code == 200, fitted.text
    number = fitted.json()["calibration"]
    assert shared.put(f"{ANIMALS}/calibration", json={"active": number}).status_code == 200
    return shared


def test_requests_are_counted_by_route_and_status(shared: httpx.Client) -> None:
    before = series(shared)
    predicted(shared, normals(3))
    shared.post(f"{ANIMALS}/predict", json={"inputs": []})
    shared.post("/v1/models/nothing/predict", json={"inputs": [[1.0]]})
    shared.get("/a/path/of/nobody")
    shared.head("/v1/models")
    after = series(shared)
    route = "/v1/models/{model}/predict"
    for status in ("200", "404", "422"):
        name = "dubito_http_requests_total"
        assert grown(before, after, name, route=route, method="POST", status=status) == 1
    unknown = {"route": "(none)", "method": "(none)", "status": "404"}
    assert grown(before, after, "dubito_http_requests_total", **unknown) == 1
    assert grown(before, after, "dubito_http_request_seconds_count", route=route) == 3
    assert grown(before, after, "dubito_rejected_requests_total", reason="not-found") == 2
    assert grown(before, after, "dubito_rejected_requests_total", reason="input") == 1
    assert not [key for key in after if "nobody" in str(key) or "nothing" in str(key)]


def test_times_and_batches_of_predictions_are_counted(shared: httpx.Client) -> None:
    before = series(shared)
    for rows in (3, 5):
        predicted(shared, normals(rows), num_samples=8)
    after = series(shared)
    for name in ("queue", "compute"):
        count = grown(before, after, f"dubito_{name}_seconds_count", action="predict")
        assert count == 2
    assert grown(before, after, "dubito_batch_rows_sum") == 8
    assert grown(before, after, "dubito_batch_work_sum") == 64
    assert grown(before, after, "dubito_batch_fill_ratio_sum") == pytest.approx(8 / 256)
    assert grown(before, after, "dubito_predicted_rows_total", model="animals") == 8
    assert after["dubito_queue_rows", frozenset()] == 0
    assert after["dubito_loaded_bytes", frozenset()] > 0
    assert after["dubito_ready", frozenset()] == 1


def test_entropies_and_flags_are_those_of_the_replies(calibrated: httpx.Client) -> None:
    before = series(calibrated)
    replies = [predicted(calibrated, normals(rows, seed=rows)) for rows in (2, 40)]
    after = series(calibrated)
    for output in ("predictive_entropy", "mutual_information"):
        values = [value for reply in replies for value in reply["outputs"][output]]
        name = f"dubito_{output}_nats"
        assert grown(before, after, f"{name}_count", model="animals") == 42
        assert grown(before, after, f"{name}_sum", model="animals") == pytest.approx(sum(values))
        for bound in (0.1, 0.5, 1.0):
            count = grown(before, after, f"{name}_bucket", model="animals", le=str(bound))
            assert count == sum(value <= bound for value in values)
    flags = [flag for reply in replies for flag in reply["outputs"]["ood"]["flag"]]
    assert grown(before, after, "dubito_judged_rows_total", model="animals") == 42
    assert grown(before, after, "dubito_flagged_rows_total", model="animals") == sum(flags)


def test_live_coverage_and_drift_are_those_of_monitoring(calibrated: httpx.Client) -> None:
    reply = predicted(calibrated, normals(30, seed=7))
    truths = [{"row": row, "label": row % 3} for row in range(30)]
    body = {"request_id": reply["request_id"], "rows": truths}
    assert calibrated.post(f"{ANIMALS}/feedback", json=body).status_code == 200
    page = calibrated.get(f"{ANIMALS}/monitoring").json()
    now = series(calibrated)
    of = frozenset({("model", "animals"), ("version", "1")})
    assert now["dubito_live_outcomes", of] == 30
    assert now["dubito_live_coverage_ratio", of] == page["outcomes"]["coverage"][0]["observed"]
    assert now["dubito_promised_coverage_ratio", of] == page["outcomes"]["promised_coverage"]
    assert now["dubito_live_flag_ratio", of] == page["outcomes"]["flag_rate"]["observed"]
    assert now["dubito_drift_martingale", of] == pytest.approx(page["drift"]["martingale"])
    for alarm in ("coverage", "flag_rate", "drift"):
        key = "dubito_alarm", of | {("alarm", alarm)}
        assert now[key] == (alarm in page["alarms"])


def test_names_have_base_units_and_labels_are_few(calibrated: httpx.Client) -> None:
    families = list(text_string_to_metric_families(calibrated.get("/metrics").text))
    ours = [family for family in families if family.name.startswith("dubito_")]
    assert len(ours) > 25
    for family in ours:
        assert family.documentation
        has_unit = family.name.endswith(UNITS)
        assert has_unit or family.name in UNITLESS, family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        known = {"route", "method", "status", "reason", "action", "model", "version"}
        assert labels <= known | {"state", "outcome", "alarm", "device"}


def test_models_beyond_a_hundred_share_a_series() -> None:
    labels = ModelLabels()
    names = [f"model-{number}" for number in range(MOST_MODELS + 2)]
    assert [labels.of(name) for name in names] == [*names[:MOST_MODELS], OTHERS, OTHERS]
    assert labels.of(names[0]) == names[0]


@pytest.mark.parametrize("count", [0, 1, 5, 300])
def test_a_histogram_of_rows_counts_as_a_comparison_does(count: int) -> None:
    values = np.random.default_rng(0).choice([0.1, 0.25, 0.5, 1.0, 7.0, np.nan, np.inf], count)
    histogram = BulkHistogram("h", "text", (0.1, 0.5, 1.0), "model")
    for part in np.array_split(values, 3):
        histogram.observe("m", part)
    registry = CollectorRegistry()
    registry.register(histogram)
    (family,) = text_string_to_metric_families(generate_latest(registry).decode())
    found = {sample.labels.get("le", sample.name): sample.value for sample in family.samples}
    finite = values[np.isfinite(values)]
    for bound in (0.1, 0.5, 1.0, np.inf):
        assert found[str(bound).replace("inf", "+Inf")] == (finite <= bound).sum()
    assert found["h_sum"] == pytest.approx(finite.sum())


def test_calls_over_grpc_are_counted_too(
    serve: Callable[[Settings], Server], settings: Settings
) -> None:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    server = serve(settings.model_copy(update={"grpc_port": 0}))
    route = "/inference.GRPCInferenceService/ModelReady"
    address = f"127.0.0.1:{server.app.state.rpc.port}"
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary(route)(b"\x0a\x01a", timeout=60)
    with httpx.Client(base_url=server.url) as client:
        now = series(client)
    of = frozenset({"route": route, "method": "POST", "status": "404"}.items())
    assert now["dubito_http_requests_total", of] == 1


def test_what_is_refused_below_the_routes_is_counted(shared: httpx.Client) -> None:
    before = series(shared)
    many = {f"X-{number}": "1" for number in range(200)}
    assert shared.get("/v1/models", headers=many).status_code == 431
    assert grown(before, series(shared), "dubito_rejected_requests_total", reason="headers") == 1


def test_requests_are_logged_as_json_where_it_is_asked_for(
    tmp_path: Path, bundles: Bundles
) -> None:
    with serving(tmp_path / "data", {"DUBITO_LOG_REQUESTS": "true"}) as server:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            kind = {"Content-Type": "application/octet-stream"}
            bundle = bundles("first").read_bytes()
            client.post("/v1/models/animals/versions", content=bundle, headers=kind)
            reply = predicted(client, normals(2))
        assert server.tells(reply["request_id"], 30)
    told = [json.loads(line) for line in server.lines if reply["request_id"] in line]
    assert [line["event"] for line in told] == ["request"]
    known = {"route": "/v1/models/{model}/predict", "model": "animals", "version": 1, "status": 200}
    assert known.items() <= told[0].items()
    assert {"request_id", "key", "method", "seconds", "timestamp", "level"} <= told[0].keys()
    assert re.fullmatch(r"\d+(\.\d+)?(e-\d+)?", str(told[0]["seconds"]))
