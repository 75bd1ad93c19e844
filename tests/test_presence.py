"""A server on a data folder, as a command finds it."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from dubito.presence import announced, server_of

from .conftest import NUM_FEATURES, Bundles
from .http import upload
from .processes import serving
from .shell import run_command


def test_a_server_is_found_while_it_is_announced_and_the_first_one_counts(tmp_path: Path) -> None:
    assert server_of(tmp_path) is None
    with announced(tmp_path, "http://127.0.0.1:1"):
        assert server_of(tmp_path) == "http://127.0.0.1:1"
        with announced(tmp_path, "http://127.0.0.1:2"):
            assert server_of(tmp_path) == "http://127.0.0.1:1"
        assert server_of(tmp_path) == "http://127.0.0.1:1"
    assert server_of(tmp_path) is None


def test_an_error_of_the_server_is_not_hidden_and_a_closed_folder_is_no_error(
    tmp_path: Path,
) -> None:
    with pytest.raises(OSError, match="disk"), announced(tmp_path, "http://127.0.0.1:1"):
        raise OSError("disk")
    with announced(tmp_path / "missing", "http://127.0.0.1:1"):
        assert server_of(tmp_path / "missing") is None


def test_predict_asks_the_server_that_runs_and_does_the_work_itself_once_it_is_gone(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundles: Bundles,
    tmp_path: Path,
) -> None:
    data, rows = tmp_path / "data", tmp_path / "rows.npy"
    monkeypatch.setenv("DUBITO_DATA_DIR", str(data))
    monkeypatch.setenv("DUBITO_NUM_SAMPLES", "16")
    generator = np.random.default_rng(0)
    np.save(rows, generator.normal(size=(3, NUM_FEATURES)).astype(np.float32))
    ask = ("predict", "net", "--inputs", rows, "--json")
    with serving(data, {}) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        upload(client, "net", bundles("first"))
        page = "/v1/models/net/versions/1"
        assert client.get(page).json()["state"] == "available"
        code, out, err = run_command(capsys, monkeypatch, *ask)
        assert (code, err) == (0, "")
        assert client.get(page).json()["state"] == "loaded"
        told = run_command(capsys, monkeypatch, "predict", "other", "--inputs", rows)
        assert told[0] == 1
        assert "error: no model 'other'" in told[2]
        np.save(tmp_path / "nan.npy", np.full((1, NUM_FEATURES), np.nan, np.float32))
        assert run_command(capsys, monkeypatch, "unload", "net")[0] == 0
        monkeypatch.setenv("DUBITO_PORT", "1")
        assert ":1 " in run_command(capsys, monkeypatch, "monitor", "net")[2]
        monkeypatch.delenv("DUBITO_PORT")
        nan = run_command(capsys, monkeypatch, "predict", "net", "--inputs", tmp_path / "nan.npy")
        assert nan[0] == 1
        assert "nan" in nan[2].lower()
        assert run_command(capsys, monkeypatch, "keys", "create", "ann", "--scope", "admin")[0] == 0
        while client.get(page).status_code != 401:  # until the server has seen the key
            pass
        refused = run_command(capsys, monkeypatch, "monitor", "net")
        assert (refused[0], "`DUBITO_API_KEY=KEY dubito ...`" in refused[2]) == (1, True)
    here = json.loads(run_command(capsys, monkeypatch, *ask)[1])
    there = json.loads(out)
    assert list(there) == list(here)
    for name, column in here["outputs"].items():
        if isinstance(column, list) and isinstance(column[0], float):
            np.testing.assert_allclose(there["outputs"][name], column, atol=1e-5)


def test_what_a_command_asks_is_not_observed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, demonstration: Path
) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(demonstration))
    images = Path(__file__).parent.parent / "examples" / "digits.json"
    with (
        serving(demonstration, {}) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        assert run_command(capsys, monkeypatch, "predict", "digits", "--inputs", images)[0] == 0
        predict = "/v1/models/digits/predict"
        body = json.loads(images.read_text())
        ids = {"X-Request-Id": "seen"}, {"X-Request-Id": "unseen", "X-Unobserved": "1"}
        for headers in ids:
            assert client.post(predict, json=body, headers=headers).status_code == 200
        outcomes = {"rows": [{"row": 0, "label": "7"}]}
        feedback = "/v1/models/digits/feedback"
        kept, lost = (
            client.post(feedback, json={"request_id": name["X-Request-Id"], **outcomes})
            for name in ids
        )
        assert kept.status_code == 200, kept.text
        assert lost.status_code == 404, lost.text
