"""Choosing rows over HTTP and from the shell: replies, formats, admission, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from dubito.cli import make_app
from dubito.settings import Settings

from .conftest import Bundles, Server
from .http import normals, npz, upload

SELECT = "/v1/models/animals/select"
NPZ = {"Content-Type": "application/x-npz"}


def select(client: httpx.Client, **fields: Any) -> httpx.Response:
    body = {"strategy": "batchbald", "k": 4, "inputs": normals(30).tolist(), **fields}
    return client.post(SELECT, json=body)


def test_a_reply_names_the_rows_and_what_they_were_chosen_with(shared: httpx.Client) -> None:
    answer = select(shared, num_samples=8, seed=3).json()
    answer.pop("request_id")
    indices, scores = answer.pop("indices"), answer.pop("scores")
    assert answer == {
        "model": "animals",
        "version": 1,
        "num_samples": 8,
        "seed": 3,
        "masks": "shared",
        "draw": "stratified",
        "method": "mc",
        "strategy": "batchbald",
        "candidates": 30,
    }
    assert len(set(indices)) == len(scores) == 4
    assert all(isinstance(index, int) and 0 <= index < 30 for index in indices)


def test_the_same_request_gives_the_same_bytes_and_another_seed_others(
    shared: httpx.Client,
) -> None:
    first, second = (select(shared, strategy="power_bald").content for _ in range(2))
    assert first == second
    assert (
        select(shared, strategy="power_bald", seed=5).json()["indices"]
        != (json.loads(first)["indices"])
    )


def test_arrays_choose_what_json_chooses(shared: httpx.Client) -> None:
    for name, more in (("batchbald", {}), ("epig", {"targets": normals(5, seed=2)})):
        lists = {key: array.tolist() for key, array in more.items()}
        by_json = select(shared, strategy=name, exclude=[1, 2], **lists).json()
        reply = shared.post(
            SELECT,
            params={"strategy": name, "k": 4, "exclude": "1,2"},
            content=npz(inputs=normals(30), **more),
            headers=NPZ,
        )
        assert reply.status_code == 200, reply.text
        assert reply.json()["indices"] == by_json["indices"]
        assert reply.json()["scores"] == by_json["scores"]


def test_a_version_by_number_chooses_too(shared: httpx.Client) -> None:
    body = {"strategy": "random", "k": 2, "inputs": normals(5).tolist()}
    reply = shared.post("/v1/models/animals/versions/1/select", json=body)
    assert reply.json()["version"] == 1
    assert reply.json()["strategy"] == "random"


def test_versions_choose_together(ready: httpx.Client, bundles: Bundles) -> None:
    upload(ready, "animals", bundles("second")).raise_for_status()
    answer = select(ready, method="ensemble", members=[2, 1]).json()
    assert answer["members"] == [1, 2]
    assert len(answer["indices"]) == 4


def test_a_regression_is_optimised(client: httpx.Client, bundles: Bundles) -> None:
    upload(client, "animals", bundles("regression")).raise_for_status()
    high = select(client, strategy="thompson").json()
    low = select(client, strategy="thompson", maximize=False).json()
    assert min(high["scores"]) > max(low["scores"])
    answer = select(client, strategy="expected_improvement", incumbent=10.0, xi=0.1).json()
    assert len(set(answer["indices"])) == 4


def test_a_tolerance_of_the_version_gives_way_and_one_of_the_request_is_refused(
    shared: httpx.Client,
) -> None:
    assert select(shared, tolerance=None).status_code == 200
    reply = select(shared, tolerance=0.1)
    assert reply.status_code == 422
    assert "tolerance" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"k": 0}, "`k` expects an integer of at least 1"),
        ({"k": 31}, "`k` expects at most 30, got 31"),
        ({"exclude": list(range(30))}, "`k` expects at most 0"),
        ({"strategy": "best"}, "`strategy` expects one of"),
        ({"strategy": "epig"}, "`epig` expects `targets`"),
        ({"strategy": "epig", "targets": normals(3, width=5).tolist()}, "(4,)"),
        ({"strategy": "expected_improvement"}, "which is for a regression"),
        ({"inputs": normals(3, width=5).tolist()}, "(4,)"),
        ({"inputs": []}, "at least one row"),
        ({"masks": "independent"}, "expects masks `shared`"),
        ({"method": "point"}, "expects passes that differ"),
    ],
)
def test_a_request_that_cannot_be_answered_says_why_and_the_next_one_succeeds(
    fields: dict[str, Any], detail: str, shared: httpx.Client
) -> None:
    reply = select(shared, **fields)
    assert reply.status_code == 422
    assert detail in reply.json()["detail"]
    assert select(shared).status_code == 200


@pytest.mark.parametrize(
    ("fields", "path"),
    [({"k": "4"}, "k"), ({"k": 4.5}, "k"), ({"pick": 3}, "pick"), ({"exclude": [1.5]}, "exclude")],
)
def test_wrong_types_and_unknown_fields_are_named(
    fields: dict[str, Any], path: str, shared: httpx.Client
) -> None:
    reply = select(shared, **fields)
    assert reply.status_code == 422
    assert reply.json()["fields"][0]["path"].startswith(path)


def test_arrays_of_unknown_names_and_another_type_of_body_are_refused(shared: httpx.Client) -> None:
    params = {"strategy": "bald", "k": 1}
    reply = shared.post(SELECT, params=params, content=npz(rows=normals(3)), headers=NPZ)
    assert reply.status_code == 422
    assert "send the rows as `inputs` alone" in reply.json()["detail"]
    content = npz(inputs=normals(3), rows=normals(3))
    reply = shared.post(SELECT, params=params, content=content, headers=NPZ)
    assert reply.json()["fields"][0]["path"] == "rows"
    reply = shared.post(SELECT, params=params, content=b"", headers={"Content-Type": "text/csv"})
    assert reply.status_code == 415
    assert (
        shared.post(
            "/v1/models/none/select", json={"strategy": "bald", "k": 1, "inputs": [[0]]}
        ).status_code
        == 404
    )


def test_rows_that_go_through_the_network_twice_count_twice(
    serve: Callable[[Settings], Server], tmp_path: Path, bundles: Bundles
) -> None:
    settings = Settings(data_dir=tmp_path / "data", num_samples=16, max_queued_work=16 * 40)
    with httpx.Client(base_url=serve(settings).url, timeout=60) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        assert select(client).status_code == 200  # 30 rows, once
        assert select(client, candidates=10).status_code == 200  # 30 and 10
        reply = select(client, candidates=11)
        assert reply.status_code == 422
        assert "rows x num_samples: expected at most 640, got 656" in reply.json()["detail"]
        assert select(client, strategy="random").status_code == 200


def test_the_command_chooses_what_the_route_chooses(
    tmp_path: Path, bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(tmp_path / "data"))
    np.savez(tmp_path / "pool.npz", inputs=normals(30))
    np.save(tmp_path / "labelled.npy", np.array([1, 2]))
    runner, app = CliRunner(), make_app()
    registered = runner.invoke(app, ["register", str(bundles("first")), "--model", "animals"])
    assert registered.exit_code == 0, registered.output
    asked = ["select", "animals", "--data", str(tmp_path / "pool.npz"), "--strategy", "batchbald"]
    found = runner.invoke(
        app, [*asked, "-k", "4", "--exclude", str(tmp_path / "labelled.npy"), "--json"]
    )
    assert found.exit_code == 0, found.output
    answer = json.loads(found.output)
    assert len(set(answer["indices"]) - {1, 2}) == 4
    assert answer["candidates"] == 28
    shown = runner.invoke(app, [*asked, "-k", "4", "--exclude", "1,2"])
    assert shown.exit_code == 0, shown.output
    assert all(str(index) in shown.output for index in answer["indices"])
    with_truths = {"inputs": normals(30), "targets": normals(30), "labels": np.zeros(30, int)}
    np.savez(tmp_path / "pool.npz", **with_truths)
    of_labelled = runner.invoke(app, [*asked, "-k", "4", "--exclude", "1,2", "--json"])
    assert of_labelled.exit_code == 0, of_labelled.output
    assert json.loads(of_labelled.output)["indices"] == answer["indices"]
