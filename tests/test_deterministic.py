"""Bundles without sites: taken where it is said, asked in one pass, and never sampled."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from torch import nn

from dubito.engine import Engine, Ensemble, Sampling
from dubito.errors import InputError
from dubito_nn import BundleError, ExportError, export, load_bundle
from dubito_nn.manifest_reader import manifest_from_json

from .conftest import CLASSES, NUM_FEATURES
from .http import normals, upload

PLAIN = "/v1/models/plain"
THREE_WAYS = ("laplace", "drop_prob", "members")


def network(seed: int, *more: nn.Module) -> nn.Module:
    torch.manual_seed(seed)
    hidden = nn.Linear(NUM_FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU()
    return nn.Sequential(*hidden, *more, nn.Linear(16, len(CLASSES)))


def exported(path: Path, seed: int, *more: nn.Module, deterministic: bool = True) -> Path:
    export(
        network(seed, *more),
        torch.randn(4, NUM_FEATURES),
        path,
        task="classification",
        output="logits",
        classes=CLASSES,
        deterministic=deterministic,
    )
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("plain")
    first, second = (exported(folder / f"{seed}.dubito", seed) for seed in (0, 1))
    return first, second


@pytest.fixture(scope="module")
def served(shared: httpx.Client, plain: tuple[Path, Path]) -> httpx.Client:
    """A server with two versions of a network without randomness."""
    for path in plain:
        upload(shared, "plain", path).raise_for_status()
    return shared


def test_a_network_without_randomness_is_refused_with_the_flag_that_takes_it(
    tmp_path: Path,
) -> None:
    with pytest.raises(ExportError, match=r"drop_prob.*deterministic=True"):
        exported(tmp_path / "x.dubito", 0, deterministic=False)


def test_a_network_with_dropout_is_not_taken_for_one_without(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"got random operations in `3`: leave it out"):
        exported(tmp_path / "x.dubito", 0, nn.Dropout(0.3))
    assert not list(tmp_path.iterdir())


def test_the_manifest_says_so_and_is_believed_only_without_sites(plain: tuple[Path, Path]) -> None:
    manifest = load_bundle(plain[0]).manifest
    stated = manifest.to_json()
    assert stated["deterministic"] is True
    assert not manifest.sites
    for changed, reason in (
        ({"deterministic": False}, "expects true"),
        ({"deterministic": None}, "at least one site"),
    ):
        with pytest.raises(BundleError, match=reason):
            manifest_from_json({**json.loads(json.dumps(stated)), **changed})


def test_one_pass_is_the_network_in_evaluation_mode(plain: tuple[Path, Path]) -> None:
    rows = torch.from_numpy(normals(5))
    answer = Engine.load(plain[0]).predict(rows)
    with torch.no_grad():
        expected = network(0).eval()(rows).softmax(-1)
    np.testing.assert_allclose(answer.mean, expected, atol=1e-6)


@pytest.mark.parametrize("method", ["mc", "moments"])
def test_the_engine_samples_nothing_and_names_the_ways_that_work(
    plain: tuple[Path, Path], method: str
) -> None:
    engine = Engine.load(plain[0])
    with pytest.raises(InputError) as refused:
        engine.predict(normals(2), sampling=Sampling(8, method=method))  # type: ignore[arg-type]
    assert all(way in str(refused.value) for way in THREE_WAYS)


def test_members_without_randomness_take_one_pass_each(plain: tuple[Path, Path]) -> None:
    members = tuple(map(Engine.load, plain))
    rows = normals(6)
    answer = Ensemble(members).predict(rows, sampling=Sampling(8, method="ensemble"))
    alone = [member.predict(rows).mean for member in members]
    np.testing.assert_allclose(answer.mean, np.mean(alone, axis=0), atol=1e-6)
    assert (answer.num_samples_used == 2).all()


def test_every_reply_warns_and_its_default_is_one_pass(served: httpx.Client) -> None:
    page = served.get(f"{PLAIN}/versions/1").json()
    assert page["defaults"]["method"] == "point"
    reply = served.post(f"{PLAIN}/predict", json={"inputs": normals(3).tolist()}).json()
    assert (reply["method"], reply["num_samples"]) == ("point", 1)
    assert any("deterministic" in line and "laplace" in line for line in reply["warnings"])
    assert reply["outputs"]["mutual_information"] == [0.0] * 3


def test_masks_are_refused_over_http_and_the_next_request_works(served: httpx.Client) -> None:
    body = {"inputs": normals(3).tolist()}
    refused = served.post(f"{PLAIN}/predict", json={**body, "method": "mc"})
    assert refused.status_code == 422
    assert all(way in refused.json()["detail"] for way in THREE_WAYS)
    assert served.post(f"{PLAIN}/predict", json=body).status_code == 200


def test_two_versions_answer_as_an_ensemble(served: httpx.Client) -> None:
    body = {"inputs": normals(3).tolist(), "method": "ensemble", "members": [1, 2]}
    reply = served.post(f"{PLAIN}/predict", json=body).json()
    assert min(reply["outputs"]["mutual_information"]) > 0
    labels = ["ant", "bee", "cat"]
    judged = served.post(f"{PLAIN}/evaluate", json={**body, "labels": labels})
    assert judged.status_code == 200, judged.text


def test_it_is_calibrated_in_one_pass(served: httpx.Client) -> None:
    rows = normals(300, seed=1)
    labels = np.random.default_rng(2).integers(0, 3, len(rows)).tolist()
    body = {"inputs": rows.tolist(), "labels": labels, "ood_score": "gaussian_density"}
    reply = served.post(f"{PLAIN}/versions/2/calibrate", json=body)
    assert reply.status_code == 200, reply.text
    assert 0.5 < reply.json()["report"]["before"]["nll"] < 3
    number = reply.json()["calibration"]
    path = f"{PLAIN}/versions/2"
    served.put(f"{path}/calibration", json={"active": number}).raise_for_status()
    far = served.post(f"{path}/predict", json={"inputs": (50 * rows[:20]).tolist()}).json()
    assert sum(far["outputs"]["ood"]["flag"]) > 15
