"""Tables over HTTP: every form of body, truths and ids in columns, and tensors beside them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from torch import nn

from dubito.settings import Settings
from dubito_client import Client, InputError
from dubito_nn import export, preprocess

from .conftest import Bundles, Server
from .declared import as_declared
from .http import npz, upload
from .tables import ARROW, CSV, NDJSON, PARQUET, expected, exported, frame, records, written

SICK = "/v1/models/sick"
KINDS = (CSV, NDJSON, PARQUET, ARROW)
ROWS = frame(5)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, bundles: Bundles) -> Iterator[httpx.Client]:
    """A server with a model that declares a table, and one that declares nothing."""
    folder = tmp_path_factory.mktemp("tables")
    exported(folder / "sick.dubito")
    server = Server(Settings(data_dir=folder / "data", num_samples=4, max_rows=500))
    server.start()
    hooks = {"response": [as_declared]}
    with httpx.Client(base_url=server.url, timeout=60, event_hooks=hooks) as client:
        upload(client, "sick", folder / "sick.dubito").raise_for_status()
        upload(client, "animals", bundles("first")).raise_for_status()
        yield client
    server.stop()


def test_the_client_sends_a_frame_as_the_table_that_it_is(
    client: httpx.Client, known: dict[str, Any]
) -> None:
    times = ROWS.assign(born=pd.to_datetime(ROWS["born"]))
    ours = Client(str(client.base_url), http=client)
    for table in (ROWS, times, records(ROWS), pl.from_pandas(ROWS), pl.from_pandas(times)):
        reply = ours.predict("sick", table, id_column="id")
        np.testing.assert_allclose(reply.mean, known["mean"], atol=1e-6)
        assert reply.ids == ROWS["id"].tolist()
        found = reply.to_pandas()
        assert found["id"].tolist() == ROWS["id"].tolist()
        np.testing.assert_array_equal(found[["mean_no", "mean_yes"]].to_numpy(), reply.mean)
        assert found["label"].tolist() == reply.label
    chosen = ours.select("sick", ROWS, strategy="bald", k=2, id_column="id")
    assert chosen.ids == [ROWS["id"][index] for index in chosen.indices]
    people = frame(300, seed=3)
    judged = [
        ours.evaluate("sick", people, label=["sick"]),
        ours.evaluate("sick", people, label="sick"),
        ours.evaluate("sick", people, people["sick"].tolist()),
    ]
    assert judged[0].report == judged[1].report == judged[2].report
    numbers = ROWS[["age"]].fillna(1.0)
    with pytest.raises(InputError, match="`preprocess` false"):
        ours.predict("sick", numbers)
    with pytest.raises(InputError, match="add `smoker`"):
        ours.predict("sick", numbers, preprocess=True)


@pytest.fixture(scope="module")
def known(client: httpx.Client) -> dict[str, Any]:
    """What the model answers to `ROWS` as tensors."""
    inputs = {name: array.tolist() for name, array in expected(ROWS).items()}
    reply = client.post(f"{SICK}/predict", json={"inputs": inputs, "preprocess": False})
    assert reply.status_code == 200, reply.text
    outputs: dict[str, Any] = reply.json()["outputs"]
    return outputs


def sent(
    client: httpx.Client, path: str, kind: str, content: bytes, **query: Any
) -> httpx.Response:
    return client.post(path, content=content, headers={"Content-Type": kind}, params=query)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_answered_as_its_tensors_are(
    client: httpx.Client, known: dict[str, Any], kind: str
) -> None:
    reply = sent(client, f"{SICK}/predict", kind, written(ROWS, kind), id_column="id")
    assert reply.status_code == 200, reply.text
    page = reply.json()
    np.testing.assert_allclose(page["outputs"]["mean"], known["mean"], atol=1e-6)
    assert page["ids"] == ROWS["id"].tolist()
    assert "columns that the model does not read: `sick`" in page["warnings"]


def test_records_columns_and_arrays_of_columns_are_answered_alike(
    client: httpx.Client, known: dict[str, Any]
) -> None:
    columns = {name: [row[name] for row in records(ROWS)] for name in ROWS}
    for inputs in (records(ROWS), columns):
        page = client.post(f"{SICK}/predict", json={"inputs": inputs, "id_column": "id"}).json()
        np.testing.assert_allclose(page["outputs"]["mean"], known["mean"], atol=1e-6)
        assert page["ids"] == ROWS["id"].tolist()
    arrays = {name: np.array(ROWS[name].tolist()) for name in ROWS if name not in ("id", "sick")}
    kind = {"Content-Type": "application/x-npz", "Accept": "application/x-npz"}
    reply = client.post(f"{SICK}/predict", content=npz(**arrays), headers=kind)
    assert reply.status_code == 200, reply.text


def test_the_other_protocol_takes_the_tensors_that_it_describes(
    client: httpx.Client, known: dict[str, Any]
) -> None:
    rows = expected(ROWS)
    tensors = [
        {"name": "numbers", "datatype": "FP32", "shape": [5, 5], "data": rows["numbers"].tolist()},
        {"name": "job", "datatype": "INT64", "shape": [5], "data": rows["job"].tolist()},
    ]
    page = client.post("/v2/models/sick/infer", json={"inputs": tensors}).json()
    (mean,) = [output for output in page["outputs"] if output["name"] == "mean"]
    np.testing.assert_allclose(np.reshape(mean["data"], (5, 2)), known["mean"], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_truths_come_from_a_column_of_the_same_table(client: httpx.Client, kind: str) -> None:
    table = frame(300, seed=3)
    content = written(table, kind)
    fitted = sent(client, f"{SICK}/calibrate", kind, content, label="sick")
    assert fitted.status_code == 200, fitted.text
    assert fitted.json()["num_rows"] == 300
    assert "columns that the model does not read: `id`" in fitted.json()["warnings"]
    judged = sent(client, f"{SICK}/evaluate", kind, content, label="sick")
    assert judged.status_code == 200, judged.text
    apart = {"inputs": records(table), "labels": table["sick"].tolist()}
    same = client.post(f"{SICK}/evaluate", json=apart).json()
    assert same["report"] == judged.json()["report"]
    together = client.post(f"{SICK}/evaluate", json={"inputs": records(table), "label": ["sick"]})
    assert together.json()["report"] == judged.json()["report"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_to_label_are_chosen_from_a_table(client: httpx.Client, kind: str) -> None:
    table = frame(60, seed=4)
    query = {"strategy": "bald", "k": 3, "id_column": "id"}
    page = sent(client, f"{SICK}/select", kind, written(table, kind), **query).json()
    assert page["ids"] == [table["id"][index] for index in page["indices"]]
    assert len(page["ids"]) == 3
    told = {"inputs": records(table), "targets": records(frame(9, seed=5)), "strategy": "epig"}
    assert client.post(f"{SICK}/select", json={**told, "k": 2}).status_code == 200


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "tensors": ("predict", {"inputs": {"numbers": [[1.0] * 5], "job": [1]}}, "`preprocess` false"),
    "an array": ("predict", {"inputs": [[1.0] * 5]}, "`preprocess` false"),
    "no such id": ("predict", {"inputs": records(ROWS), "id_column": "key"}, "add `key`"),
    "ids of tensors": (
        "predict",
        {"inputs": {"numbers": [[1.0] * 5], "job": [1]}, "preprocess": False, "id_column": "id"},
        "`id`",
    ),
    "a column that is missing": ("predict", {"inputs": [{"age": 3}]}, "add `smoker`"),
    "a cell that is no number": (
        "predict",
        {"inputs": [records(ROWS)[0], {**records(ROWS)[1], "age": "old"}]},
        "column `age`, row 1: expected a number, got 'old'",
    ),
    "too many records": ("predict", {"inputs": [records(ROWS)[0]] * 501}, "at most 500 rows"),
    "truths twice": (
        "evaluate",
        {"inputs": records(ROWS), "label": ["sick"], "labels": ["no"] * 5},
        "give one of them",
    ),
    "truths of no column": ("evaluate", {"inputs": records(ROWS), "label": ["ill"]}, "add `ill`"),
    "truths of no class": ("evaluate", {"inputs": records(ROWS), "label": ["born"]}, "a name"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_refused_and_the_next_request_succeeds(
    client: httpx.Client, name: str
) -> None:
    action, body, reason = BAD[name]
    reply = client.post(f"{SICK}/{action}", json=body)
    assert reply.status_code == 422, reply.text
    assert reason in reply.json()["detail"]
    assert client.post(f"{SICK}/predict", json={"inputs": records(ROWS)}).status_code == 200


def test_hostile_tables_are_refused_and_the_next_request_succeeds(client: httpx.Client) -> None:
    lines = written(ROWS, CSV)
    wide = b",".join([b"a"] * 10**5) + b"\n" + b",".join([b"1"] * 10**5)
    cases = [
        (CSV, lines + b"p9,1,2\n", 422, "Row #7: Expected 7 columns, got 3"),
        (CSV, lines.replace(b"p1", b"\xe9"), 422, "UTF-8"),
        (CSV, wide, 422, "at most 10000 columns"),
        (CSV, lines + lines.partition(b"\n")[2] * 200, 422, "at most 500 rows"),
        (CSV, lines + b'"' + b"\n" * 10**6, 422, "quotes that are closed"),
        (NDJSON, b"{}\n" * 10**6, 422, "at most 500 lines"),
        (NDJSON, b'{"age": 1}\n[1]', 422, "line 2 of the body: expected a JSON object"),
        (PARQUET, b"PAR1" * 100, 422, "a Parquet file"),
        (ARROW, b"\xff" * 100, 422, "an Arrow stream"),
        ("text/plain", lines, 415, "text/csv"),
    ]
    for kind, content, status, reason in cases:
        reply = sent(client, f"{SICK}/predict", kind, content)
        assert reply.status_code == status, (reason, reply.text)
        assert reason in reply.json()["detail"]
        assert sent(client, f"{SICK}/predict", CSV, lines).status_code == 200


def test_a_model_that_declares_nothing_takes_what_it_took(client: httpx.Client) -> None:
    path = "/v1/models/animals/predict"
    reply = sent(client, path, CSV, b"a,b,c,d\n1,2,3,4\n")
    assert reply.status_code == 415
    assert "declares no preprocess" in reply.json()["detail"]
    rows = [[0.1, 0.2, 0.3, 0.4]]
    plain = client.post(path, json={"inputs": rows})
    for is_made in (True, False):
        again = client.post(path, json={"inputs": rows, "preprocess": is_made})
        assert again.json()["outputs"] == plain.json()["outputs"]
    assert "ids" not in plain.json()
    assert client.post(path, json={"inputs": rows, "id_column": "a"}).status_code == 422


@pytest.mark.parametrize("kind", KINDS)
def test_outcomes_come_from_a_column_of_the_table_that_was_predicted(
    client: httpx.Client, kind: str
) -> None:
    held_out = written(frame(300, seed=3), CSV)
    sent(client, f"{SICK}/calibrate", CSV, held_out, label="sick").raise_for_status()
    table = frame(8, seed=9)
    page = sent(client, f"{SICK}/predict", kind, written(table, kind)).json()
    table.loc[2, "sick"] = None
    query = {"request_id": page["request_id"], "label": "sick"}
    reply = sent(client, f"{SICK}/feedback", kind, written(table, kind), **query)
    assert reply.status_code == 200, reply.text
    (stored,) = reply.json()["stored"]
    assert (stored["new"], stored["known"]) == (7, 0)
    truth = {"request_id": page["request_id"], "rows": [{"row": 0, "label": table["sick"][0]}]}
    (stored,) = client.post(f"{SICK}/feedback", json=truth).json()["stored"]
    assert (stored["new"], stored["known"]) == (0, 1)
    reply = sent(client, f"{SICK}/feedback", kind, written(table, kind), **{**query, "label": "no"})
    assert (reply.status_code, "add `no`" in reply.json()["detail"]) == (422, True)
    reply = sent(client, f"{SICK}/feedback", kind, written(table, kind), label="sick")
    assert (reply.status_code, "query.request_id" in reply.text) == (422, True)


def _pool(client: httpx.Client, kind: str, content: bytes) -> str:
    reply = sent(client, "/v1/pools", kind, content)
    assert reply.status_code == 201, reply.text
    return str(reply.json()["pool"])


def _result(client: httpx.Client, action: str, **fields: Any) -> bytes:
    """The result of a job on a stored pool."""
    reply = client.post(f"{SICK}/{action}", json=fields)
    assert reply.status_code == 202, reply.text
    job = reply.json()["job"]
    with client.stream("GET", f"/v1/jobs/{job}/events") as events:
        assert "succeeded" in "".join(events.iter_text())
    return client.get(f"/v1/jobs/{job}/result").content


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_table_is_worked_through_as_one_that_is_sent(
    client: httpx.Client, kind: str
) -> None:
    table = frame(200, seed=7)
    pool = _pool(client, kind, written(table, kind))
    result = np.load(io.BytesIO(_result(client, "predict", pool=pool, id_column="id")))
    page = client.post(f"{SICK}/predict", json={"inputs": records(table)}).json()
    np.testing.assert_allclose(result["mean"], page["outputs"]["mean"], atol=1e-6)
    assert result["ids"].tolist() == table["id"].tolist()
    asked = {"strategy": "epig", "k": 3, "targets": records(frame(9, seed=5)), "id_column": "id"}
    chosen = json.loads(_result(client, "select", pool=pool, **asked))
    same = client.post(f"{SICK}/select", json={"inputs": records(table), **asked}).json()
    assert chosen["indices"] == same["indices"]
    assert chosen["ids"] == same["ids"]


def test_a_stored_pool_of_tensors_needs_the_word_that_it_is_one(client: httpx.Client) -> None:
    table = frame(50, seed=8)
    pool = _pool(client, "application/x-npz", npz(**expected(table)))
    means = np.load(io.BytesIO(_result(client, "predict", pool=pool, preprocess=False)))["mean"]
    page = client.post(f"{SICK}/predict", json={"inputs": records(table)}).json()
    np.testing.assert_allclose(means, page["outputs"]["mean"], atol=1e-6)
    asked = {"strategy": "bald", "k": 3, "pool": pool}
    assert len(json.loads(_result(client, "select", **asked, preprocess=False))["indices"]) == 3
    for fields, reason in (
        ({}, "add `age`"),
        ({"preprocess": False, "id_column": "id"}, "expects a pool that is a table"),
    ):
        reply = client.post(f"{SICK}/predict", json={"pool": pool, **fields})
        assert (reply.status_code, reason in reply.json()["detail"]) == (422, True), reply.text
    broken = {
        (CSV, b"a,b\n1\n"): "Expected 2 columns",
        (CSV, b"a,a\n1,2\n"): "a name twice",
        (NDJSON, b"{}\n[1]\n"): "expected NDJSON",
        (ARROW, b"\xff" * 100): "an Arrow stream",
        (CSV, ("\n".join(["a", *["1"] * 3]) + "\n\xe9,").encode("latin-1")): "expected CSV",
    }
    for (kind, content), reason in broken.items():
        reply = sent(client, "/v1/pools", kind, content)
        assert (reply.status_code, reason in reply.json()["detail"]) == (422, True), reply.text
    narrow = _pool(client, PARQUET, written(table[["id", "age"]], PARQUET))
    reply = client.post(f"{SICK}/predict", json={"pool": narrow})
    assert "add `smoker`" in reply.json()["detail"]
    reply = client.post("/v1/models/animals/predict", json={"pool": narrow})
    assert (reply.status_code, "the model takes" in reply.json()["detail"]) == (422, True)


def test_the_manifest_says_what_is_declared(client: httpx.Client) -> None:
    manifest = client.get(f"{SICK}/versions/1").json()["manifest"]
    (table,) = manifest["preprocess"]
    assert [column["name"] for column in table["columns"]] == [
        *("age", "smoker", "insured", "born", "job")
    ]
    assert "preprocess" not in client.get("/v1/models/animals/versions/1").json()["manifest"]


def test_long_bodies_of_records_and_columns_are_read_in_pieces(
    client: httpx.Client, tmp_path: Path
) -> None:
    table = frame(500, seed=6).assign(note="x" * 1000)
    columns = {name: [row[name] for row in records(table)] for name in table}
    replies = [
        client.post(f"{SICK}/predict", json={"inputs": inputs, "outputs": ["mean"]}).json()
        for inputs in (records(table), columns)
    ]
    assert len(json.dumps(columns)) > 2**18
    assert replies[0]["outputs"] == replies[1]["outputs"]
    assert len(replies[0]["outputs"]["mean"]) == 500


def test_a_calibration_widens_the_range_that_is_known(client: httpx.Client, tmp_path: Path) -> None:
    path = tmp_path / "narrow.dubito"
    network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    declared: Any = {"output": "logits", "preprocess": preprocess.ArrayInput()}
    export(network, torch.rand(6, 4), path, task="classification", **declared)
    upload(client, "narrow", path).raise_for_status()
    rows = 30 * np.random.default_rng(0).random((120, 4))
    far, farther = (30 * np.ones((1, 4))).tolist(), (900 * np.ones((1, 4))).tolist()

    def warned(inputs: object) -> list[str]:
        reply = client.post("/v1/models/narrow/predict", json={"inputs": inputs}).json()
        return [text for text in reply["warnings"] if "far outside" in text]

    assert "was shown at export, such as 30 in row 0" in warned(far)[0]
    labels = (rows.sum(1) > 60).astype(int).tolist()
    asked = {"inputs": rows.tolist(), "labels": labels, "coverage": 0.8, "alpha": 0.2}
    made = client.post("/v1/models/narrow/calibrate", json=asked)
    assert made.is_success, made.text
    client.put("/v1/models/narrow/calibration", json={"active": 1}).raise_for_status()
    assert warned(far) == []
    assert "was shown at export and calibration, such as 900 in row 0" in warned(farther)[0]


@pytest.mark.parametrize("route", [f"{SICK}/predict", "/v1/pools?name=contradiction"])
def test_a_parquet_that_contradicts_itself_is_refused_and_the_server_lives(
    client: httpx.Client, route: str
) -> None:
    """Each byte that may say that a column is of text is changed to one that says it is not."""
    whole = written(ROWS, PARQUET)
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    places = [place for place in range(start, len(whole) - 8) if whole[place] == 12]
    assert len(places) > 5
    for place in places:
        damaged = whole[:place] + b"\0" + whole[place + 1 :]
        answer = client.post(route, content=damaged, headers={"Content-Type": PARQUET})
        assert answer.status_code in (200, 201, 422), answer.text
        if answer.status_code == 201:
            client.delete("/v1/pools/contradiction").raise_for_status()
    assert client.get("/health/live").status_code == 200


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('p1,31,no,true,1990-01-01,"nurse\n', "line 3 on"),
        ('p1,31,no,true,1990-01-01,"nurse" or so\n', "line 2 on"),
        ('"p1,31,no,true,1990-01-01,nurse\n"p2,31,no,true,1990-01-01,nurse\n', "line 2 on"),
    ],
)
@pytest.mark.parametrize("route", [f"{SICK}/predict", "/v1/pools?name=quotes"])
def test_quotes_that_are_not_closed_take_in_no_rows(
    client: httpx.Client, route: str, line: str, reason: str
) -> None:
    names, rest = "id,age,smoker,insured,born,job\n", "p9,40,no,true,1980-01-01,clerk\n"
    body, headers = (names + line + rest).encode(), {"Content-Type": CSV}
    answer = client.post(route, content=body, headers=headers)
    assert answer.status_code == 422
    assert "expected quotes that are closed" in answer.json()["detail"]
    assert reason in answer.json()["detail"] or "line 2 on" in answer.json()["detail"]


def test_an_inch_in_a_cell_and_doubled_quotes_are_cells(client: httpx.Client) -> None:
    names, headers = "id,age,smoker,insured,born,job\n", {"Content-Type": CSV}
    plain = '5" tube,31,no,true,1990-01-01,nurse\n"a ""b"", c\n",40,no,true,1980-01-01,clerk\n'
    asked = f"{SICK}/predict?id_column=id&outputs=label"
    answer = client.post(asked, content=(names + plain).encode(), headers=headers)
    assert answer.json()["ids"] == ['5" tube', 'a "b", c\n']


def test_times_beyond_all_years_and_digits_of_other_scripts_are_refused(
    client: httpx.Client,
) -> None:
    far = pa.Table.from_pandas(ROWS.assign(born=None)).set_column(
        4, "born", pa.array([2**63 - 1] * len(ROWS), pa.timestamp("s"))
    )
    file = io.BytesIO()
    with pa.ipc.new_stream(file, far.schema) as stream:
        stream.write_table(far)
    row = "id,age,smoker,insured,born,job\np1,\u0e51,no,true,1990-01-01,nurse\n".encode()
    for body, kind, reason in (
        (file.getvalue(), ARROW, "column `born`"),
        (row, CSV, "`age`, row 0"),
    ):
        answer = client.post(f"{SICK}/predict", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 422, answer.text
        assert reason in answer.json()["detail"]
