"""Feedback and monitoring over HTTP, on tiny real networks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import create_engine, text
from structlog.testing import capture_logs

from dubito.registry.database import Database
from dubito.registry.monitoring import CalibrationName, Journal, PredictionFact
from dubito.settings import Settings

from .conftest import CLASSES, Bundles, Server
from .http import normals, upload
from .test_cli import _run

MODEL = "/v1/models/animals"
WINDOW = 10


@pytest.fixture
def settings(tmp_path: Any) -> Settings:
    return Settings(data_dir=tmp_path / "data", num_samples=16, monitoring_window=WINDOW)


def _calibrate(client: httpx.Client, path: str = MODEL) -> None:
    labels = np.random.default_rng(5).integers(0, len(CLASSES), 120).tolist()
    body = {"inputs": normals(120, seed=3).tolist(), "labels": labels, "alpha": 0.1}
    client.post(f"{path}/calibrate", json=body).raise_for_status()


def _predict(client: httpx.Client, count: int = 3, seed: int = 0, **headers: str) -> dict[str, Any]:
    body = {"inputs": normals(count, seed).tolist()}
    reply = client.post(f"{MODEL}/predict", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def _feedback(client: httpx.Client, named: str, *rows: dict[str, Any]) -> httpx.Response:
    return client.post(f"{MODEL}/feedback", json={"request_id": named, "rows": list(rows)})


def _monitoring(client: httpx.Client, path: str = MODEL) -> dict[str, Any]:
    page: dict[str, Any] = client.get(f"{path}/monitoring").raise_for_status().json()
    return page


@pytest.fixture
def calibrated(ready: httpx.Client) -> httpx.Client:
    _calibrate(ready)
    return ready


def test_outcomes_are_counted_as_the_reply_said(calibrated: httpx.Client) -> None:
    answer = _predict(calibrated, WINDOW + 4)
    outputs, truths = answer["outputs"], ["ant"] * (WINDOW + 4)
    rows = [{"row": row, "label": label} for row, label in enumerate(truths)]
    rows[0]["label"] = 0  # an index is as good as a name
    stored = _feedback(calibrated, answer["request_id"], *rows)
    assert stored.status_code == 200, stored.text
    assert stored.json()["stored"] == [
        {"version": 1, "calibration": 1, "new": WINDOW + 4, "known": 0}
    ]
    page = _monitoring(calibrated)
    assert (page["version"], page["calibration"], page["alarms"]) == (1, 1, {})
    last = slice(4, None)
    found = page["outcomes"]
    is_covered = ["ant" in members for members in outputs["prediction_set"][last]]
    is_right = [label == "ant" for label in outputs["label"][last]]
    assert (found["rows"], found["window"], found["windows_judged"]) == (WINDOW + 4, WINDOW, 1)
    assert (found["promised_coverage"], found["promised_flag_rate"]) == (0.9, 0.1)
    assert found["coverage"][0]["observed"] == np.mean(is_covered)
    assert found["flag_rate"]["observed"] == np.mean(outputs["ood"]["flag"][last])
    assert found["accuracy"] == np.mean(is_right)
    assert 0 <= found["ece"] <= 1
    assert page["predictions"] == {"waiting": 0, "written": WINDOW + 4, "dropped": 0}


def test_the_drift_test_counts_each_request_once(calibrated: httpx.Client) -> None:
    for _ in range(2):
        _predict(calibrated, 3)
    _predict(calibrated, 2, seed=1)
    calibrated.post(f"{MODEL}/predict", json={"inputs": normals(4).tolist(), "calibration": "none"})
    drift = _monitoring(calibrated)["drift"]
    assert (drift["rows"], drift["rows_repeated"], drift["level"]) == (5, 3, 100.0)
    assert drift["score"] == "overall"
    assert (drift["alarm_since"], 0 < drift["martingale"] <= drift["largest"]) == (None, True)


def test_inputs_that_changed_ring_and_are_logged_once_until_a_new_calibration(
    calibrated: httpx.Client,
) -> None:
    with capture_logs() as logs:
        for seed in range(40):
            body = {"inputs": (0.01 * normals(10, seed)).tolist()}
            calibrated.post(f"{MODEL}/predict", json=body).raise_for_status()
        page = _monitoring(calibrated)
    assert set(page["alarms"]) == {"drift"}
    assert page["drift"]["alarm_after_rows"] <= 400
    rang = [line for line in logs if line["log_level"] == "warning"]
    assert [(line["model"], line["version"], line["calibration"]) for line in rang] == [
        ("animals", 1, 1)
    ]
    _calibrate(calibrated)
    page = _monitoring(calibrated)
    assert (page["calibration"], page["alarms"], page["drift"]) == (2, {}, None)


def test_truths_outside_the_sets_ring_once(calibrated: httpx.Client) -> None:
    answer = _predict(calibrated, 200)
    missed = [
        {"row": row, "label": next(name for name in CLASSES if name not in members)}
        for row, members in enumerate(answer["outputs"]["prediction_set"])
        if len(members) < len(CLASSES)
    ]
    assert len(missed) >= 2 * WINDOW
    with capture_logs() as logs:
        for part in (missed[:WINDOW], missed[WINDOW : 2 * WINDOW]):
            _feedback(calibrated, answer["request_id"], *part).raise_for_status()
    assert [line["alarm"] for line in logs if line["log_level"] == "warning"] == ["coverage"]
    page = _monitoring(calibrated)
    assert "coverage" in page["alarms"]
    assert page["outcomes"]["coverage"][0]["observed"] == 0.0


def test_a_regression_is_judged_by_its_intervals(client: httpx.Client, bundles: Bundles) -> None:
    upload(client, "animals", bundles("regression")).raise_for_status()
    targets = np.random.default_rng(5).normal(10, 2, 120).tolist()
    body = {"inputs": normals(120, seed=3).tolist(), "targets": targets, "alpha": 0.1}
    client.post(f"{MODEL}/calibrate", json=body).raise_for_status()
    answer = _predict(client, 3)
    upper = [ends[0] for ends in answer["outputs"]["interval"]["upper"]]
    rows = [
        {"row": 0, "target": upper[0] - 1e-6},
        {"row": 1, "target": [upper[1] + 1e-6]},
        {"row": 2, "target": upper[2]},
    ]
    _feedback(client, answer["request_id"], *rows).raise_for_status()
    found = _monitoring(client)["outcomes"]
    assert found["coverage"][0]["observed"] == pytest.approx(2 / 3)
    assert (found["ece"], found["accuracy"]) == (None, None)
    for wrong in ({"row": 0, "label": "ant"}, {"row": 0, "target": [1.0, 2.0]}, {"row": 0}):
        assert _feedback(client, answer["request_id"], wrong).status_code == 422


def test_an_equal_truth_again_changes_nothing_and_another_is_refused(
    calibrated: httpx.Client,
) -> None:
    named = _predict(calibrated)["request_id"]
    first = {"row": 0, "label": "bee"}
    _feedback(calibrated, named, first).raise_for_status()
    again = _feedback(calibrated, named, {"row": 0, "label": 1}, {"row": 1, "label": "cat"})
    assert [(one["new"], one["known"]) for one in again.json()["stored"]] == [(1, 1)]
    refused = _feedback(calibrated, named, {"row": 2, "label": "ant"}, {"row": 0, "label": "ant"})
    assert (refused.status_code, "the first one counts" in refused.json()["detail"]) == (409, True)
    assert _monitoring(calibrated)["outcomes"]["rows"] == 2


def test_equal_requests_to_two_versions_share_one_id_and_one_truth(
    calibrated: httpx.Client, bundles: Bundles
) -> None:
    named = _predict(calibrated)["request_id"]
    upload(calibrated, "animals", bundles("second")).raise_for_status()
    _calibrate(calibrated, f"{MODEL}/versions/2")
    calibrated.put(f"{MODEL}/aliases/default", json={"version": 2}).raise_for_status()
    assert _predict(calibrated)["request_id"] == named
    stored = _feedback(calibrated, named, {"row": 0, "label": "ant"}).json()["stored"]
    assert [(one["version"], one["new"]) for one in stored] == [(1, 1), (2, 1)]
    one = calibrated.post(
        f"{MODEL}/versions/2/feedback",
        json={"request_id": named, "rows": [{"row": 1, "label": "ant"}]},
    )
    assert [part["version"] for part in one.json()["stored"]] == [2]
    assert _monitoring(calibrated, f"{MODEL}/versions/1")["outcomes"]["rows"] == 1


BAD_FEEDBACK: list[tuple[Any, str]] = [
    ([{"row": 3, "label": "ant"}], "from 0 to 2"),
    ([{"row": -1, "label": "ant"}], "expected at least 0, got -1"),
    ([{"row": 0, "label": "dog"}], "`label` of version 1 expects a name (ant, bee, cat)"),
    ([{"row": 0, "label": 3}], "index from 0 to 2"),
    ([{"row": 0, "label": True}], "expected a whole number or text, got true"),
    ([{"row": 0, "label": ["ant"]}], "got a list: outcomes of several labels"),
    ([{"row": 0, "target": 1.0}], "expects `label` and no `target`"),
    ([{"row": 0, "label": "ant", "target": 1.0}], "expects `label` and no `target`"),
    ([{"row": 0}], "expects `label`"),
    ([{"row": 0, "label": "ant"}] * 2, "row 0 twice"),
    ([{"row": 1, "label": "ant"}, {"row": 9, "label": "ant"}], "from 0 to 2"),
    ([], "expected a list of 1 or more"),
    ([{"row": 0, "label": "ant", "colour": 1}], "nknown field"),
    ("all", "expected a list, got 'all'"),
]


def test_a_bad_feedback_is_refused_and_nothing_is_stored(calibrated: httpx.Client) -> None:
    named = _predict(calibrated)["request_id"]
    for rows, message in BAD_FEEDBACK:
        reply = calibrated.post(f"{MODEL}/feedback", json={"request_id": named, "rows": rows})
        assert (reply.status_code, message in reply.text) == (422, True), reply.text
    assert _monitoring(calibrated)["outcomes"]["rows"] == 0


def test_what_is_not_known_is_a_404(calibrated: httpx.Client) -> None:
    good = {"row": 0, "label": "ant"}
    assert _feedback(calibrated, "nobody", good).status_code == 404
    raw = {"inputs": normals(1).tolist(), "calibration": "none"}
    named = calibrated.post(f"{MODEL}/predict", json=raw).json()["request_id"]
    assert _feedback(calibrated, named, good).status_code == 404
    for path in ("/v1/models/nobody", f"{MODEL}/versions/7", f"{MODEL}/versions/best"):
        body = {"request_id": "x", "rows": [good]}
        assert calibrated.post(f"{path}/feedback", json=body).status_code == 404
        assert calibrated.get(f"{path}/monitoring").status_code == 404


def test_without_a_calibration_there_is_nothing_to_tell(ready: httpx.Client) -> None:
    _predict(ready)
    page = _monitoring(ready)
    assert (page["calibration"], page["drift"], page["outcomes"]) == (None, None, None)


def test_outcomes_survive_a_restart_and_the_drift_test_starts_anew(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    first = serve(settings)
    with httpx.Client(base_url=first.url, timeout=60) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        _calibrate(client)
        named = _predict(client)["request_id"]
        _feedback(client, named, {"row": 0, "label": "ant"}).raise_for_status()
        before = _monitoring(client)["outcomes"]
    first.stop()
    with httpx.Client(base_url=serve(settings).url, timeout=60) as client:
        page = _monitoring(client)
        assert (page["outcomes"], page["drift"]) == (before, None)
        _feedback(client, named, {"row": 1, "label": "ant"}).raise_for_status()
        assert _monitoring(client)["outcomes"]["rows"] == 2


def test_a_deleted_version_takes_its_rows_along(
    calibrated: httpx.Client, bundles: Bundles, settings: Settings
) -> None:
    named = _predict(calibrated)["request_id"]
    _feedback(calibrated, named, {"row": 0, "label": "ant"}).raise_for_status()
    upload(calibrated, "animals", bundles("second")).raise_for_status()
    calibrated.put(f"{MODEL}/aliases/default", json={"version": 2}).raise_for_status()
    engine = create_engine(settings.registry_url)

    def counts() -> list[int]:
        with engine.connect() as connection:
            return [
                connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0
                for table in ("predictions", "outcomes", "watches")
            ]

    assert counts() == [1, 1, 1]
    calibrated.delete(f"{MODEL}/versions/1").raise_for_status()
    assert counts() == [0, 0, 0]
    engine.dispose()


def test_a_setting_turns_it_off(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    off = settings.model_copy(update={"monitoring": False})
    with httpx.Client(base_url=serve(off).url, timeout=60) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        _calibrate(client)
        named = _predict(client)["request_id"]
        assert _feedback(client, named, {"row": 0, "label": "ant"}).status_code == 404
        page = _monitoring(client)
        assert (page["drift"], page["predictions"]["written"]) == (None, 0)


def test_without_room_predictions_are_dropped_and_counted_and_still_answered(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    small = settings.model_copy(update={"monitoring_queue_bytes": 10})
    with httpx.Client(base_url=serve(small).url, timeout=60) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        _calibrate(client)
        _predict(client)
        assert _monitoring(client)["predictions"]["dropped"] == 3


def test_only_the_newest_rows_are_kept(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    few = settings.model_copy(update={"kept_predictions": 5})
    with httpx.Client(base_url=serve(few).url, timeout=60) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        _calibrate(client)
        named = []
        for seed in range(4):
            named.append(_predict(client, 2, seed)["request_id"])
            _monitoring(client)  # everything is written by now
        good = {"row": 0, "label": "ant"}
        codes = [_feedback(client, one, good).status_code for one in named]
        assert codes == [404, 404, 200, 200]


def test_the_command_shows_how_things_stand(
    calibrated: httpx.Client,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = _predict(calibrated)["request_id"]
    _feedback(calibrated, named, {"row": 0, "label": "ant"}).raise_for_status()
    url = str(calibrated.base_url)
    code, out, _ = _run(capsys, monkeypatch, "monitor", "animals", "--url", url)
    assert code == 0
    assert "martingale" in out
    assert "coverage" in out
    assert "no alarm" in out
    code, out, _ = _run(capsys, monkeypatch, "monitor", "animals", "1", "--url", url, "--json")
    assert (code, '"level":100' in out.replace(" ", "")) == (0, True)
    assert _run(capsys, monkeypatch, "monitor", "nobody", "--url", url)[0] == 1


def test_rows_of_a_calibration_that_is_gone_are_left_out_of_a_batch(database_url: str) -> None:
    database = Database(database_url)
    gone = PredictionFact(CalibrationName("nobody", 1, 1), "x", 4, b"")
    before = database.changes()
    assert Journal(database).write([gone]) == 4
    assert database.changes() == before
    database.close()


def test_many_feedbacks_at_once_are_numbered_without_gaps(calibrated: httpx.Client) -> None:
    named = _predict(calibrated, 24)["request_id"]
    codes: list[int] = []

    def send(first: int) -> None:
        for row in range(first, first + 4):
            codes.append(_feedback(calibrated, named, {"row": row, "label": "ant"}).status_code)

    threads = [threading.Thread(target=send, args=(first,)) for first in (0, 0, 4, 8, 12, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(codes) == {200}
    assert _monitoring(calibrated)["outcomes"]["rows"] == 20
