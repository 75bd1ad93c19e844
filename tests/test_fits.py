"""Fits over HTTP: rows to a fit of `laplace`, and every action with it, on a real server."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from dubito.settings import Settings
from dubito_nn import export

from . import fitting
from .conftest import Server
from .http import npy, npz, upload
from .test_jobs import finished

WIDTH = 6
PLAIN = "/v1/models/plain"
NUMBERS = "/v1/models/numbers"


def rows_of(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def labels_of(rows: NDArray[np.float32], seed: int = 0) -> NDArray[np.int64]:
    noise = np.random.default_rng(seed + 1).normal(size=(len(rows), 2)) * 0.5
    said = rows[:, :2] + noise > 0
    label: NDArray[np.int64] = said[:, 0].astype(np.int64) + said[:, 1]
    return label


def _trained(outputs: int, loss: nn.Module, truths: torch.Tensor) -> nn.Sequential:
    """Trained past the point where it knows better: certain where it is wrong."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(WIDTH, 24), nn.ReLU(), nn.Linear(24, outputs))
    rows = torch.from_numpy(rows_of(len(truths)))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(400):
        optimiser.zero_grad()
        loss(network(rows), truths).backward()
        optimiser.step()
    return network


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles without randomness: of classes, of numbers, and one without a last linear map."""
    folder, example = tmp_path_factory.mktemp("fits"), torch.from_numpy(rows_of(4))
    rows = rows_of(80)
    classes = _trained(3, nn.CrossEntropyLoss(), torch.from_numpy(labels_of(rows)))
    truths = torch.from_numpy(rows[:, :1] * 2 + rows[:, 1:2] ** 2)
    numbers = _trained(1, nn.MSELoss(), truths)
    bent = nn.Sequential(nn.Linear(WIDTH, 3), nn.Tanh())
    paths = {name: folder / f"{name}.dubito" for name in ("plain", "numbers", "bent")}
    as_classes = {"task": "classification", "output": "logits", "deterministic": True}
    export(classes, example, paths["plain"], **as_classes)  # type: ignore[arg-type]
    export(bent, example, paths["bent"], **as_classes)  # type: ignore[arg-type]
    export(
        numbers,
        example,
        paths["numbers"],
        task="regression",
        output="mean",
        target_scale=([3.0], [2.0]),
        deterministic=True,
    )
    return paths


@pytest.fixture(scope="module")
def shared_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    data_dir = tmp_path_factory.mktemp("fits-server") / "data"
    return Settings(data_dir=data_dir, num_samples=16, max_queue_ms=600_000, poll_ms=20)


@pytest.fixture(scope="module")
def served(shared: httpx.Client, networks: dict[str, Path]) -> httpx.Client:
    for name, path in networks.items():
        upload(shared, name, path).raise_for_status()
    return shared


def fitted(client: httpx.Client, path: str = PLAIN, **body: Any) -> dict[str, Any]:
    """The result of a fit of `laplace`."""
    return fitting.fitted(client, path, "laplace", **body)


@pytest.fixture(scope="module")
def first(served: httpx.Client) -> dict[str, Any]:
    """The first fit of the classifier, to rows without labels."""
    return fitted(served, inputs=rows_of(300, seed=5).tolist(), num_training_rows=80)


def test_without_a_fit_the_refusal_says_how_to_make_one(
    shared: httpx.Client, networks: dict[str, Path]
) -> None:
    upload(shared, "unfitted", networks["plain"]).raise_for_status()
    body = {"inputs": rows_of(2).tolist(), "method": "laplace"}
    reply = shared.post("/v1/models/unfitted/predict", json=body)
    assert reply.status_code == 409
    assert "/v1/models/unfitted/versions/1/fit" in reply.json()["detail"]
    assert "dubito fit unfitted" in reply.json()["detail"]


def test_a_fit_gives_a_network_without_randomness_a_spread(
    served: httpx.Client, first: dict[str, Any]
) -> None:
    assert first["report"]["chosen_by"] == "marginal_likelihood"
    rows = rows_of(20, seed=9)
    reply = served.post(f"{PLAIN}/predict", json={"inputs": rows.tolist()}).json()
    assert (reply["method"], reply["num_samples"]) == ("laplace", 16)
    assert reply["fit"] >= first["fit"]
    assert min(reply["outputs"]["mutual_information"]) > 0
    assert not any("deterministic" in line for line in reply["warnings"])
    at_a_point = {"inputs": rows.tolist(), "method": "point"}
    point = served.post(f"{PLAIN}/predict", json=at_a_point).json()
    assert any("deterministic" in line for line in point["warnings"])
    entropies = (np.mean(one["outputs"]["predictive_entropy"]) for one in (reply, point))
    assert next(entropies) > next(entropies)


def test_the_same_request_gets_the_same_bytes_and_another_seed_other_ones(
    served: httpx.Client, first: dict[str, Any]
) -> None:
    body = {"inputs": rows_of(5, seed=8).tolist(), "method": "laplace"}
    replies = [served.post(f"{PLAIN}/predict", json=body).content for _ in range(2)]
    assert replies[0] == replies[1]
    assert served.post(f"{PLAIN}/predict", json={**body, "seed": 3}).content != replies[0]


def test_calibrations_reports_and_selections_take_it(
    served: httpx.Client, first: dict[str, Any]
) -> None:
    rows = rows_of(300, seed=11)
    body = {"inputs": rows.tolist(), "labels": labels_of(rows, 3).tolist(), "method": "laplace"}
    judged = served.post(f"{PLAIN}/evaluate", json={**body, "calibration": "none"}).json()
    point = {**body, "method": "point", "calibration": "none"}
    at_a_point = served.post(f"{PLAIN}/evaluate", json=point).json()
    assert judged["report"]["nll"] < at_a_point["report"]["nll"]
    assert served.post(f"{PLAIN}/calibrate", json=body).status_code == 200
    for strategy in ("bald", "batchbald"):
        chosen = {"inputs": rows[:40].tolist(), "strategy": strategy, "k": 5, "method": "laplace"}
        reply = served.post(f"{PLAIN}/select", json=chosen)
        assert reply.status_code == 200, reply.text
        assert len(set(reply.json()["indices"])) == 5


def test_a_calibration_belongs_to_its_fit(served: httpx.Client, first: dict[str, Any]) -> None:
    rows = rows_of(400, seed=12)
    body = {"inputs": rows.tolist(), "labels": labels_of(rows, 4).tolist(), "method": "laplace"}
    made = served.post(f"{PLAIN}/calibrate", json=body).json()
    served.put(f"{PLAIN}/calibration", json={"active": made["calibration"]}).raise_for_status()
    ask = {"inputs": rows[:2].tolist(), "method": "laplace"}
    assert served.post(f"{PLAIN}/predict", json=ask).json()["calibration"] == made["calibration"]
    again = fitted(served, inputs=rows_of(100, seed=6).tolist())
    reply = served.post(f"{PLAIN}/predict", json=ask).json()
    assert (reply["calibration"], reply["fit"]) == (None, again["fit"])
    assert any("fit" in line and "calibration holds for" in line for line in reply["warnings"])
    back = served.put(f"{PLAIN}/fits", json={"active": {"laplace": again["fit"] - 1}}).json()
    assert back["active"] == {"laplace": again["fit"] - 1}
    assert served.post(f"{PLAIN}/predict", json=ask).json()["calibration"] == made["calibration"]


def test_fits_are_listed_and_none_can_be_active(
    served: httpx.Client, first: dict[str, Any]
) -> None:
    page = served.get(f"{PLAIN}/fits").json()
    active = page["active"]
    assert [entry["fit"] for entry in page["fits"]] == list(range(1, len(page["fits"]) + 1))
    assert page["fits"][0]["report"]["prior_precision"] > 0
    served.put(f"{PLAIN}/fits", json={"active": {"laplace": None}}).raise_for_status()
    reply = served.post(f"{PLAIN}/predict", json={"inputs": rows_of(1).tolist()}).json()
    assert reply["method"] == "point"
    served.put(f"{PLAIN}/fits", json={"active": active}).raise_for_status()
    assert served.put(f"{PLAIN}/fits", json={"active": {"laplace": 99}}).status_code == 404
    assert served.put(f"{PLAIN}/fits", json={"active": {"other": 1}}).status_code == 404


def test_labelled_rows_choose_the_prior_by_their_likelihood(served: httpx.Client) -> None:
    rows = rows_of(200, seed=13)
    labels = labels_of(rows, 5).tolist()
    result = fitted(served, inputs=rows.tolist(), labels=labels, prior="held_out")
    report = result["report"]
    assert report["chosen_by"] == "held_out"
    assert report["nll"] < report["nll_point"]
    assert any("num_training_rows" in line for line in result["warnings"])


def test_a_stored_pool_and_an_archive_give_the_fit_of_the_same_rows(served: httpx.Client) -> None:
    rows = rows_of(150, seed=14)
    headers = {"Content-Type": "application/x-npy"}
    served.post("/v1/pools?name=rows", content=npy(rows), headers=headers).raise_for_status()
    pooled = fitted(served, pool="rows", num_training_rows=80)
    query = {"method": "laplace", "num_training_rows": "80"}
    kind = {"Content-Type": "application/x-npz"}
    sent = served.post(f"{PLAIN}/fit", params=query, content=npz(inputs=rows), headers=kind)
    page = finished(served, sent.json()["job"])
    inline = served.get(str(page["result"])).json()
    assert (page["pool"], page["kind"]) == ("", "fit")
    assert inline["report"] == pytest.approx(pooled["report"])


def test_a_pool_is_predicted_by_a_job_as_its_rows_are(
    served: httpx.Client, first: dict[str, Any]
) -> None:
    rows = rows_of(90, seed=16)
    headers = {"Content-Type": "application/x-npy"}
    served.post("/v1/pools?name=asked", content=npy(rows), headers=headers).raise_for_status()
    asked = {"method": "laplace", "calibration": "none"}
    job = served.post(f"{PLAIN}/predict", json={"pool": "asked", **asked}).json()["job"]
    assert finished(served, job)["state"] == "succeeded"
    with np.load(io.BytesIO(served.get(f"/v1/jobs/{job}/result").content)) as stored:
        mean = stored["mean"]
    reply = served.post(f"{PLAIN}/predict", json={"inputs": rows.tolist(), **asked}).json()
    np.testing.assert_allclose(mean, reply["outputs"]["mean"], atol=1e-5)


def test_a_regression_gets_intervals_that_grow_where_rows_are_strange(
    served: httpx.Client,
) -> None:
    rows = rows_of(300, seed=15)
    targets = 3 + 2 * (rows[:, :1] * 2 + rows[:, 1:2] ** 2)
    result = fitted(served, NUMBERS, inputs=rows.tolist(), targets=targets.tolist())
    assert result["report"]["nll"] < result["report"]["nll_one_noise"] + 0.1
    near = served.post(f"{NUMBERS}/predict", json={"inputs": rows[:50].tolist()}).json()
    far = served.post(f"{NUMBERS}/predict", json={"inputs": (5 * rows[:50]).tolist()}).json()
    spread = [np.mean(one["outputs"]["epistemic_variance"]) for one in (near, far)]
    assert spread[1] > 5 * spread[0]
    error = np.mean((np.array(near["outputs"]["mean"]) - targets[:50]) ** 2)
    assert 0.2 < spread[0] / error < 5


def test_rows_without_a_target_shape_the_spread_and_no_more(served: httpx.Client) -> None:
    rows = rows_of(120, seed=18)
    targets = (3 + 4 * rows[:, :1] + 2 * rows[:, 1:2] ** 2).tolist()
    places = np.arange(120)
    reports = []
    for order, known in ((places, 50), (places[::-1], 50), (places[:50], 50)):
        truths = [targets[at] if at < known else [None] for at in order]
        result = fitted(served, NUMBERS, inputs=rows[order].tolist(), targets=truths)
        assert result["num_rows"] == len(order)
        reports.append(result["report"])
    assert reports[0]["alpha"] == pytest.approx(reports[1]["alpha"], rel=1e-3)
    assert reports[0]["nll"] == pytest.approx(reports[1]["nll"], rel=1e-5)
    assert reports[0]["nll_one_noise"] == pytest.approx(reports[2]["nll_one_noise"], rel=1e-5)
    assert reports[0]["alpha"] != pytest.approx(reports[2]["alpha"], rel=0.1)


def test_the_open_inference_protocol_takes_the_method(
    served: httpx.Client, first: dict[str, Any]
) -> None:
    rows = rows_of(3, seed=17)
    tensor = {
        "name": "input",
        "shape": [3, WIDTH],
        "datatype": "FP32",
        "data": rows.ravel().tolist(),
    }
    body = {"inputs": [tensor], "parameters": {"method": "laplace", "num_samples": 16}}
    reply = served.post("/v2/models/plain/infer", json=body)
    assert reply.status_code == 200, reply.text
    found = {one["name"]: one["data"] for one in reply.json()["outputs"]}
    assert min(found["mutual_information"]) > 0


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "too few rows": (PLAIN, {"inputs": rows_of(7).tolist()}, "at least 30 rows, got 7"),
    "no rows": (PLAIN, {}, "inputs"),
    "another method": (PLAIN, {"inputs": [[0.0] * WIDTH], "method": "magic"}, "laplace"),
    "labels of one class": (
        PLAIN,
        {"inputs": rows_of(40).tolist(), "labels": [1] * 40, "prior": "held_out"},
        "several classes, got 40 of one",
    ),
    "held out without labels": (
        PLAIN,
        {"inputs": rows_of(40).tolist(), "prior": "held_out"},
        "expects the `labels`",
    ),
    "two priors": (
        PLAIN,
        {
            "inputs": rows_of(40).tolist(),
            "prior": "marginal_likelihood",
            "prior_precision": 1.0,
        },
        "got both",
    ),
    "a negative prior": (
        PLAIN,
        {"inputs": rows_of(40).tolist(), "prior_precision": -1.0},
        "prior_precision",
    ),
    "a regression without targets": (NUMBERS, {"inputs": rows_of(40).tolist()}, "`targets`"),
    "a regression with few targets": (
        NUMBERS,
        {"inputs": rows_of(40).tolist(), "targets": [[1.0]] * 20 + [[None]] * 20},
        "at least 30 rows with `targets`, got 20 of 40",
    ),
    "a target of text": (
        NUMBERS,
        {"inputs": rows_of(40).tolist(), "targets": [["x"]] + [[1.0]] * 39},
        "or null",
    ),
    "no last linear map": (
        "/v1/models/bent",
        {"inputs": rows_of(40).tolist()},
        "got `aten.tanh.default` at node `tanh`",
    ),
    "other rows": (PLAIN, {"inputs": [[1.0]] * 40}, "shape"),
    "an unknown pool": (PLAIN, {"pool": "nowhere"}, "nowhere"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_fitted_is_refused_with_the_reason(served: httpx.Client, name: str) -> None:
    path, body, reason = BAD[name]
    reply = served.post(f"{path}/fit", json={"method": "laplace", **body})
    assert reply.status_code in (404, 422)
    assert reason in json.dumps(reply.json())


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (np.ones((50, WIDTH), np.float32), "with the same features"),
        (rows_of(50) * 1e-3 + np.array([9, 9, 0, 0, 0, 0], np.float32), "all for class"),
    ],
    ids=["constant features", "one class"],
)
def test_rows_that_say_nothing_end_the_job_with_the_reason(
    served: httpx.Client, rows: NDArray[np.float32], reason: str
) -> None:
    body = {"method": "laplace", "inputs": rows.tolist()}
    job = served.post(f"{PLAIN}/fit", json=body).json()["job"]
    page = finished(served, job)
    assert page["state"] == "failed"
    assert reason in str(page["reason"])


def test_heads_that_have_no_use_for_it_are_refused_before_a_fit_is_asked_for(
    shared: httpx.Client, tmp_path: Path
) -> None:
    path = tmp_path / "labels.dubito"
    export(
        nn.Linear(WIDTH, 3),
        torch.from_numpy(rows_of(4)),
        path,
        task="multilabel",
        output="sigmoid_logits",
        deterministic=True,
    )
    upload(shared, "several", path).raise_for_status()
    body = {"inputs": rows_of(40).tolist(), "method": "laplace"}
    for action in ("predict", "fit"):
        reply = shared.post(f"/v1/models/several/{action}", json=body)
        assert reply.status_code == 422
        assert "one class a row" in reply.json()["detail"]


def test_two_fits_at_once_are_two_fits(served: httpx.Client, first: dict[str, Any]) -> None:
    bodies = [
        {"method": "laplace", "inputs": rows_of(60 + k, seed=k).tolist(), "prior_precision": 1.0}
        for k in range(2)
    ]
    jobs = [served.post(f"{PLAIN}/fit", json=body).json()["job"] for body in bodies]
    pages = [finished(served, job) for job in jobs]
    results = [served.get(str(page["result"])).json() for page in pages]
    assert len({result["fit"] for result in results}) == 2
    assert [result["num_rows"] for result in results] == [60, 61]


def test_deleting_a_version_takes_its_fits_with_it(
    serve: Callable[[Settings], Server], settings: Settings, networks: dict[str, Path]
) -> None:
    server = serve(settings)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for name in ("plain", "bent"):
            upload(client, "plain", networks[name]).raise_for_status()
        fitted(client, f"{PLAIN}/versions/1", inputs=rows_of(60).tolist())
        folder = settings.data_dir / "objects" / "fits"
        assert [path for path in folder.rglob("*") if path.is_file()]
        client.put(f"{PLAIN}/aliases/default", json={"version": 2}).raise_for_status()
        client.delete(f"{PLAIN}/versions/1").raise_for_status()
        assert not [path for path in folder.rglob("*") if path.is_file()]
