"""Several labels, or a class at every position, of one row: over HTTP and on the command line."""

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
from torch import nn
from typer.testing import CliRunner

from dubito.calibration.reading import Written, read_positions
from dubito.cli import make_app
from dubito.errors import InputError
from dubito.labels import LabelsAre
from dubito.settings import Settings
from dubito_nn import Manifest, export
from dubito_nn.networks.unet import UNet

from .conftest import Server
from .http import upload

LABELS = ("loud", "red", "soft")
PLACES = ("sky", "sea", "land")
NPZ = "application/x-npz"
ROWS, FRESH = 100, 60


def _labeller() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, len(LABELS)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both bundles."""
    path = tmp_path_factory.mktemp("heads")
    export(
        _labeller(),
        torch.randn(4, 4),
        path / "labels.dubito",
        task="multilabel",
        output="sigmoid_logits",
        classes=LABELS,
    )
    torch.manual_seed(1)
    export(
        UNet(1, len(PLACES), channels=(4, 8), block_size=2),
        torch.randn(4, 1, 4, 4),
        path / "places.dubito",
        task="classification",
        output="logits",
        class_axis=1,
        classes=PLACES,
    )
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Server]:
    """A server with both models, both calibrated on made-up truths."""
    torch.set_num_threads(1)
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), num_samples=16)
    running = Server(settings)
    running.start()
    with httpx.Client(base_url=running.url, timeout=60) as client:
        for name in ("labels", "places"):
            upload(client, name, folder / f"{name}.dubito").raise_for_status()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def calibrated(client: httpx.Client) -> httpx.Client:
    """The same client, once both models are calibrated."""
    for name in ("labels", "places"):
        body = {**labelled(client, name, ROWS, seed=1), "alpha": 0.1}
        _ok(client.post(f"/v1/models/{name}/calibrate", json=body))
    return client


def rows_of(name: str, count: int, seed: int) -> NDArray[np.float32]:
    size = (count, 4) if name == "labels" else (count, 1, 4, 4)
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def labelled(client: httpx.Client, name: str, count: int, seed: int) -> dict[str, object]:
    """Rows whose truths are drawn from the network's own probabilities."""
    rows = rows_of(name, count, seed)
    mean = np.array(predicted(client, name, rows, outputs=["mean"])["mean"])
    drawn = np.random.default_rng(seed).random(mean.shape)
    if name == "labels":
        truth = [[LABELS[p] for p in range(3) if row[p]] for row in (drawn < mean).tolist()]
    else:
        index = (drawn[..., :1] > mean.cumsum(-1)[..., :-1]).sum(-1)
        truth = np.array(PLACES)[index].tolist()
    return {"inputs": rows.tolist(), "labels": truth}


def predicted(
    client: httpx.Client, name: str, rows: NDArray[np.float32], **options: object
) -> dict[str, object]:
    body = {"inputs": rows.tolist(), **options}
    outputs: dict[str, object] = _ok(client.post(f"/v1/models/{name}/predict", json=body))[
        "outputs"
    ]  # type: ignore[assignment]
    return outputs


def _ok(response: httpx.Response) -> dict[str, object]:
    assert response.status_code in (200, 201, 202), response.text
    body: dict[str, object] = response.json()
    return body


def _detail(response: httpx.Response, status: int = 422) -> str:
    assert response.status_code == status, response.text
    return str(response.json()["detail"])


def test_labels_are_answered_one_by_one_and_as_a_row(calibrated: httpx.Client) -> None:
    rows = rows_of("labels", 5, seed=9)
    found = predicted(calibrated, "labels", rows)
    mean = np.array(found["mean"])
    assert mean.shape == np.array(found["standard_error"]).shape == (5, 3)
    on = [[LABELS[p] for p in range(3) if row[p] > 0.5] for row in mean.tolist()]
    assert found["label"] == on
    each = np.array(found["position_predictive_entropy"])
    np.testing.assert_allclose(each.sum(1), found["predictive_entropy"], atol=1e-9)
    entropy = -(mean * np.log(mean) + (1 - mean) * np.log1p(-mean))
    np.testing.assert_allclose(each, entropy, atol=1e-9)
    for may, must in zip(found["prediction_set"], found["certain_set"], strict=True):  # type: ignore[call-overload]
        assert set(must) <= set(may) <= set(LABELS)
    assert set(found["decision"]) <= {"accept", "review", "reject"}  # type: ignore[call-overload]
    assert np.array(found["ood"]["score"]).shape == (5,)  # type: ignore[index]


def test_maps_are_answered_place_by_place_and_as_a_row(calibrated: httpx.Client) -> None:
    rows = rows_of("places", 3, seed=9)
    found = predicted(calibrated, "places", rows)
    mean = np.array(found["mean"])
    assert mean.shape == (3, 4, 4, 3)
    assert found["label"] == np.array(PLACES)[mean.argmax(-1)].tolist()
    each = np.array(found["position_mutual_information"])
    assert each.shape == (3, 4, 4)
    np.testing.assert_allclose(each.mean((1, 2)), found["mutual_information"], atol=1e-9)
    sets = found["prediction_set"]
    assert len(sets) == 3  # type: ignore[arg-type]
    assert len(sets[0]) == len(sets[0][0]) == 4  # type: ignore[index]
    assert found["label"][0][0][0] in sets[0][0][0]  # type: ignore[index]
    assert len(found["decision"]) == 3  # type: ignore[arg-type]


def test_arrays_hold_the_same_figures(calibrated: httpx.Client) -> None:
    rows = rows_of("places", 2, seed=9)
    file = io.BytesIO()
    np.save(file, rows)
    reply = calibrated.post(
        "/v1/models/places/predict",
        content=file.getvalue(),
        headers={"Content-Type": "application/x-npy", "Accept": NPZ},
    )
    arrays = np.load(io.BytesIO(reply.content))
    plain = predicted(calibrated, "places", rows)
    np.testing.assert_allclose(arrays["mean"], plain["mean"])
    assert arrays["label"].tolist() == plain["label"]
    assert arrays["prediction_set"].shape == (2, 4, 4, 3)
    samples = predicted(calibrated, "labels", rows_of("labels", 2, 1), outputs=["samples", "mean"])
    kept = np.array(samples["samples"])
    assert kept.shape == (2, 16, 3)
    np.testing.assert_allclose(kept.mean(1), samples["mean"], atol=1e-9)


def test_a_row_that_overflows_has_no_set_no_flag_and_no_decision(
    calibrated: httpx.Client,
) -> None:
    rows = rows_of("labels", 3, seed=9)
    rows[1] = [-3.4e38, 3.4e38, 3.4e38, 3.4e38]
    path, body = "/v1/models/labels/predict", {"inputs": rows.tolist()}
    reply = _ok(calibrated.post(path, json=body))
    found: Any = reply["outputs"]
    others: Any = predicted(calibrated, "labels", rows[[0, 2]])
    assert [part[1] for part in found["ood"].values()] == [None, None, None]
    for column in ("label", "prediction_set", "certain_set", "decision"):
        assert found[column][1] is None
        assert found[column][::2] == others[column]
    assert found["ood"]["flag"][::2] == others["ood"]["flag"]
    (warning,) = reply["warnings"]  # type: ignore[misc]
    assert "`prediction_set`, `decision`, `ood`" in warning
    assert "null in 1 rows" in warning
    packed = calibrated.post(path, json=body, headers={"Accept": NPZ}).content
    arrays = np.load(io.BytesIO(packed))
    assert arrays["decision"][1] == ""
    assert np.isnan(arrays["ood.p_value"][1])
    assert not arrays["prediction_set"][1].any()
    assert not arrays["ood.flag"][1]


@pytest.mark.parametrize("name", ["labels", "places"])
def test_a_report_on_fresh_rows_keeps_what_was_promised(
    calibrated: httpx.Client, name: str
) -> None:
    body = labelled(calibrated, name, FRESH, seed=2)
    found = _ok(calibrated.post(f"/v1/models/{name}/evaluate", json=body))
    report = found["report"]
    assert isinstance(report, dict)
    assert report["set_coverage"] > 0.9 - 4 * (0.09 / FRESH + 0.09 / 20) ** 0.5
    assert 1 <= report["set_size"] <= 3
    assert ("subset_accuracy" in report) == (name == "labels")
    assert ("mean_iou" in report) == (name == "places")
    page = _ok(calibrated.get(f"/v1/models/{name}/calibration"))
    share = 1.0 if name == "labels" else 0.95
    head = "multilabel" if name == "labels" else "dense"
    assert page["positions"] == {"head": head, "share": share}


def test_truths_may_come_as_arrays(client: httpx.Client) -> None:
    body = labelled(client, "labels", ROWS, seed=3)
    index = [[int(name in row) for name in LABELS] for row in body["labels"]]  # type: ignore[attr-defined]
    by_name = _ok(client.post("/v1/models/labels/evaluate", json=body | {"calibration": "none"}))
    file = io.BytesIO()
    np.savez(file, inputs=np.array(body["inputs"], np.float32), labels=np.array(index))
    by_array = client.post(
        "/v1/models/labels/evaluate?calibration=none",
        content=file.getvalue(),
        headers={"Content-Type": NPZ},
    )
    assert by_array.json()["report"] == by_name["report"]


@pytest.mark.parametrize(
    ("name", "labels", "reason"),
    [
        ("labels", [["loud"], ["green"]], "got \"['green']\" in row 1"),
        ("labels", ["loud", "red"], "in row 0"),
        ("labels", [[0, 1], [1, 0]], "0 or 1 for each of the 3 labels"),
        ("labels", [[0, 1, 2], [0, 0, 0]], "got '[0, 1, 2]' in row 0"),
        ("labels", [[0, 1, 0]], "2 in all, got 1"),
        ("labels", 3, "send a list of lists"),
        ("places", [["sky"] * 4] * 2, "shape (2, 4, 4), got (2, 4)"),
        ("places", [[["fog"] * 4] * 4] * 2, "got 'fog'"),
        (
            "places",
            [[[3] * 4] * 4] * 2,
            "an index from 0 to 2, or -1 where nobody has labelled it, got 3 in row 0",
        ),
        ("places", [[[0] * 4] * 4, [[0] * 3] * 4], "got ragged lists"),
        ("places", [[[-1] * 4] * 4] * 2, "at least one labelled position in every row"),
        ("places", ["sky", "sea"], "shape (2, 4, 4), got (2,)"),
    ],
)
def test_truths_that_do_not_fit_are_refused(
    client: httpx.Client, name: str, labels: object, reason: str
) -> None:
    body = {"inputs": rows_of(name, 2, 0).tolist(), "labels": labels}
    assert reason in _detail(client.post(f"/v1/models/{name}/evaluate", json=body))


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("labels", {"sets": "raps"}, "`sets` expects `lac`"),
        ("places", {"per_class": True}, "`per_class` expects rows of one class each"),
        ("labels", {"scaling": "vector"}, "use `temperature`, `isotonic` or `none`"),
        ("places", {"target_risk": 0.1}, "ask for `target_acceptance`"),
        ("places", {"position_share": 2.0}, "`position_share` expects"),
        ("places", {"method": "moments"}, "use `mc`"),
        ("labels", {"noise_precision": 1.0}, "belongs to a regression"),
        ("labels", {"ood_score": "relative_mahalanobis"}, "use `mahalanobis` or `knn`"),
    ],
)
def test_choices_without_a_meaning_are_refused(
    client: httpx.Client, name: str, options: dict[str, object], reason: str
) -> None:
    body = {**labelled(client, name, 80, seed=1), **options}
    assert reason in _detail(client.post(f"/v1/models/{name}/calibrate", json=body))


def test_only_outputs_of_the_head_can_be_asked(client: httpx.Client) -> None:
    rows = rows_of("places", 1, 0).tolist()
    body = {"inputs": rows, "outputs": ["certain_set"]}
    assert "`outputs` of a dense" in _detail(client.post("/v1/models/places/predict", json=body))


def test_rows_are_chosen_by_their_own_figures(calibrated: httpx.Client) -> None:
    rows = rows_of("places", 12, seed=4)
    entropy = np.array(
        predicted(calibrated, "places", rows, calibration="none")["predictive_entropy"]
    )
    body = {"strategy": "entropy", "k": 3, "inputs": rows.tolist()}
    found = _ok(calibrated.post("/v1/models/places/select", json=body))
    assert found["indices"] == np.argsort(-entropy)[:3].tolist()
    for strategy in ("bald", "power_bald", "variation_ratio", "random"):
        _ok(calibrated.post("/v1/models/labels/select", json={
            "strategy": strategy, "k": 2, "inputs": rows_of("labels", 6, 0).tolist()
        }))  # fmt: skip
    for strategy in ("batchbald", "margin", "badge", "epig"):
        body["strategy"] = strategy
        assert "one of a dense" in _detail(calibrated.post("/v1/models/places/select", json=body))
    body |= {"strategy": "bald", "per_class": 1}
    assert "one class per row" in _detail(calibrated.post("/v1/models/places/select", json=body))


def test_feedback_is_refused_with_the_remedy(calibrated: httpx.Client) -> None:
    reply = calibrated.post(
        "/v1/models/labels/predict",
        json={"inputs": rows_of("labels", 1, 0).tolist()},
        headers={"X-Request-Id": "labels-1"},
    )
    assert reply.status_code == 200
    body = {"request_id": "labels-1", "rows": [{"row": 0, "label": "red"}]}
    detail = _detail(calibrated.post("/v1/models/labels/feedback", json=body))
    assert "send labelled rows to evaluate instead" in detail
    drift = _ok(calibrated.get("/v1/models/labels/monitoring"))["drift"]
    assert drift["score"] == "overall"  # type: ignore[index]


@pytest.mark.parametrize("format", ["npz", "parquet"])
def test_a_pool_of_maps_is_predicted_by_a_job(calibrated: httpx.Client, format: str) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    file = io.BytesIO()
    np.save(file, rows_of("places", 7, seed=5))
    name = f"maps-{format}"
    _ok(calibrated.post(
        f"/v1/pools?name={name}", content=file.getvalue(),
        headers={"Content-Type": "application/x-npy"},
    ))  # fmt: skip
    job = _ok(calibrated.post(
        "/v1/models/places/predict", json={"pool": name, "format": format}
    ))["job"]  # fmt: skip
    with calibrated.stream("GET", f"/v1/jobs/{job}/events") as events:
        for _ in events.iter_lines():
            pass
    assert _ok(calibrated.get(f"/v1/jobs/{job}"))["state"] == "succeeded"
    content = calibrated.get(f"/v1/jobs/{job}/result").content
    expected = predicted(calibrated, "places", rows_of("places", 7, seed=5))
    if format == "npz":
        arrays = np.load(io.BytesIO(content))
        assert arrays["label"].tolist() == expected["label"]
        np.testing.assert_allclose(arrays["mean"], expected["mean"], atol=1e-6)
    else:
        from pyarrow import parquet

        column = parquet.read_table(io.BytesIO(content))["label"].to_pylist()
        assert column == expected["label"]


@pytest.mark.parametrize("asked", [{"strategy": "coreset"}, {"strategy": "bald", "diversity": 2}])
def test_a_job_chooses_maps_as_a_request_does(
    calibrated: httpx.Client, asked: dict[str, object]
) -> None:
    rows, file = rows_of("places", 30, seed=6), io.BytesIO()
    np.save(file, rows)
    name = f"maps-{asked['strategy']}"
    _ok(calibrated.post(
        f"/v1/pools?name={name}", content=file.getvalue(),
        headers={"Content-Type": "application/x-npy"},
    ))  # fmt: skip
    asked = {**asked, "k": 4, "num_samples": 16}
    at_once = _ok(calibrated.post(
        "/v1/models/places/select", json={**asked, "inputs": rows.tolist()}
    ))  # fmt: skip
    job = _ok(calibrated.post("/v1/models/places/select", json={**asked, "pool": name}))["job"]
    with calibrated.stream("GET", f"/v1/jobs/{job}/events") as events:
        for _ in events.iter_lines():
            pass
    assert _ok(calibrated.get(f"/v1/jobs/{job}"))["state"] == "succeeded"
    assert _ok(calibrated.get(f"/v1/jobs/{job}/result"))["indices"] == at_once["indices"]


def test_a_job_that_cannot_be_done_is_refused_at_once(calibrated: httpx.Client) -> None:
    file = io.BytesIO()
    np.save(file, rows_of("places", 3, seed=6))
    _ok(calibrated.post(
        "/v1/pools?name=few-maps", content=file.getvalue(),
        headers={"Content-Type": "application/x-npy"},
    ))  # fmt: skip
    asked = {"pool": "few-maps", "method": "moments"}
    for path in ("predict", "select"):
        body = asked | ({} if path == "predict" else {"strategy": "entropy", "k": 1})
        assert "use `mc`" in _detail(calibrated.post(f"/v1/models/places/{path}", json=body))


def test_labels_of_positions_are_read_one_by_one() -> None:
    """Text is a name even where it looks like an index, and an integer what was agreed on."""
    manifest = Manifest(
        task="classification", output="logits", num_outputs=3, classes=("1", "0", "2"),
        sites=(), torch_version="",
        inputs=(), class_axis=1,
    )  # fmt: skip

    def read(given: object, labels_are: LabelsAre | None = "indices") -> list[list[int]]:
        written = Written(manifest, 2, lambda: (2,), labels=given, labels_are=labels_are)
        return read_positions(written).tolist()

    assert read([[0, "0"], ["1", -1]]) == [[0, 1], [0, -1]]
    assert read([[0, "0"], ["1", -1]], "names") == [[1, 1], [0, -1]]
    integers = np.array([[0, 2], [1, -1]])
    assert read(integers) == [[0, 2], [1, -1]]
    assert read(integers, "names") == [[1, 2], [0, -1]]
    assert read([[2, "0"], ["1", -1]], None) == [[2, 1], [0, -1]]
    for given in (integers, integers.tolist()):
        with pytest.raises(
            InputError, match=r"got 0 in row 0, .* '0' \(index 1\) .* '1' \(index 0\)"
        ):
            read(given, None)
    assert read(np.array([["1", "-1"], ["2", "0"]])) == [[0, -1], [2, 1]]
    for wrong, named in (
        ([[0, 1], [True, 0]], "True in row 1"),
        ([[0, 1], [None, 0]], "None in row 1"),
        ([[0, 1], [1.0, 0]], "1.0 in row 1"),
        ([["3", 1], [1, 0]], "'3' in row 0"),
        (np.array([[0, 1], [1, 3]]), "3 in row 1"),
        ([[0, 1], [1]], "ragged"),
    ):
        with pytest.raises(InputError, match=named):
            read(wrong)


def test_the_command_line_shows_and_predicts_both(
    tmp_path: Path, folder: Path, server: Server, calibrated: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("DUBITO_DATA_DIR", str(server.settings.data_dir))
    monkeypatch.setenv("COLUMNS", "200")
    run: Callable[[list[str]], str] = lambda words: _run(words)  # noqa: E731
    shown = run(["inspect", str(folder / "places.dubito")])
    assert "classification, a class at every position (axis 1)" in shown
    assert "multilabel" in run(["inspect", str(folder / "labels.dubito")])
    for name in ("labels", "places"):
        np.save(tmp_path / f"{name}.npy", rows_of(name, 2, 0))
        words = ["predict", name, "--inputs", str(tmp_path / f"{name}.npy")]
        assert "predictive entropy" in run(words)
        reply = json.loads(run([*words, "--json"]))
        assert (
            reply["outputs"]["label"] == predicted(calibrated, name, rows_of(name, 2, 0))["label"]
        )


def _run(words: list[str]) -> str:
    result = CliRunner().invoke(make_app(), words)
    assert result.exit_code == 0, result.output
    return result.stdout
