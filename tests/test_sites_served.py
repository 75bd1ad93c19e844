"""`sites` over HTTP, on the command line, in the client, in jobs and in calibrations."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import dubito_client
from dubito.settings import Settings

from .conftest import CLASSES, Bundles, Server
from .http import ANIMALS, normals, npy, npz, predicted, upload
from .shell import run_command

ROWS = normals(6)


@pytest.fixture
def deep(client: httpx.Client, bundles: Bundles) -> httpx.Client:
    """A client of a server whose model has two sites, in the modules `2` and `5`."""
    upload(client, "animals", bundles("deep")).raise_for_status()
    return client


def _labelled(count: int = 120) -> dict[str, Any]:
    labels = np.random.default_rng(5).integers(0, len(CLASSES), count)
    return {"inputs": normals(count, seed=3).tolist(), "labels": labels.tolist()}


def test_a_choice_is_answered_alike_however_it_is_written(deep: httpx.Client) -> None:
    with_all = predicted(deep, ROWS)
    assert "sites" not in with_all
    last = predicted(deep, ROWS, sites="last")
    assert last["sites"] == "last"
    assert last["outputs"] != with_all["outputs"]
    for sites in ([1], ["5"], [1, "[5]"]):
        named = predicted(deep, ROWS, sites=sites)
        assert (named["sites"], named["outputs"]) == ([1], last["outputs"])
    for sites in ("all", [0, 1], ["*"]):
        named = predicted(deep, ROWS, sites=sites)
        assert (named.get("sites"), named["outputs"]) == (None, with_all["outputs"])
    headers = {"Content-Type": "application/x-npy"}
    for text, number in (("last", "last"), ("1", [1]), ("[5],1", [1])):
        reply = deep.post(
            f"{ANIMALS}/predict", params={"sites": text}, content=npy(ROWS), headers=headers
        )
        assert (reply.json()["sites"], reply.json()["outputs"]) == (number, last["outputs"])


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"sites": "first"}, "`sites`: expected 'all' or 'last' or a list, got 'first'"),
        ({"sites": 1}, "`sites`: expected 'all' or 'last' or a list, got 1"),
        ({"sites": [1.5]}, "`sites.0`: expected a whole number or text, got 1.5"),
        ({"sites": []}, "`sites` expects `all`, `last`, or 1 to 1000 site numbers and patterns"),
        (
            {"sites": [2]},
            "got 2, which names no site: choose among 0 (`2`), 1 (`5`); "
            "digits are a number, and the module `2` is the pattern [2]",
        ),
        ({"sites": ["head.*"]}, "got `head.*`, which names no site"),
        ({"sites": "last", "method": "point"}, "all masks stand at their means: leave one out"),
    ],
)
def test_a_choice_of_no_site_is_refused(
    deep: httpx.Client, fields: dict[str, object], told: str
) -> None:
    reply = deep.post(f"{ANIMALS}/predict", json={"inputs": ROWS.tolist(), **fields})
    assert reply.status_code == 422
    assert told in reply.json()["detail"]
    assert predicted(deep, ROWS)["version"] == 1


def test_a_calibration_holds_for_its_sites_alone(deep: httpx.Client) -> None:
    body = {**_labelled(), "alpha": 0.1, "sites": ["5"]}
    fitted = deep.post(f"{ANIMALS}/calibrate", json=body)
    assert fitted.status_code == 200, fitted.text
    kept = deep.get(f"{ANIMALS}/calibration").json()
    assert kept["sampling"]["sites"] == [1]
    covered = predicted(deep, ROWS, sites=[1])
    assert covered["calibration"] == 1
    assert covered["outputs"]["prediction_set"] is not None
    for sites, asked in ((None, "all"), ([0], "0")):
        other = predicted(deep, ROWS, sites=sites)
        assert other["calibration"] is None
        assert any(f"sites 1 (asked: {asked})" in warning for warning in other["warnings"])


def test_a_calibration_of_all_sites_is_written_as_before_there_was_a_choice(
    deep: httpx.Client,
) -> None:
    deep.post(f"{ANIMALS}/calibrate", json={**_labelled(), "alpha": 0.1}).raise_for_status()
    assert "sites" not in deep.get(f"{ANIMALS}/calibration").json()["sampling"]
    assert predicted(deep, ROWS, sites="all")["calibration"] == 1
    assert predicted(deep, ROWS, sites="last")["calibration"] is None


def test_evaluations_and_selections_take_a_choice(deep: httpx.Client) -> None:
    evaluated = deep.post(f"{ANIMALS}/evaluate", json={**_labelled(), "sites": "last"}).json()
    assert evaluated["sites"] == "last"
    whole = deep.post(f"{ANIMALS}/evaluate", json=_labelled()).json()
    assert evaluated["report"]["nll"] != whole["report"]["nll"]
    body = {"inputs": normals(40).tolist(), "strategy": "bald", "k": 3, "sites": [1]}
    selected = deep.post(f"{ANIMALS}/select", json=body).json()
    assert (selected["sites"], len(selected["indices"])) == ([1], 3)


def test_members_are_asked_for_the_sites_by_their_modules(
    deep: httpx.Client, bundles: Bundles
) -> None:
    fields: dict[str, Any] = {"method": "ensemble", "members": [1, 2], "sites": ["5"]}
    upload(deep, "animals", bundles("first")).raise_for_status()
    body = {"inputs": ROWS.tolist(), **fields}
    reply = deep.post(f"{ANIMALS}/predict", json=body)
    assert (reply.status_code, "got `5`, which names no site" in reply.text) == (422, True)
    assert predicted(deep, ROWS, **{**fields, "sites": "last"})["sites"] == "last"


def test_a_job_answers_as_a_request_does_and_refuses_what_a_request_refuses(
    deep: httpx.Client,
) -> None:
    headers = {"Content-Type": "application/x-npy"}
    pool = deep.post("/v1/pools", params={"name": "pool"}, content=npy(ROWS), headers=headers)
    assert pool.status_code == 201, pool.text
    refused = deep.post(f"{ANIMALS}/predict", json={"pool": "pool", "sites": [7]})
    assert (refused.status_code, "got 7, which names no site" in refused.text) == (422, True)
    job = deep.post(f"{ANIMALS}/predict", json={"pool": "pool", "sites": ["5"]}).json()["job"]
    with deep.stream("GET", f"/v1/jobs/{job}/events") as stream:
        assert any("succeeded" in line for line in stream.iter_lines())
    with np.load(io.BytesIO(deep.get(f"/v1/jobs/{job}/result").content)) as result:
        expected = predicted(deep, ROWS, sites=[1])["outputs"]["mean"]
        assert result["mean"] == pytest.approx(np.array(expected), abs=1e-6)


def test_the_client_sends_a_choice_and_reads_it_back(
    serve: Callable[[Settings], Server], settings: Settings, bundles: Bundles
) -> None:
    with dubito_client.Client(serve(settings).url) as client:
        client.upload("animals", bundles("deep"))
        assert client.predict("animals", ROWS).sites == "all"
        assert client.predict("animals", ROWS, sites="last").sites == "last"
        assert client.predict("animals", ROWS, sites=["5", 1]).sites == [1]


def test_the_command_line_takes_a_choice(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundles: Bundles,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(tmp_path / "data"))
    np.save(tmp_path / "rows.npy", ROWS)
    labelled = {name: np.array(value, np.float32) for name, value in _labelled().items()}
    labelled["labels"] = labelled["labels"].astype(np.int64)
    (tmp_path / "labelled.npz").write_bytes(npz(**labelled))

    def run(*words: object) -> tuple[int, str, str]:
        return run_command(capsys, monkeypatch, *words)

    assert run("register", bundles("deep"), "--model", "animals")[0] == 0
    asked = ("predict", "animals", "--inputs", tmp_path / "rows.npy", "--json")
    for text, sites in (("last", "last"), ("1,[5]", [1]), ("all", None)):
        code, out, _ = run(*asked, "--sites", text)
        assert (code, json.loads(out).get("sites")) == (0, sites)
    code, _, err = run(*asked, "--sites", "head.*")
    assert (code, "got `head.*`, which names no site" in err) == (1, True)
    data = ("--data", tmp_path / "labelled.npz", "--sites", "last")
    assert run("calibrate", "animals", *data)[0] == 0
    assert json.loads(run(*asked, "--sites", "last")[1])["calibration"] == 1
