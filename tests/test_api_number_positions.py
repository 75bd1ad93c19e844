"""Numbers at every position, from training to selection: over HTTP and on the command line."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from dubito.acquisition.strategies.bald import bald
from dubito.cli import make_app
from dubito.settings import Settings

from .conftest import Server
from .declared import as_declared
from .fields import SCALE, SIDE, exported, fields, network, trained
from .http import npy, npz, upload

DEPTH = "/v1/models/depth"
MEASURES = ("variance", "epistemic_variance", "aleatoric_variance", "standard_error")
ROWS, FRESH, T = 120, 60, 16
Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, and the weights that it was made of."""
    path = tmp_path_factory.mktemp("fields")
    net = trained()
    torch.save(net.state_dict(), path / "depth.pt")
    exported(net, path / "depth.dubito", target_scale=SCALE, features="0")
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Server]:
    torch.set_num_threads(1)
    running = Server(Settings(data_dir=tmp_path_factory.mktemp("data"), num_samples=T))
    running.start()
    with httpx.Client(base_url=running.url, timeout=60) as client:
        upload(client, "depth", folder / "depth.dubito").raise_for_status()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=server.url, timeout=60, event_hooks={"response": [as_declared]}
    ) as client:
        yield client


@pytest.fixture(scope="module")
def calibrated(client: httpx.Client) -> httpx.Client:
    """The same client, once the model is calibrated."""
    made = _ok(client.post(f"{DEPTH}/calibrate", json={**labelled(ROWS, 1), "alpha": 0.1}))
    assert made["active"] is True
    return client


def labelled(count: int, seed: int) -> dict[str, object]:
    rows, target = fields(count, seed)
    return {"inputs": rows.tolist(), "targets": target.tolist()}


def predicted(client: httpx.Client, rows: NDArray[np.float32], **options: object) -> dict[str, Any]:
    body = {"inputs": rows.tolist(), **options}
    outputs: dict[str, Any] = _ok(client.post(f"{DEPTH}/predict", json=body))["outputs"]
    return outputs


def _ok(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code in (200, 201, 202), response.text
    body: dict[str, Any] = response.json()
    return body


def _detail(response: httpx.Response) -> str:
    assert response.status_code == 422, response.text
    return str(response.json()["detail"])


def test_maps_are_answered_position_by_position_and_as_a_row(calibrated: httpx.Client) -> None:
    found = predicted(calibrated, fields(3, seed=9)[0])
    mean, lower, upper = (
        np.array(one) for one in (found["mean"], *(found["interval"][end] for end in END))
    )
    assert mean.shape == lower.shape == upper.shape == (3, SIDE, SIDE, 2)
    assert ((lower < mean) & (mean < upper)).all()
    for name in MEASURES[:3]:
        each = np.array(found[f"position_{name}"])
        assert each.shape == (3, SIDE, SIDE, 2)
        np.testing.assert_allclose(each.mean((1, 2)), found[name], rtol=1e-9)
    total = np.array(found["epistemic_variance"]) + np.array(found["aleatoric_variance"])
    np.testing.assert_allclose(found["variance"], total, rtol=1e-9)
    noise = np.array(found["position_aleatoric_variance"])
    assert (noise == noise[0, 0, 0]).all()  # fitted, one for each output
    square = np.square(found["position_standard_error"]).mean((1, 2))
    np.testing.assert_allclose(np.square(found["standard_error"]), square, rtol=1e-9)
    assert set(found["decision"]) <= {"accept", "reject"}
    assert np.array(found["ood"]["score"]).shape == (3,)
    assert "quantiles" not in found


END = ("lower", "upper")


def test_raw_figures_say_what_no_calibration_has_promised(client: httpx.Client) -> None:
    found = predicted(client, fields(2, seed=9)[0], calibration="none")
    assert (found["interval"], found["decision"], found["ood"]) == (None, None, None)
    assert not np.any(found["aleatoric_variance"])
    assert found["variance"] == found["epistemic_variance"]


def test_arrays_hold_the_same_figures(calibrated: httpx.Client) -> None:
    rows = fields(2, seed=9)[0]
    reply = calibrated.post(
        f"{DEPTH}/predict",
        content=npy(rows),
        headers={"Content-Type": "application/x-npy", "Accept": "application/x-npz"},
    )
    arrays, plain = np.load(io.BytesIO(reply.content)), predicted(calibrated, rows)
    for name in ("mean", "variance", "position_variance"):
        np.testing.assert_allclose(arrays[name], plain[name])
    np.testing.assert_allclose(arrays["interval.lower"], plain["interval"]["lower"])
    kept = predicted(calibrated, rows, outputs=["samples", "mean"])
    assert np.array(kept["samples"]).shape == (2, T, SIDE, SIDE, 2)
    np.testing.assert_allclose(np.mean(kept["samples"], axis=1), kept["mean"], atol=1e-9)


def test_a_row_that_overflows_has_no_flag_and_no_decision(calibrated: httpx.Client) -> None:
    rows = fields(3, seed=9)[0]
    rows[1] = 3e38
    found = predicted(calibrated, rows)
    others = predicted(calibrated, rows[[0, 2]])
    assert [part[1] for part in found["ood"].values()] == [None, None, None]
    assert found["decision"][1] is None
    assert found["variance"][1] == [None, None]
    assert found["decision"][::2] == others["decision"]


def test_a_report_on_fresh_rows_keeps_what_was_promised(calibrated: httpx.Client) -> None:
    found = _ok(calibrated.post(f"{DEPTH}/evaluate", json=labelled(FRESH, seed=2)))
    report = found["report"]
    assert report["interval_coverage"] > 0.9 - 4 * (0.09 / FRESH + 0.09 / 24) ** 0.5
    assert report["position_coverage"] >= report["interval_coverage"] - 0.1
    for name in ("rmse", "nll", "crps", "ause", "interval_width", "ood_flag_rate"):
        assert found["intervals"][name][0] <= report[name] <= found["intervals"][name][1], name
    page = _ok(calibrated.get(f"{DEPTH}/calibration"))
    assert page["positions"] == {"head": "dense_regression", "share": 0.95}
    assert page["task"] == "regression"
    assert len(page["noise_variance"]) == len(page["conformal"]["thresholds"]) == 2
    shifted = {**labelled(FRESH, seed=2), "ood_inputs": (9 * fields(20, seed=3)[0]).tolist()}
    assert _ok(calibrated.post(f"{DEPTH}/evaluate", json=shifted))["report"]["ood_auroc"] > 0.9


def test_targets_may_come_as_arrays_and_with_holes(client: httpx.Client) -> None:
    rows, target = fields(ROWS, seed=3)
    holed = target.tolist()
    holed[5][2][1][0] = None
    target[5, 2, 1, 0] = np.nan
    plain = {"inputs": rows.tolist(), "targets": holed, "calibration": "none"}
    by_lists = _ok(client.post(f"{DEPTH}/evaluate", json=plain))
    by_array = client.post(
        f"{DEPTH}/evaluate?calibration=none",
        content=npz(inputs=rows, targets=target),
        headers={"Content-Type": "application/x-npz"},
    )
    assert _ok(by_array)["report"] == by_lists["report"]


@pytest.mark.parametrize(
    ("action", "options", "reason"),
    [
        ("evaluate", {"targets": [[0.0] * 4] * 2}, "shape (2, 4, 4, 2), got (2, 4): send maps"),
        ("evaluate", {"targets": None, "labels": [0, 1]}, "send `targets` alone"),
        ("calibrate", {"intervals": "cqr"}, "`intervals` expects `normalised`"),
        ("calibrate", {"target_risk": 0.1}, "ask for `target_acceptance`"),
        ("calibrate", {"position_share": 2.0}, "`position_share` expects"),
        ("calibrate", {"method": "moments"}, "use `mc`"),
        ("calibrate", {"scaling": "none"}, "belongs to a classification"),
        ("predict", {"targets": None, "outputs": ["quantiles"]}, "`outputs` of a dense_regression"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(
    client: httpx.Client, action: str, options: dict[str, object], reason: str
) -> None:
    body = {**labelled(2 if action == "evaluate" else 80, seed=1), **options}
    sent = {name: value for name, value in body.items() if value is not None}
    assert reason in _detail(client.post(f"{DEPTH}/{action}", json=sent))


def test_rows_are_chosen_by_the_figures_of_their_positions(calibrated: httpx.Client) -> None:
    rows = fields(12, seed=4)[0]
    found = predicted(calibrated, rows, calibration="none")
    epistemic = np.array(found["position_epistemic_variance"])
    each = 0.5 * np.log1p(epistemic / (0.01 * np.square(SCALE[1]))).sum(-1).mean((1, 2))
    scores = {"variance": np.sum(found["variance"], axis=1), "bald": each}
    body: dict[str, Any] = {"k": 3, "inputs": rows.tolist()}
    for strategy, score in scores.items():
        chosen = _ok(calibrated.post(f"{DEPTH}/select", json=body | {"strategy": strategy}))
        assert chosen["indices"] == np.argsort(-score)[:3].tolist(), strategy
        np.testing.assert_allclose(chosen["scores"], np.sort(score)[::-1][:3])
    for strategy in ("random", "coreset"):
        chosen = _ok(calibrated.post(f"{DEPTH}/select", json=body | {"strategy": strategy}))
        assert len(set(chosen["indices"])) == 3
    for strategy in ("entropy", "batchbald", "epig", "thompson"):
        reply = calibrated.post(f"{DEPTH}/select", json=body | {"strategy": strategy})
        assert "one of a dense_regression: variance, bald" in _detail(reply)


def test_the_information_of_one_distribution_is_what_it_was() -> None:
    epistemic, noise = np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]])
    assert bald(epistemic, noise) == pytest.approx(0.5 * np.log(8))


def test_feedback_is_refused_with_the_remedy_and_drift_is_watched(
    calibrated: httpx.Client,
) -> None:
    reply = calibrated.post(
        f"{DEPTH}/predict",
        json={"inputs": fields(1, seed=0)[0].tolist()},
        headers={"X-Request-Id": "depth-1"},
    )
    assert reply.status_code == 200
    body = {"request_id": "depth-1", "rows": [{"row": 0, "target": [1.0, 2.0]}]}
    for name in ("depth-1", "never-seen"):
        reply = calibrated.post(f"{DEPTH}/feedback", json={**body, "request_id": name})
        assert "send labelled rows to evaluate instead" in _detail(reply)
    drift = _ok(calibrated.get(f"{DEPTH}/monitoring"))["drift"]
    assert drift["score"] == "overall"


@pytest.mark.parametrize("format", ["npz", "parquet"])
def test_a_pool_is_predicted_by_a_job_and_chosen_from(
    calibrated: httpx.Client, format: str
) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    rows, name = fields(7, seed=5)[0], f"fields-{format}"
    _ok(calibrated.post(
        f"/v1/pools?name={name}", content=npy(rows), headers={"Content-Type": "application/x-npy"}
    ))  # fmt: skip
    asked = {"pool": name, "format": format, "num_samples": T}
    content = _result(calibrated, "predict", asked).content
    expected = predicted(calibrated, rows)
    if format == "npz":
        arrays = np.load(io.BytesIO(content))
        for column in ("mean", "variance", "position_variance"):
            np.testing.assert_allclose(arrays[column], expected[column], rtol=1e-6, atol=1e-6)
    else:
        from pyarrow import parquet

        table = parquet.read_table(io.BytesIO(content))
        np.testing.assert_allclose(table["mean"].to_pylist(), expected["mean"], atol=1e-6)
    chosen = {"strategy": "bald", "k": 2, "num_samples": T}
    at_once = _ok(calibrated.post(f"{DEPTH}/select", json=chosen | {"inputs": rows.tolist()}))
    by_job = _result(calibrated, "select", chosen | {"pool": name}).json()
    assert by_job["indices"] == at_once["indices"]


def _result(client: httpx.Client, action: str, body: dict[str, object]) -> httpx.Response:
    """What a job comes to, once it is done."""
    job = _ok(client.post(f"{DEPTH}/{action}", json=body))["job"]
    with client.stream("GET", f"/v1/jobs/{job}/events") as events:
        for _ in events.iter_lines():
            pass
    assert _ok(client.get(f"/v1/jobs/{job}"))["state"] == "succeeded"
    return client.get(f"/v1/jobs/{job}/result")


def test_two_versions_answer_as_an_ensemble(client: httpx.Client, tmp_path: Path) -> None:
    torch.manual_seed(3)
    exported(network(), tmp_path / "other.dubito", target_scale=SCALE)
    upload(client, "depth", tmp_path / "other.dubito").raise_for_status()
    rows = fields(2, seed=9)[0]
    found = predicted(client, rows, method="ensemble", members=[1, 2])
    assert np.array(found["mean"]).shape == (2, SIDE, SIDE, 2)
    assert np.array(found["variance"]).shape == (2, 2)


def test_the_command_line_goes_from_weights_to_a_choice(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    run: Callable[..., str] = lambda *words: _run([str(word) for word in words])  # noqa: E731
    rows, target = fields(ROWS, seed=1)
    np.save(tmp_path / "rows.npy", rows[:3])
    np.savez(tmp_path / "known.npz", inputs=rows, targets=target)
    out, known = tmp_path / "depth.dubito", tmp_path / "known.npz"
    source = Path(__file__).with_name("fields.py")
    run(
        *("export", f"{source}:network", "--weights", folder / "depth.pt", "--out", out),
        *("--example", f"8x1x{SIDE}x{SIDE}", "--task", "regression", "--output", "mean"),
        *("--output-axis", "1"),
    )
    shown = run("inspect", out)
    assert "regression, numbers at every position (axis 1)" in shown
    assert "mean, 2 per position" in shown
    run("register", out, "--model", "depth")
    said = run("calibrate", "depth", "--data", known, "--position-share", "0.9")
    assert "calibration 1, active" in said
    assert "position_coverage" in run("evaluate", "depth", "--data", known)
    reply = json.loads(run("predict", "depth", "--inputs", tmp_path / "rows.npy", "--json"))
    assert np.array(reply["outputs"]["interval"]["lower"]).shape == (3, SIDE, SIDE, 2)
    assert "ood flag" in run("predict", "depth", "--inputs", tmp_path / "rows.npy")
    rows_file = ("--data", tmp_path / "rows.npy")
    chosen = run("select", "depth", *rows_file, "--strategy", "variance", "-k", "2", "--json")
    assert len(json.loads(chosen)["indices"]) == 2


def _run(words: list[str]) -> str:
    result = CliRunner().invoke(make_app(), words)
    assert result.exit_code == 0, result.output
    return result.stdout
