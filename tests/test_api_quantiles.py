"""A network of quantiles from training to selection: over HTTP, and on the command line."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.torch

from dubito.settings import Settings

from . import quantiles
from .conftest import Server
from .declared import as_declared
from .http import npy, npz, upload
from .quantiles import DEVIATION, LEVELS, MEAN, rows, trained
from .shell import run_command

MODEL = "/v1/models/spread"
NPZ = "application/x-npz"
HELD_OUT = 300


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Of a server with the model, its replies held against `/openapi.json`."""
    folder = tmp_path_factory.mktemp("quantiles")
    server = Server(Settings(data_dir=folder / "data", num_samples=32, poll_ms=20))
    server.start()
    hooks = {"response": [as_declared]}
    with httpx.Client(base_url=server.url, timeout=60, event_hooks=hooks) as client:
        upload(client, "spread", quantiles.exported(folder / "spread.dubito")).raise_for_status()
        yield client
    server.stop()


@pytest.fixture(scope="module")
def calibrated(client: httpx.Client) -> httpx.Client:
    """The same, once it is calibrated."""
    answer = posted(client, "calibrate", **held_out(1, HELD_OUT), alpha=0.1)
    assert (answer["calibration"], answer["active"]) == (1, True)
    assert answer["verdict"].startswith("nothing to judge")
    return client


def held_out(seed: int, count: int) -> dict[str, Any]:
    inputs, targets = rows(count, seed)
    return {"inputs": inputs.tolist(), "targets": targets[:, 0].tolist()}


def posted(client: httpx.Client, action: str, **fields: Any) -> dict[str, Any]:
    reply = client.post(f"{MODEL}/{action}", json=fields)
    assert reply.status_code in (200, 202), reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def columns_of(reply: dict[str, Any]) -> dict[str, np.ndarray]:
    """Columns of numbers, those within others named with a dot."""
    flat: dict[str, np.ndarray] = {}
    for name, column in reply["outputs"].items():
        parts = column if isinstance(column, dict) else {"": column}
        flat |= {f"{name}.{part}".rstrip("."): np.array(one) for part, one in parts.items()}
    return flat


def test_quantiles_are_answered_by_level_with_a_calibration_or_without(
    calibrated: httpx.Client,
) -> None:
    inputs = rows(5, 2)[0].tolist()
    raw = columns_of(posted(calibrated, "predict", inputs=inputs, calibration="none"))
    got = columns_of(posted(calibrated, "predict", inputs=inputs))
    names = [f"quantiles.{level}" for level in LEVELS]
    assert [name for name in got if name.startswith("quantiles")] == names
    for name in (*names, "mean", "variance", "standard_error", "aleatoric_variance"):
        assert got[name].shape == (5, 1)
        np.testing.assert_array_equal(got[name], raw[name])
    assert (np.diff([got[name] for name in names], axis=0) > 0).all()
    np.testing.assert_allclose(got["mean"], got["quantiles.0.5"], rtol=1e-12)
    np.testing.assert_allclose(
        got["variance"], got["epistemic_variance"] + got["aleatoric_variance"]
    )
    assert raw["interval"].item() is None
    moved = got["quantiles.0.05"] - got["interval.lower"]
    np.testing.assert_allclose(got["interval.upper"] - got["quantiles.0.95"], moved, rtol=1e-3)
    assert set(got["decision"]) <= {"accept", "review", "reject"}
    narrow = columns_of(posted(calibrated, "predict", inputs=inputs, coverage=0.5))
    assert (narrow["interval.lower"] > got["interval.lower"]).all()
    assert (narrow["interval.upper"] < got["interval.upper"]).all()


def test_arrays_and_samples_hold_the_same_figures(calibrated: httpx.Client) -> None:
    inputs = rows(4, 3)[0]
    plain = columns_of(posted(calibrated, "predict", inputs=inputs.tolist()))
    headers = {"Content-Type": "application/x-npy", "Accept": NPZ}
    packed = calibrated.post(f"{MODEL}/predict", content=npy(inputs), headers=headers)
    arrays = np.load(io.BytesIO(packed.content))
    for level in LEVELS:
        np.testing.assert_allclose(arrays[f"quantiles.{level}"], plain[f"quantiles.{level}"])
    asked = posted(calibrated, "predict", inputs=inputs.tolist(), outputs=["samples", "mean"])
    found = columns_of(asked)
    assert found["samples"].shape == (4, 32, 1)
    np.testing.assert_allclose(found["samples"].mean(1), found["mean"])


def test_a_report_keeps_what_was_promised(calibrated: httpx.Client) -> None:
    """The threshold of 135 rows misses .9 by .026, 400 rows by .015: within four of both."""
    strange = {"ood_inputs": (50 * rows(40, 5)[0]).tolist()}
    found = posted(calibrated, "evaluate", **held_out(4, 400), **strange)
    report, line = found["report"], found["curves"]["coverage"]
    assert report["interval_coverage"] == pytest.approx(0.9, abs=0.12)
    assert (report["nll"], report["crps"]) == (None, None)
    assert 0 < report["pinball"] < report["rmse"]
    assert found["intervals"]["pinball"][0] < report["pinball"] < found["intervals"]["pinball"][1]
    assert line["x"] == list(LEVELS)
    np.testing.assert_allclose(line["y"], LEVELS, atol=0.15)
    assert report["ood_auroc"] > 0.9
    page = calibrated.get(f"{MODEL}/calibration").json()
    assert page["quantile_levels"] == list(LEVELS)
    assert (page["task"], page["intervals"]) == ("regression", "cqr")
    assert page["noise_variance"] is None


def test_truths_come_as_arrays_and_outcomes_afterwards(calibrated: httpx.Client) -> None:
    inputs, targets = rows(50, 6)
    by_list = posted(calibrated, "evaluate", inputs=inputs.tolist(), targets=targets.tolist())
    body, headers = npz(inputs=inputs, targets=targets), {"Content-Type": NPZ}
    by_array = calibrated.post(f"{MODEL}/evaluate", content=body, headers=headers)
    assert by_array.json()["report"] == by_list["report"]

    answer = posted(calibrated, "predict", inputs=inputs.tolist())
    upper_B = np.array(answer["outputs"]["interval"]["upper"])[:, 0]
    truths = [
        {"row": 0, "target": upper_B[0] - 1e-6},
        {"row": 1, "target": upper_B[1] + 1e-6},
    ]
    posted(calibrated, "feedback", request_id=answer["request_id"], rows=truths)
    monitored = calibrated.get(f"{MODEL}/monitoring").json()
    assert monitored["outcomes"]["coverage"][0]["observed"] == 0.5
    assert monitored["drift"]["score"] == "overall"


@pytest.mark.parametrize(
    ("strategy", "asked"),
    [
        *(("variance", {}), ("bald", {}), ("batchbald", {}), ("coreset", {}), ("random", {})),
        *(("expected_improvement", {"incumbent": MEAN}), ("upper_confidence_bound", {})),
        ("thompson", {"maximize": False}),
        ("epig", {"targets": rows(5, 8)[0].tolist()}),
    ],
)
def test_rows_are_chosen_by_their_own_figures(
    client: httpx.Client, strategy: str, asked: dict[str, Any]
) -> None:
    inputs = rows(20, 7)[0].tolist()
    found = posted(client, "select", inputs=inputs, strategy=strategy, k=3, **asked)
    assert len(set(found["indices"])) == 3
    if strategy in ("variance", "bald"):
        got = columns_of(posted(client, "predict", inputs=inputs, calibration="none"))
        epistemic_B, own_B = got["epistemic_variance"][:, 0], got["aleatoric_variance"][:, 0]
        score_B = epistemic_B + own_B
        if strategy == "bald":
            score_B = 0.5 * np.log1p(epistemic_B / own_B)
        assert found["indices"] == np.argsort(-score_B)[:3].tolist()


@pytest.mark.parametrize("format", ["npz", "parquet"])
def test_a_pool_is_predicted_by_a_job(calibrated: httpx.Client, format: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet") if format == "parquet" else None
    inputs, name = rows(7, 9)[0], f"rows-{format}"
    headers = {"Content-Type": "application/x-npy"}
    calibrated.post(f"/v1/pools?name={name}", content=npy(inputs), headers=headers)
    job = posted(calibrated, "predict", pool=name, format=format)["job"]
    with calibrated.stream("GET", f"/v1/jobs/{job}/events") as events:
        for _ in events.iter_lines():
            pass
    content = io.BytesIO(calibrated.get(f"/v1/jobs/{job}/result").content)
    expected = columns_of(posted(calibrated, "predict", inputs=inputs.tolist()))
    arrays = np.load(content) if parquet is None else parquet.read_table(content).to_pydict()
    for name in ("mean", "quantiles.0.05", "quantiles.0.95", "interval.lower"):
        np.testing.assert_allclose(np.array(arrays[name]), expected[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("action", "asked", "said"),
    [
        ("calibrate", {"intervals": "normalised"}, "`intervals` expects `cqr`"),
        ("calibrate", {"noise_precision": 1.0}, "got one with quantiles"),
        ("calibrate", {"scaling": "temperature"}, "`scaling` belongs to a classification"),
        ("calibrate", {"target_risk": 0.1}, "ask for `target_acceptance`"),
        ("calibrate", {"ood_score": "energy"}, "`ood_score` of a regression"),
        ("calibrate", {"method": "moments"}, "use `mc`"),
        ("evaluate", {"targets": [[1.0, 2.0]] * 80}, "`targets` expects shape (80, 1)"),
        ("evaluate", {"targets": None, "labels": [1] * 80}, "expected `targets`"),
    ],
)
def test_what_has_no_meaning_for_quantiles_is_refused(
    client: httpx.Client, action: str, asked: dict[str, Any], said: str
) -> None:
    reply = client.post(f"{MODEL}/{action}", json=held_out(1, 80) | asked)
    assert reply.status_code == 422
    assert said in reply.json()["detail"]


def test_other_outputs_methods_and_strategies_are_refused(client: httpx.Client) -> None:
    inputs = {"inputs": rows(2, 0)[0].tolist()}
    for action, asked, said in (
        ("predict", {"outputs": ["predictive_entropy"]}, "`outputs` of a quantiles"),
        ("predict", {"method": "moments"}, "got a quantiles head: use `mc`"),
        ("select", {"strategy": "entropy", "k": 1}, "one of a quantiles: variance, bald"),
    ):
        reply = client.post(f"{MODEL}/{action}", json=inputs | asked)
        assert reply.status_code == 422
        assert said in reply.json()["detail"]


def test_a_row_that_overflows_has_no_quantiles_interval_or_decision(
    calibrated: httpx.Client,
) -> None:
    inputs = rows(3, 2)[0]
    inputs[1] = 3e38
    answer = posted(calibrated, "predict", inputs=inputs.tolist())
    got = answer["outputs"]
    for column in (*got["quantiles"].values(), *got["interval"].values(), got["mean"]):
        assert column[1] == [None]
        assert column[0] != [None]
    assert (got["decision"][1], got["ood"]["flag"][1]) == (None, None)
    (warning,) = answer["warnings"]
    assert "null in 1 rows" in warning


def test_the_command_line_goes_all_the_way(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DUBITO_NUM_SAMPLES", "32")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    safetensors.torch.save_file(trained().state_dict(), "w.safetensors")
    inputs, targets = rows(HELD_OUT, 1)
    np.savez("held_out.npz", inputs=inputs, targets=targets)
    np.save("rows.npy", rows(20, 7)[0])

    def run(*words: object) -> str:
        code, out, err = run_command(capsys, monkeypatch, *words)
        assert code == 0, err
        return out

    levels, scale = ",".join(map(str, LEVELS)), f"{MEAN},{DEVIATION}"
    told = ("--task", "regression", "--output", "quantiles", "--target-scale", scale)
    network = ("export", f"{quantiles.__file__}:build", "--weights", "w.safetensors")
    given = (*network, "--example", "8x2", *told, "--out", "spread.dubito")
    code, _, err = run_command(capsys, monkeypatch, *given, "--quantile-levels", "low,high")
    assert (code, "expected numbers, such as 0.1,0.5,0.9" in err) == (1, True)
    code, _, err = run_command(capsys, monkeypatch, *given)
    assert (code, "which needs them" in err) == (1, True)
    run(*given, "--quantile-levels", levels)
    shown = run("inspect", "spread.dubito")
    assert re.search(r"levels +0\.05, 0\.25, 0\.5, 0\.75, 0\.95", shown)

    run("register", "spread.dubito", "--model", "spread")
    page = tmp_path / "report.html"
    out = run("calibrate", "spread", "--data", "held_out.npz", "--alpha", "0.1", "--report", page)
    assert "pinball" in out
    assert "Levels of the quantiles" in page.read_text()
    found = json.loads(run("evaluate", "spread", "--data", "held_out.npz", "--json"))
    assert found["report"]["interval_coverage"] == pytest.approx(0.9, abs=0.12)
    predicted = json.loads(run("predict", "spread", "--inputs", "rows.npy", "--json"))
    assert list(predicted["outputs"]["quantiles"]) == list(map(str, LEVELS))
    assert "interval lower" in run("predict", "spread", "--inputs", "rows.npy")
    chosen = run("select", "spread", "--data", "rows.npy", "--strategy", "variance", "-k", 2)
    assert "20" in chosen
    assert chosen.count("│ ") >= 2
