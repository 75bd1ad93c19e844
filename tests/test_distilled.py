"""Method `distilled` over HTTP: what the passes say, learned, certified, and left to `mc`."""

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
from scipy.stats import spearmanr
from torch import nn

from dubito.engine.distilled import Lessons, Made, Student, teach
from dubito.engine.distilled.certificate import auroc
from dubito.engine.distilled.student import Widths, graph
from dubito.engine.moments import OutputMoments
from dubito.errors import InputError
from dubito.settings import Settings
from dubito_nn import export

from . import fitting
from .http import npy, upload
from .processes import serving
from .test_jobs import finished

WIDTH = 6
NET, PAIR = "/v1/models/net", "/v1/models/pair"


def rows_of(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def labels_of(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    label: NDArray[np.int64] = (rows[:, 0] > 0).astype(np.int64) + (rows[:, 1] > 0)
    return label


def targets_of(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    target: NDArray[np.float32] = 3 + 2 * (rows[:, :1] + rows[:, 1:2] ** 2)
    return target


class Pair(nn.Module):
    """Mean and log-variance of one number: (B, WIDTH) -> two of (B, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(WIDTH, 24), nn.ReLU(), nn.Dropout(0.2))
        self.mean, self.log_variance = nn.Linear(24, 1), nn.Linear(24, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(x)
        return self.mean(features), self.log_variance(features)


def _trained(network: nn.Module, loss: Callable[[Any], torch.Tensor]) -> nn.Module:
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    rows = torch.from_numpy(rows_of(300))
    for _ in range(150):
        optimiser.zero_grad()
        loss(network(rows)).backward()
        optimiser.step()
    return network


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles: of classes, of a pair, and three of which no head can be distilled."""
    folder, example = tmp_path_factory.mktemp("distilled"), torch.from_numpy(rows_of(4))
    paths = {name: folder / f"{name}.dubito" for name in ("net", "pair", "bent", "plain", "labels")}
    torch.manual_seed(0)
    label = torch.from_numpy(labels_of(rows_of(300)))
    target = torch.from_numpy((targets_of(rows_of(300)) - 3) / 2)
    net = nn.Sequential(nn.Linear(WIDTH, 32), nn.ReLU(), nn.Dropout(0.4), nn.Linear(32, 3))
    _trained(net, lambda made: nn.functional.cross_entropy(made, label))
    pair = Pair()
    _trained(pair, lambda made: nn.functional.gaussian_nll_loss(made[0], target, made[1].exp()))
    bent = nn.Sequential(nn.Linear(WIDTH, 8), nn.Dropout(0.4), nn.Linear(8, 3), nn.Tanh())
    as_classes: dict[str, Any] = {"task": "classification", "output": "logits"}
    export(net, example, paths["net"], **as_classes)
    export(bent, example, paths["bent"], **as_classes)
    export(nn.Linear(WIDTH, 3), example, paths["plain"], **as_classes, deterministic=True)
    export(net, example, paths["labels"], task="multilabel", output="sigmoid_logits")
    scale: Any = {"target_scale": ([3.0], [2.0])}
    as_pair: Any = {"task": "regression", "output": "mean_and_log_variance"}
    export(pair, example, paths["pair"], **as_pair, **scale)
    return paths


@pytest.fixture(scope="module")
def shared_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    data_dir = tmp_path_factory.mktemp("distilled-server") / "data"
    return Settings(data_dir=data_dir, num_samples=64, max_queue_ms=600_000, poll_ms=20)


@pytest.fixture(scope="module")
def served(shared: httpx.Client, networks: dict[str, Path]) -> httpx.Client:
    for name, path in networks.items():
        upload(shared, name, path).raise_for_status()
    return shared


def fitted(client: httpx.Client, path: str = NET, **body: Any) -> dict[str, Any]:
    """The result of a fit of `distilled`."""
    return fitting.fitted(client, path, "distilled", **body)


def asked(client: httpx.Client, path: str = NET, **body: Any) -> dict[str, Any]:
    body = {"method": "distilled", "calibration": "none"} | body
    reply = client.post(f"{path}/predict", json=body)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


@pytest.fixture(scope="module")
def first(served: httpx.Client) -> dict[str, Any]:
    """The first fit of the classifier, to labelled rows of a pool."""
    rows = rows_of(1000, seed=5)
    headers = {"Content-Type": "application/x-npy"}
    served.post("/v1/pools?name=usual", content=npy(rows), headers=headers).raise_for_status()
    ask = {"inputs": rows_of(3).tolist(), "method": "mc"}
    before = served.post(f"{NET}/predict", json=ask).json()
    made = fitted(served, pool="usual", labels=labels_of(rows).tolist())
    after = served.post(f"{NET}/predict", json=ask).json()
    assert before["outputs"] == after["outputs"]  # the network itself never changes
    return made


def test_without_a_fit_the_refusal_says_how_to_make_one(
    shared: httpx.Client, networks: dict[str, Path]
) -> None:
    upload(shared, "unfitted", networks["net"]).raise_for_status()
    body = {"inputs": rows_of(2).tolist(), "method": "distilled"}
    reply = shared.post("/v1/models/unfitted/predict", json=body)
    assert reply.status_code == 409
    assert '{"method": "distilled", "inputs"' in reply.json()["detail"]


def test_one_pass_says_what_the_passes_say(served: httpx.Client, first: dict[str, Any]) -> None:
    rows = rows_of(300, seed=9).tolist()
    one, many = (
        asked(served, inputs=rows, **way) for way in ({}, {"method": "mc", "num_samples": 512})
    )
    assert (one["method"], one["num_samples"], one["fit"]) == ("distilled", 1, first["fit"])
    assert set(one["outputs"]["method_used"]) == {"distilled"}
    assert "method_used" not in many["outputs"]
    known, said = many["outputs"], one["outputs"]
    assert spearmanr(known["mutual_information"], said["mutual_information"]).statistic > 0.92
    np.testing.assert_allclose(said["mean"], known["mean"], atol=0.12)
    apart = np.abs(np.subtract(said["expected_entropy"], known["expected_entropy"]))
    assert apart.mean() < 0.03


def test_its_certificate_says_how_far_the_two_agree(
    served: httpx.Client, first: dict[str, Any]
) -> None:
    certificate = first["report"]["certificate"]
    assert (certificate["num_samples"], certificate["num_rows"]) == (256, 200)
    kinds = {"held_out", "noise", "shuffled", "scaled"}
    assert kinds < certificate.keys()
    assert certificate["held_out"]["spearman"] > 0.9
    assert 0.01 < certificate["held_out"]["unlike"] < 0.09
    assert abs(certificate["held_out"]["nll"] - certificate["held_out"]["nll_passes"]) < 0.05
    worst = max(certificate[kind]["error_of_mean"] for kind in kinds)
    assert certificate["bounds"]["error_of_mean"] == worst
    entry = served.get(f"{NET}/fits").json()["fits"][first["fit"] - 1]
    assert entry["report"]["certificate"] == certificate
    rows = rows_of(300, seed=10)
    one, many = (asked(served, inputs=rows.tolist(), **way) for way in ({}, {"method": "mc"}))
    apart = np.abs(np.subtract(*(each["outputs"]["mean"] for each in (one, many)))).max(1).mean()
    assert 0.3 * certificate["held_out"]["error_of_mean"] < apart < 3 * worst


def test_strange_rows_are_left_to_mc_in_the_same_reply(
    served: httpx.Client, first: dict[str, Any]
) -> None:
    usual, strange = rows_of(40, seed=3), 25 * rows_of(3, seed=4)
    rows = [usual[:20], strange, usual[20:]]
    mixed = asked(served, inputs=np.concatenate(rows).tolist(), fallback=0.05)
    used = mixed["outputs"]["method_used"]
    assert (mixed["fallback"], mixed["num_samples"]) == (0.05, 64)
    assert used[20:23] == ["mc"] * 3
    assert used.count("distilled") > 30
    known = asked(served, inputs=strange.tolist(), method="mc")["outputs"]
    for name in ("mean", "mutual_information", "standard_error"):
        np.testing.assert_allclose(mixed["outputs"][name][20:23], known[name], atol=1e-6)
    assert mixed["outputs"]["num_samples_used"][20:23] == [64] * 3
    alone = asked(served, inputs=usual.tolist())["outputs"]
    is_own = np.array(used[:20] + used[23:]) == "distilled"
    found = np.delete(mixed["outputs"]["mean"], range(20, 23), axis=0)[is_own]
    np.testing.assert_allclose(found, np.array(alone["mean"])[is_own], atol=1e-6)
    lines = asked(served, inputs=strange.tolist())["warnings"]
    assert any("3 of 3 rows are unlike" in line for line in lines)
    assert not any("unlike" in line for line in mixed["warnings"])


def test_calibrations_reports_and_selections_take_it(
    served: httpx.Client, first: dict[str, Any]
) -> None:
    rows = rows_of(300, seed=11)
    body = {"inputs": rows.tolist(), "labels": labels_of(rows).tolist(), "method": "distilled"}
    both = [
        served.post(f"{NET}/evaluate", json={**body, "calibration": "none", **way}).json()["report"]
        for way in ({}, {"fallback": 0.1, "num_samples": 48}, {"method": "mc"})
    ]
    for one in both[:2]:
        assert one["nll"] == pytest.approx(both[2]["nll"], abs=0.03)
    made = served.post(f"{NET}/calibrate", json={**body, "fallback": 0.05}).json()
    served.put(f"{NET}/calibration", json={"active": made["calibration"]}).raise_for_status()
    ask = {"inputs": rows[:2].tolist(), "method": "distilled"}
    held = served.post(f"{NET}/predict", json={**ask, "fallback": 0.05}).json()
    assert held["calibration"] == made["calibration"]
    assert held["outputs"]["prediction_set"] is not None
    other = served.post(f"{NET}/predict", json=ask).json()
    assert other["calibration"] is None
    assert any("fallback" in line for line in other["warnings"])
    chosen = {"inputs": rows[:40].tolist(), "k": 5, "method": "distilled"}
    reply = served.post(f"{NET}/select", json={**chosen, "strategy": "bald"})
    assert (reply.status_code, len(set(reply.json()["indices"]))) == (200, 5)
    reply = served.post(f"{NET}/select", json={**chosen, "strategy": "batchbald"})
    assert reply.status_code == 422
    assert "got method `distilled`, which has none" in reply.json()["detail"]


def test_a_pool_is_predicted_by_a_job_as_its_rows_are(
    served: httpx.Client, first: dict[str, Any]
) -> None:
    rows = np.concatenate([rows_of(60, seed=16), 25 * rows_of(4, seed=17)])
    headers = {"Content-Type": "application/x-npy"}
    served.post("/v1/pools?name=asked", content=npy(rows), headers=headers).raise_for_status()
    ask = {"method": "distilled", "fallback": 0.05, "calibration": "none"}
    job = served.post(f"{NET}/predict", json={"pool": "asked", **ask}).json()["job"]
    assert finished(served, job)["state"] == "succeeded"
    with np.load(io.BytesIO(served.get(f"/v1/jobs/{job}/result").content)) as stored:
        mean, used = stored["mean"], stored["method_used"].tolist()
    reply = asked(served, inputs=rows.tolist(), fallback=0.05)
    np.testing.assert_allclose(mean, reply["outputs"]["mean"], atol=1e-5)
    assert used == reply["outputs"]["method_used"]


def test_a_regression_keeps_its_two_parts(served: httpx.Client) -> None:
    rows = rows_of(500, seed=15)
    made = fitted(served, PAIR, inputs=rows.tolist(), targets=targets_of(rows).tolist())
    held_out = made["report"]["certificate"]["held_out"]
    assert held_out["spearman"] > 0.85
    assert abs(held_out["nll"] - held_out["nll_passes"]) < 0.2
    near = rows_of(200, seed=18).tolist()
    one, many = (
        asked(served, PAIR, inputs=near, **way)["outputs"] for way in ({}, {"method": "mc"})
    )
    for name in ("epistemic_variance", "aleatoric_variance"):
        ratio = np.median(np.divide(one[name], many[name]))
        assert 0.75 < ratio < 1.33, name
    spread = np.mean(many["epistemic_variance"])
    assert np.mean(np.subtract(one["mean"], many["mean"]) ** 2) < 0.3 * spread
    mixed = asked(served, PAIR, inputs=(20 * rows_of(3)).tolist(), fallback=0.05)["outputs"]
    assert mixed["method_used"] == ["mc"] * 3
    assert mixed["quantiles"] is None or len(mixed["quantiles"])


def test_the_open_inference_protocol_takes_the_method(
    served: httpx.Client, first: dict[str, Any]
) -> None:
    data = (25 * rows_of(2, seed=17)).ravel().tolist()
    tensor = {"name": "input", "shape": [2, WIDTH], "datatype": "FP32", "data": data}
    parameters = {"method": "distilled", "fallback": 0.05}
    reply = served.post("/v2/models/net/infer", json={"inputs": [tensor], "parameters": parameters})
    assert reply.status_code == 200, reply.text
    assert reply.json()["parameters"]["fallback"] == 0.05
    found = {one["name"]: one["data"] for one in reply.json()["outputs"]}
    assert found["method_used"] == ["mc", "mc"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "samples": ({"outputs": ["samples"]}, "method `distilled` makes no masked passes"),
    "sites": ({"sites": "last"}, "got `distilled`, in which all masks stand at their means"),
    "independent": ({"masks": "independent"}, "method `distilled` expects masks `shared`"),
    "tolerance": ({"tolerance": 0.01}, "`tolerance` expects method `mc`, got `distilled`"),
    "a share of none": ({"fallback": 0.0}, "a share of rows between 0 and 1, got 0.0"),
    "another method": ({"fallback": 0.1, "method": "mc"}, "`fallback` expects method `distilled`"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_answer_is_refused(
    served: httpx.Client, first: dict[str, Any], name: str
) -> None:
    body, reason = REFUSED[name]
    ask = {"inputs": rows_of(2).tolist(), "method": "distilled"} | body
    reply = served.post(f"{NET}/predict", json=ask)
    assert reply.status_code == 422, reply.text
    assert reason in reply.json()["detail"]


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "too few rows": (NET, {"inputs": rows_of(60).tolist()}, "at least 200 rows, got 60"),
    "another's option": (
        NET,
        {"inputs": rows_of(300).tolist(), "num_training_rows": 9},
        "`num_training_rows` is no option of a fit of `distilled`",
    ),
    "one pass": (NET, {"inputs": rows_of(300).tolist(), "num_samples": 1}, "at least 2"),
    "many passes": (
        NET,
        {"inputs": rows_of(300).tolist(), "num_samples": 10**6},
        "expects at most",
    ),
    "no last linear map": (
        "/v1/models/bent",
        {"inputs": rows_of(300).tolist()},
        "got `aten.tanh.default` at node `tanh`",
    ),
    "no randomness": (
        "/v1/models/plain",
        {"inputs": rows_of(300).tolist()},
        "expects a network with randomness",
    ),
    "several labels": (
        "/v1/models/labels",
        {"inputs": rows_of(300).tolist()},
        "expects one class a row, or numbers of a row",
    ),
    "other rows": (NET, {"inputs": [[1.0]] * 300}, "shape"),
    "a pool of other rows": (NET, {"pool": "narrow"}, "narrow"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_fitted_is_refused_with_the_reason(served: httpx.Client, name: str) -> None:
    path, body, reason = BAD[name]
    if "pool" in body:
        headers = {"Content-Type": "application/x-npy"}
        served.post("/v1/pools?name=narrow", content=npy(np.zeros((300, 2))), headers=headers)
    reply = served.post(f"{path}/fit", json={"method": "distilled", **body})
    assert reply.status_code == 422
    assert reason in json.dumps(reply.json())


def test_rows_that_are_all_the_same_end_the_job_with_the_reason(served: httpx.Client) -> None:
    body = {"method": "distilled", "inputs": np.ones((250, WIDTH)).tolist(), "num_samples": 2}
    page = finished(served, served.post(f"{NET}/fit", json=body).json()["job"])
    assert page["state"] == "failed"
    assert "with the same features" in str(page["reason"])


def test_two_fits_at_once_are_two_fits_and_the_same_rows_give_the_same_head(
    served: httpx.Client, first: dict[str, Any]
) -> None:
    body = {"method": "distilled", "inputs": rows_of(220, seed=1).tolist(), "num_samples": 8}
    jobs = [served.post(f"{NET}/fit", json=body).json()["job"] for _ in range(2)]
    pages = [finished(served, job) for job in jobs]
    results = [served.get(str(page["result"])).json() for page in pages]
    assert len({result["fit"] for result in results}) == 2
    assert results[0]["report"] == results[1]["report"]
    served.put(f"{NET}/fits", json={"active": {"distilled": first["fit"]}}).raise_for_status()


def _lessons(count: int) -> Lessons:
    features = torch.randn(count, 5, generator=torch.Generator().manual_seed(0))
    scores = features[:, :3].contiguous()
    mean = scores.softmax(-1)
    each = torch.full((count, 1), 0.1)
    return Lessons(features, scores, mean, 0.01 * torch.ones_like(mean), each, each)


def test_what_is_stored_of_a_head_is_read_back_and_nothing_else_is() -> None:
    lessons, widths = _lessons(64), Widths(5, 3)
    student = teach(lessons, lessons, lessons, "logits", 0, lambda: None).student
    stored = student.arrays()
    again = Student.from_arrays(stored, widths)
    for one, other in zip(
        student.run(lessons.features, lessons.scores),
        again.run(lessons.features, lessons.scores),
        strict=True,
    ):
        pairs = (one.mean, other.mean) if isinstance(one, OutputMoments) else (one, other)
        assert torch.equal(*pairs)  # type: ignore[arg-type]
    text = stored["graph"].tobytes()
    hostile = {
        "another network's": ({}, Widths(4, 3)),
        "an operator": (
            {"graph": text.replace(b"aten.silu.default", b"aten.tanh.default")},
            widths,
        ),
        "no operator": ({"graph": text.replace(b"aten.silu.default", b"os.system")}, widths),
        "no JSON": ({"graph": text[:-9]}, widths),
        "no number": ({"weight.first_bias": np.full(128, np.nan, np.float32)}, widths),
        "another shape": ({"weight.third_bias": np.zeros(3, np.float32)}, widths),
        "no order": ({"held_out": np.array([2.0, 1.0])}, widths),
    }
    for change, asked_of in hostile.values():
        changed = {
            key: np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
            for key, value in change.items()
        }
        with pytest.raises(InputError, match="fit it again"):
            Student.from_arrays({**stored, **changed}, asked_of)
    del stored["held_out"]
    with pytest.raises(InputError, match="cannot be read"):
        Student.from_arrays(stored, widths)
    assert len(graph(3).nodes) < 64


def test_copies_hang_on_the_place_of_a_row_and_on_no_other() -> None:
    rows = {"x": torch.from_numpy(rows_of(8)), "token": torch.arange(8)[:, None].repeat(1, 4)}
    made = Made({name: tensor.clone() for name, tensor in rows.items()}, seed=3)
    whole = made.to_learn_from(rows, range(8))
    some = {name: tensor[2:5] for name, tensor in rows.items()}
    part = made.to_learn_from(some, range(2, 5))
    assert all(torch.equal(part[name], whole[name][2:5]) for name in rows)
    assert not torch.equal(whole["x"], rows["x"])
    judged = made.to_be_judged_on(some, range(2, 5))
    assert set(judged) == {"noise", "shuffled", "scaled"}
    assert all(copies["token"].unique().max() < 8 for copies in judged.values())
    assert not torch.equal(Made(rows, seed=4).to_learn_from(rows, range(8))["x"], whole["x"])


def test_an_auroc_counts_pairs_and_ties_half() -> None:
    near, far = np.array([0.0, 1.0, 1.0]), np.array([1.0, 2.0])
    assert auroc(near, far) == (1 + 0.5 + 0.5 + 3) / 6


@pytest.mark.slow
def test_a_fit_goes_on_after_kill_9_and_gives_the_same_head(
    tmp_path: Path, networks: dict[str, Path]
) -> None:
    settings = {"DUBITO_JOB_CHECKPOINT_MS": "1", "DUBITO_JOB_CHUNK_MS": "5"}
    settings |= {"DUBITO_JOB_LEASE_MS": "800", "DUBITO_POLL_MS": "50"}
    body = {"method": "distilled", "inputs": rows_of(300).tolist(), "num_samples": 16}
    with (
        serving(tmp_path / "data", settings, holds_jobs=True) as server,
        httpx.Client(base_url=server.url, timeout=120) as client,
    ):
        upload(client, "net", networks["net"]).raise_for_status()
        job, done = client.post(f"{NET}/fit", json=body).json()["job"], 0
        while not done:
            page = client.get(f"/v1/jobs/{job}").json()
            done = page["done"]
            assert page["state"] in ("queued", "running")
        assert done < 300
    with (
        serving(tmp_path / "data", settings) as server,
        httpx.Client(base_url=server.url, timeout=120) as client,
    ):
        page = finished(client, job)
        assert page["state"] == "succeeded", page
        interrupted = client.get(str(page["result"])).json()
        whole = fitted(client, **{name: body[name] for name in ("inputs", "num_samples")})
        assert (interrupted["fit"], whole["fit"]) == (1, 2)
        assert interrupted["report"] == whole["report"]
