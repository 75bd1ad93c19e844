"""`/v2` speaks the Open Inference Protocol: bodies as its clients write them, bytes included."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from dubito.api import create_app
from dubito.api.border.lag import LoopLag
from dubito.errors import InputError
from dubito.settings import Settings

from .conftest import CLASSES, Bundles, Server
from .declared import as_declared
from .http import ANIMALS, normals, predicted, upload

LENGTH = "Inference-Header-Content-Length"
ROWS = normals(5)
LABELLED = normals(120, seed=1)
Json = dict[str, Any]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, bundles: Bundles) -> Iterator[httpx.Client]:
    """A client of a server with a calibrated classification and a bare regression."""
    server = Server(Settings(data_dir=tmp_path_factory.mktemp("state") / "data", num_samples=16))
    server.start()
    hooks = {"response": [as_declared]}
    with httpx.Client(base_url=server.url, timeout=60, event_hooks=hooks) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        upload(client, "animals", bundles("second")).raise_for_status()
        upload(client, "numbers", bundles("regression")).raise_for_status()
        alias = client.put(f"{ANIMALS}/aliases/spare", json={"version": 2})
        alias.raise_for_status()
        labels = [CLASSES[index] for index in np.arange(120) % 3]
        body = {"inputs": LABELLED.tolist(), "labels": labels}
        client.post(f"{ANIMALS}/calibrate", json=body).raise_for_status()
        yield client
    server.stop()


def tensor(rows: NDArray[Any] = ROWS, datatype: str = "FP32", **fields: Any) -> Json:
    """The one input of the tiny networks, as the protocol writes it."""
    data = {} if "parameters" in fields else {"data": rows.reshape(-1).tolist()}
    return {"name": "input", "shape": list(rows.shape), "datatype": datatype} | data | fields


def infer(
    client: httpx.Client, body: Json, behind: bytes = b"", to: str = "animals"
) -> httpx.Response:
    """Send JSON, and bytes behind it, as tritonclient does: without a content type."""
    content = json.dumps(body).encode()
    headers = {LENGTH: str(len(content))} if behind else {}
    return client.post(f"/v2/models/{to}/infer", content=content + behind, headers=headers)


def outputs(reply: httpx.Response) -> dict[str, Any]:
    """The outputs of a reply as arrays of their shape, or lists of text."""
    assert reply.status_code == 200, reply.text
    length = reply.headers.get(LENGTH)
    is_binary = length is not None
    kind = "application/octet-stream" if is_binary else "application/json"
    assert reply.headers["content-type"] == kind
    head = json.loads(reply.content[: int(length)] if is_binary else reply.content)
    behind = reply.content[int(length) :] if is_binary else b""
    found: dict[str, Any] = {}
    for one in head["outputs"]:
        if "parameters" in one:
            size = one["parameters"]["binary_data_size"]
            content, behind = behind[:size], behind[size:]
            values = unpacked(content, one["datatype"])
        else:
            values = one["data"]
        if one["datatype"] == "BYTES":
            assert len(values) == np.prod(one["shape"])
            found[one["name"]] = values
        else:
            numbers = np.array([np.nan if value is None else value for value in values])
            found[one["name"]] = numbers.reshape(one["shape"])
    assert behind == b""
    return found


def unpacked(content: bytes, datatype: str) -> list[Any]:
    """The values of a tensor in the binary form, read as the protocol describes it."""
    formats = {"FP64": "d", "INT64": "q", "BOOL": "?"}
    if datatype in formats:
        return [value for (value,) in struct.iter_unpack(f"<{formats[datatype]}", content)]
    values = []
    while content:
        (length,) = struct.unpack_from("<I", content)
        values.append(content[4 : 4 + length].decode())
        content = content[4 + length :]
    return values


def test_an_inference_gives_what_a_prediction_gives(asked: httpx.Client) -> None:
    columns = predicted(asked, ROWS)["outputs"]
    reply = infer(asked, {"id": "mine", "model_name": "animals", "inputs": [tensor()]})
    found = outputs(reply)
    for name in ("mean", "variance", "mutual_information", "num_samples_used"):
        assert np.allclose(found[name], columns[name], atol=1e-12), name
    assert found["label"] == columns["label"]
    assert found["decision"] == columns["decision"]
    sets = [[CLASSES[c] for c in np.flatnonzero(row)] for row in found["prediction_set"]]
    assert sets == columns["prediction_set"]
    for name in ("score", "p_value", "flag"):
        assert np.allclose(found[f"ood.{name}"], columns["ood"][name])
    head = reply.json()
    assert (head["model_name"], head["model_version"], head["id"]) == ("animals", "1", "mine")
    assert head["parameters"]["calibration"] == 1
    assert head["parameters"]["num_samples"] == 16
    assert head["parameters"]["request_id"] == reply.headers["X-Request-Id"]


def test_nested_lists_and_other_datatypes_are_the_same_rows(asked: httpx.Client) -> None:
    known = outputs(infer(asked, {"inputs": [tensor()]}))["mean"]
    nested = tensor(data=ROWS.tolist())
    wide = tensor(ROWS.astype(np.float64), "FP64")
    for one in (nested, wide):
        assert np.array_equal(outputs(infer(asked, {"inputs": [one]}))["mean"], known)


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "FP16", "BF16", "INT8", "UINT64", "BOOL"])
def test_rows_come_as_bytes(asked: httpx.Client, datatype: str) -> None:
    whole = np.array([[0, 1, 1, 0], [1, 0, 1, 1]])
    rows = ROWS if datatype in ("FP32", "FP64") else whole
    if datatype == "BF16":
        content = (rows.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    else:
        codes = {"FP32": "<f4", "FP64": "<f8", "FP16": "<f2", "INT8": "i1", "UINT64": "<u8"}
        content = rows.astype(codes.get(datatype, "?")).tobytes()
    sized = tensor(rows, datatype, parameters={"binary_data_size": len(content)})
    reply = infer(asked, {"inputs": [sized]}, content)
    known = outputs(infer(asked, {"inputs": [tensor(rows.astype(np.float32))]}))
    assert np.array_equal(outputs(reply)["mean"], known["mean"])


def test_outputs_come_as_bytes_where_they_are_wanted_so(asked: httpx.Client) -> None:
    wanted = [
        {"name": "label", "parameters": {"binary_data": True}},
        {"name": "mean"},
        {"name": "ood.flag", "parameters": {"binary_data": True}},
        {"name": "num_samples_used", "parameters": {"binary_data": True}},
    ]
    body = {"inputs": [tensor()], "outputs": wanted}
    mixed = infer(asked, body)
    known = outputs(infer(asked, {"inputs": [tensor()]}))
    found = outputs(mixed)
    assert list(found) == [one["name"] for one in wanted]
    for name, values in found.items():
        assert np.array_equal(values, known[name]), name
    all_binary = infer(asked, {"inputs": [tensor()], "parameters": {"binary_data_output": True}})
    found = outputs(all_binary)
    assert found.keys() == known.keys()
    assert all(np.array_equal(found[name], known[name]) for name in known)


def test_a_group_and_what_needs_a_request_are_named(asked: httpx.Client) -> None:
    wanted = [{"name": "ood"}, {"name": "samples"}]
    found = outputs(infer(asked, {"inputs": [tensor()], "outputs": wanted}))
    assert list(found) == ["ood.score", "ood.p_value", "ood.flag", "samples"]
    assert found["samples"].shape == (5, 16, 3)


def test_a_body_of_numbers_alone_is_the_one_input(asked: httpx.Client) -> None:
    reply = asked.post("/v2/models/animals/infer", content=ROWS.tobytes(), headers={LENGTH: "0"})
    assert LENGTH in reply.headers
    known = outputs(infer(asked, {"inputs": [tensor()]}))
    assert np.array_equal(outputs(reply)["mean"], known["mean"])


def test_parameters_are_those_of_a_prediction(asked: httpx.Client) -> None:
    parameters = {"num_samples": 8, "seed": 3, "masks": "independent", "draw": "iid"}
    fields = parameters | {"calibration": "none", "outputs": ["mean"]}
    columns = predicted(asked, ROWS, **fields)["outputs"]
    body = {"inputs": [tensor()], "parameters": parameters | {"calibration": "none"}}
    reply = infer(asked, body)
    assert np.allclose(outputs(reply)["mean"], columns["mean"], atol=1e-12)
    said = reply.json()["parameters"]
    assert {name: said[name] for name in parameters} == parameters
    assert "no calibration" in said["warnings"]
    assert "calibration" not in said
    found = outputs(reply)
    assert "ood.score" not in found, "what would be null is left out"
    parameters = {"method": "ensemble", "members": "1,spare", "timeout": 60_000_000}
    said = infer(asked, {"inputs": [tensor()], "parameters": parameters}).json()["parameters"]
    assert said["members"] == "1,2"
    said = infer(asked, {"inputs": [tensor()], "parameters": {"sites": "0"}}).json()["parameters"]
    assert said.get("sites", "0") == "0"


def test_versions_and_aliases_are_asked_by_path(asked: httpx.Client) -> None:
    for reference, number in (("1", "1"), ("2", "2"), ("spare", "2"), ("default", "1")):
        reply = infer(asked, {"inputs": [tensor()]}, to=f"animals/versions/{reference}")
        assert reply.json()["model_version"] == number
        assert asked.get(f"/v2/models/animals/versions/{reference}/ready").json()["ready"]
        page = asked.get(f"/v2/models/animals/versions/{reference}").json()
        assert page["versions"] == ["1", "2"]


def test_metadata_and_configuration_say_what_is_answered(asked: httpx.Client) -> None:
    for model in ("animals", "numbers", "animals/versions/2"):
        page = asked.get(f"/v2/models/{model}").json()
        name = page["inputs"][0]["name"]
        assert page["inputs"] == [{"name": name, "datatype": "FP32", "shape": [-1, 4]}]
        reply = infer(asked, {"inputs": [tensor(name=name)]}, to=model).json()
        given = [(o["name"], o["datatype"], [-1, *o["shape"][1:]]) for o in reply["outputs"]]
        assert [(o["name"], o["datatype"], o["shape"]) for o in page["outputs"]] == given
        config = asked.get(f"/v2/models/{model}/config").json()
        assert config["max_batch_size"] == 10_000
        assert config["input"] == [{"name": name, "data_type": "TYPE_FP32", "dims": [4]}]
        dims = [(one["name"], [-1, *one["dims"]]) for one in config["output"]]
        assert dims == [(name, shape) for name, _, shape in given]
    classes = asked.get("/v2/models/animals/config").json()["parameters"]["classes"]
    assert json.loads(classes["string_value"]) == list(CLASSES)


def test_the_server_says_what_it_is_and_that_it_is_well(asked: httpx.Client) -> None:
    page = asked.get("/v2").json()
    assert page["name"] == "dubito"
    assert "binary_tensor_data" in page["extensions"]
    assert asked.get("/v2/health/live").json() == {"live": True}
    assert asked.get("/v2/health/ready").json() == {"live": True, "ready": True}


def test_statistics_count_what_was_answered_and_what_was_not(
    asked: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stats() -> Json:
        (entry,) = asked.get("/v2/models/animals/versions/2/stats").json()["model_stats"]
        return dict(entry)

    before = stats()
    assert infer(asked, {"inputs": [tensor()]}, to="animals/versions/2").status_code == 200
    assert infer(asked, {"inputs": []}, to="animals/versions/2").status_code == 400
    with monkeypatch.context() as busy:
        busy.setattr(LoopLag, "ahead_s", 100.0)
        assert infer(asked, {"inputs": [tensor()]}, to="animals/versions/2").status_code == 429
    after = stats()
    assert after["execution_count"] - before["execution_count"] == 1
    assert after["inference_count"] - before["inference_count"] == len(ROWS)
    spent, past = after["inference_stats"], before["inference_stats"]
    assert spent["fail"]["count"] - past["fail"]["count"] == 2
    assert spent["queue"]["count"] - past["queue"]["count"] == 1
    assert spent["queue"]["ns"] > past["queue"]["ns"]
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    assert sum(spent[part]["ns"] for part in parts) == spent["success"]["ns"] > 0
    named = [entry["name"] for entry in asked.get("/v2/models/stats").json()["model_stats"]]
    assert named == ["animals", "animals", "numbers"]
    assert len(asked.get("/v2/models/animals/stats").json()["model_stats"]) == 2


def test_the_repository_loads_and_unloads(asked: httpx.Client) -> None:
    index = asked.post("/v2/repository/index").json()
    assert {(one["name"], one["version"]) for one in index} == {
        *(("animals", "1"), ("animals", "2"), ("numbers", "1"))
    }
    unload = {"parameters": {"unload_dependents": False}}
    entry = asked.post("/v2/repository/models/numbers/unload", json=unload).json()
    assert entry == {
        **{"name": "numbers", "version": "1"},
        **{"state": "UNAVAILABLE", "reason": "unloaded"},
    }
    assert asked.get("/v2/models/numbers/ready").status_code == 503
    ready = asked.post("/v2/repository/index", json={"ready": True}).json()
    assert {one["name"] for one in ready} == {"animals"}
    entry = asked.post("/v2/repository/models/numbers/load", content=b"{}").json()
    assert entry["state"] == "READY"
    assert asked.get("/v2/models/numbers/ready").json() == {"name": "numbers", "ready": True}


GOOD = [tensor()]
SIZED = tensor(parameters={"binary_data_size": ROWS.nbytes})
REFUSED: dict[str, tuple[Json, bytes, list[str]]] = {
    "no inputs": ({}, b"", ["`inputs`"]),
    "an unknown field": ({"inputs": GOOD, "output": []}, b"", ["`output`"]),
    "another model": ({"inputs": GOOD, "model_name": "numbers"}, b"", ["model_name", "animals"]),
    "another version": ({"inputs": GOOD, "model_version": "2"}, b"", ["model_version"]),
    "another input": ({"inputs": [tensor(name="x")]}, b"", ["input", "x"]),
    "an input twice": ({"inputs": [tensor(), tensor()]}, b"", ["twice"]),
    "another shape": ({"inputs": [tensor(ROWS[:, :3])]}, b"", ["(4,)", "(3,)"]),
    "too few values": ({"inputs": [tensor(data=[1.0])]}, b"", ["20 values", "got 1"]),
    "lists of another shape": ({"inputs": [tensor(data=ROWS.T.tolist())]}, b"", ["[4, 5]"]),
    "ragged lists": ({"inputs": [tensor(data=[[1, 2], [3]])]}, b"", ["ragged"]),
    "null among values": ({"inputs": [tensor(data=[None] * 20)]}, b"", ["null"]),
    "text": ({"inputs": [tensor(datatype="BYTES", data=["a"] * 20)]}, b"", ["BYTES"]),
    "fractions as integers": ({"inputs": [tensor(datatype="INT32")]}, b"", ["INT32"]),
    "out of range": ({"inputs": [tensor(data=[300] * 20, datatype="INT8")]}, b"", ["[-128, 127]"]),
    "an unknown datatype": ({"inputs": [tensor(datatype="FP8")]}, b"", ["datatype"]),
    "a negative size": ({"inputs": [tensor(shape=[-1, 4])]}, b"", ["shape"]),
    "no data": ({"inputs": [tensor(data=None)]}, b"", ["binary_data_size"]),
    "data and bytes": ({"inputs": [SIZED | {"data": [1.0]}]}, ROWS.tobytes(), ["both"]),
    "too few bytes": ({"inputs": [SIZED]}, ROWS.tobytes()[:-4], ["80 bytes", "76"]),
    "too many bytes": ({"inputs": [SIZED]}, ROWS.tobytes() + b"1", ["80 bytes", "81"]),
    "not finite": ({"inputs": [SIZED]}, np.full((5, 4), np.nan, "<f4").tobytes(), ["finite"]),
    "a byte that is no BOOL": (
        {"inputs": [tensor(ROWS, "BOOL", parameters={"binary_data_size": 20})]},
        *(b"\x02" * 20, ["0 or 1"]),
    ),
    "an unknown output": ({"inputs": GOOD, "outputs": [{"name": "bald"}]}, b"", ["bald"]),
    "no part of its group": (
        {"inputs": GOOD, "outputs": [{"name": "ood.rank"}]},
        *(b"", ["ood.rank", "ood.score"]),
    ),
    "an unknown parameter": ({"inputs": GOOD, "parameters": {"priority": 1}}, b"", ["priority"]),
    "a parameter of another type": (
        {"inputs": GOOD, "parameters": {"num_samples": "8"}},
        *(b"", ["parameters.num_samples"]),
    ),
    "a long parameter": ({"inputs": GOOD, "parameters": {"sites": "9" * 5000}}, b"", ["sites"]),
    "too many samples": ({"inputs": GOOD, "parameters": {"num_samples": 10**6}}, b"", ["10000"]),
    "classification": (
        {"inputs": GOOD, "outputs": [{"name": "mean", "parameters": {"classification": 2}}]},
        *(b"", ["classification"]),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_a_400_that_says_why(asked: httpx.Client, name: str) -> None:
    body, behind, words = REFUSED[name]
    reply = infer(asked, body, behind)
    assert reply.status_code == 400, reply.text
    problem = reply.json()
    assert problem["status"] == 400
    assert problem["error"] == problem["detail"]
    for word in words:
        assert word in problem["error"], problem["error"]
    assert infer(asked, {"inputs": GOOD}).status_code == 200


@pytest.mark.parametrize("length", ["", "-1", "x", "99999", "9" * 5000, "1_0", "٣"])
def test_a_length_of_the_json_that_is_none_is_refused(asked: httpx.Client, length: str) -> None:
    headers = {LENGTH.encode(): length.encode("utf-8")}
    reply = asked.post("/v2/models/animals/infer", content=b"{}", headers=headers)
    assert reply.status_code == 400
    assert LENGTH in reply.json()["error"]


def test_rows_alone_must_be_whole(asked: httpx.Client) -> None:
    for content in (b"", b"123"):
        reply = asked.post("/v2/models/animals/infer", content=content, headers={LENGTH: "0"})
        assert reply.status_code == 400
        assert "16 bytes" in reply.json()["error"]


def test_other_errors_keep_their_status_and_the_one_body(asked: httpx.Client) -> None:
    body = json.dumps({"inputs": GOOD})
    form = {"Content-Type": "text/plain"}
    coded = {"Content-Encoding": "none-that-is-known"}
    late = {"num_samples": 10_000, "timeout": 1}
    post = asked.post
    replies = {
        404: [
            infer(asked, {"inputs": GOOD}, to="nobody"),
            infer(asked, {"inputs": GOOD}, to="animals/versions/9"),
            asked.get("/v2/models/nobody"),
            asked.get("/v2/models/nobody/ready"),
            asked.get("/v2/models/nobody/config"),
            asked.get("/v2/models/nobody/stats"),
            asked.post("/v2/repository/models/nobody/load"),
            asked.post("/v2/repository/models/nobody/unload"),
            asked.get("/v2/nothing"),
        ],
        405: [asked.get("/v2/models/animals/infer")],
        504: [infer(asked, {"inputs": GOOD, "parameters": late})],
        415: [post("/v2/models/animals/infer", content=body, headers=h) for h in (form, coded)],
        400: [
            asked.post("/v2/models/animals/infer", content=b"{"),
            asked.post("/v2/models/animals/infer?seed=1", content=body),
            asked.post("/v2/repository/index", json={"ready": 1}),
            asked.post("/v2/repository/models/animals/load", json={"parameters": {"config": ""}}),
        ],
    }
    for status, found in replies.items():
        for reply in found:
            assert reply.status_code == status, (reply.url, reply.text)
            assert reply.json()["error"]


def test_a_port_for_grpc_wants_grpcio(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(InputError, match=r"pip install 'dubito\[grpc\]'"):
        create_app(settings.model_copy(update={"grpc_port": 0}))
