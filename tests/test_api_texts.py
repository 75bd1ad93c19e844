"""Texts over HTTP and from the client: rows of every action, pools, and what is no text."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from dubito.preprocess.text import MAX_CHARACTERS
from dubito.settings import Settings
from dubito_client import Client
from dubito_nn import preprocess

from .conftest import Server
from .declared import as_declared
from .http import upload
from .sentences import exported, fast
from .tables import ARROW, CSV, NDJSON, PARQUET, written

TEXTS = ["the house is small and green", "", "дом маленький, 房子很小 👍", "the house " * 50]
MOODS = "/v1/models/moods"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server with a model that reads texts."""
    folder = tmp_path_factory.mktemp("texts")
    exported(folder / "moods.dubito", preprocess.from_transformers(fast()))
    server = Server(Settings(data_dir=folder / "data", num_samples=4, max_rows=500))
    server.start()
    hooks = {"response": [as_declared]}
    with httpx.Client(base_url=server.url, timeout=60, event_hooks=hooks) as client:
        upload(client, "moods", folder / "moods.dubito").raise_for_status()
        yield client
    server.stop()


@pytest.fixture(scope="module")
def known(client: httpx.Client) -> Any:
    """The means of what transformers makes of the texts."""
    made = fast()(TEXTS, padding=True, truncation=True)
    rows = {name: made[name] for name in ("input_ids", "attention_mask")}
    reply = client.post(f"{MOODS}/predict", json={"inputs": rows, "preprocess": False})
    assert reply.status_code == 200, reply.text
    return reply.json()["outputs"]["mean"]


def _frame(count: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    table = pd.DataFrame({"id": range(count), "text": random.choice(TEXTS, count)})
    return table.assign(mood=random.choice(["bad", "good"], count))


def _sent(client: httpx.Client, action: str, kind: str, content: bytes, **query: Any) -> Any:
    return client.post(
        f"{MOODS}/{action}", content=content, headers={"Content-Type": kind}, params=query
    )


def test_texts_are_answered_as_the_numbers_of_their_pieces(
    client: httpx.Client, known: Any
) -> None:
    for inputs in (TEXTS, {"text": TEXTS}, [{"text": text} for text in TEXTS]):
        reply = client.post(f"{MOODS}/predict", json={"inputs": inputs})
        assert reply.status_code == 200, reply.text
        np.testing.assert_allclose(reply.json()["outputs"]["mean"], known, atol=1e-6)
    assert "1 of 4 rows have more" in " ".join(reply.json()["warnings"])
    ours = Client(str(client.base_url), http=client)
    for rows in (TEXTS, np.array(TEXTS), pd.Series(TEXTS), pd.DataFrame({"text": TEXTS})):
        np.testing.assert_allclose(ours.predict("moods", rows).mean, known, atol=1e-6)
    long = client.post(f"{MOODS}/predict", json={"inputs": [text * 200 for text in TEXTS] * 100})
    assert len(long.json()["outputs"]["mean"]) == 400


def test_a_body_of_text_is_one_row(client: httpx.Client, known: Any) -> None:
    for row in (0, 2):
        reply = _sent(client, "predict", "text/plain; charset=utf-8", TEXTS[row].encode())
        assert reply.status_code == 200, reply.text
        np.testing.assert_allclose(reply.json()["outputs"]["mean"], known[row : row + 1], atol=1e-6)
    reply = _sent(client, "predict", "text/plain", b"\xff\xfe")
    assert (reply.status_code, "UTF-8" in reply.json()["detail"]) == (422, True)


@pytest.mark.parametrize("kind", [CSV, NDJSON, PARQUET, ARROW])
def test_a_column_of_texts_is_read_from_files(client: httpx.Client, known: Any, kind: str) -> None:
    table = pd.DataFrame({"id": range(4), "text": TEXTS})
    page = _sent(client, "predict", kind, written(table, kind), id_column="id").json()
    np.testing.assert_allclose(page["outputs"]["mean"], known, atol=1e-6)
    assert page["ids"] == [0, 1, 2, 3]


def test_all_that_takes_rows_takes_texts(client: httpx.Client) -> None:
    table = _frame(300)
    texts, moods = table["text"].tolist(), table["mood"].tolist()
    fitted = client.post(f"{MOODS}/calibrate", json={"inputs": texts, "labels": moods})
    assert fitted.status_code == 200, fitted.text
    judged = client.post(f"{MOODS}/evaluate", json={"inputs": texts, "labels": moods})
    same = _sent(client, "evaluate", CSV, written(table, CSV), label="mood")
    assert judged.json()["report"] == same.json()["report"]
    page = client.post(f"{MOODS}/predict", json={"inputs": texts[:3]}).json()
    told = {"request_id": page["request_id"], "rows": [{"row": 0, "label": moods[0]}]}
    assert client.post(f"{MOODS}/feedback", json=told).json()["stored"][0]["new"] == 1
    asked = {"strategy": "epig", "k": 3, "targets": texts[:9]}
    chosen = client.post(f"{MOODS}/select", json={**asked, "inputs": texts})
    assert chosen.status_code == 200, chosen.text
    pool = _sent_pool(client, written(table, PARQUET))
    job = client.post(f"{MOODS}/select", json={**asked, "pool": pool})
    assert json.loads(_result(client, job))["indices"] == chosen.json()["indices"]
    job = client.post(f"{MOODS}/predict", json={"pool": pool, "calibration": "none"})
    means = np.load(io.BytesIO(_result(client, job)))["mean"]
    plain = {"inputs": texts, "calibration": "none"}
    whole = client.post(f"{MOODS}/predict", json=plain).json()["outputs"]["mean"]
    np.testing.assert_allclose(means, whole, atol=1e-6)


def _sent_pool(client: httpx.Client, content: bytes) -> str:
    reply = client.post("/v1/pools", content=content, headers={"Content-Type": PARQUET})
    assert reply.status_code == 201, reply.text
    return str(reply.json()["pool"])


def _result(client: httpx.Client, reply: httpx.Response) -> bytes:
    assert reply.status_code == 202, reply.text
    job = reply.json()["job"]
    with client.stream("GET", f"/v1/jobs/{job}/events") as events:
        assert "succeeded" in "".join(events.iter_text())
    return client.get(f"/v1/jobs/{job}/result").content


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ([["a", "b"]], "expects text for each row, got list for row 0"),
        ([[1, 2, 3]], "`preprocess` false"),
        (["a", 3], "got int for row 1"),
        ("a sentence", "expects records"),
        ({"input_ids": [[1]], "attention_mask": [[1]]}, "`preprocess` false"),
        (["x" * (MAX_CHARACTERS + 1)], "at most 100000 characters"),
        (["a"] * 501, "at most 500 rows"),
    ],
)
def test_what_is_no_text_is_refused_and_the_next_request_succeeds(
    client: httpx.Client, inputs: object, reason: str
) -> None:
    reply = client.post(f"{MOODS}/predict", json={"inputs": inputs})
    assert reply.status_code == 422, reply.text
    assert reason in reply.json()["detail"]
    assert client.post(f"{MOODS}/predict", json={"inputs": ["a"]}).status_code == 200


def test_the_manifest_says_what_is_declared(client: httpx.Client) -> None:
    (text,) = client.get(f"{MOODS}/versions/1").json()["manifest"]["preprocess"]
    assert (text["kind"], text["max_length"], len(text["tokenizer"])) == ("text", 64, 64)
