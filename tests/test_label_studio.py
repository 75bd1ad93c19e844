"""The machine learning backend for Label Studio, over a real Dubito server."""

from __future__ import annotations

import base64
import importlib
import io
import json
import math
import re
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import SecretStr
from torch import nn

from dubito.settings import Settings
from dubito_nn import export

from .conftest import CLASSES, NUM_FEATURES, Bundles, Server
from .http import upload

FOLDER = Path(__file__).parent.parent / "examples" / "label_studio"
MODULES = ("backend", "asking", "labelling", "tasks")
CONFIGURATION = """<View>
  <Text name="animal" value="$numbers"/>
  <Choices name="kind" toName="animal" choice="single">
    <Choice value="Ant" alias="ant"/><Choice value="bee"/><Choice value="cat"/><Choice value="dog"/>
  </Choices>
</View>"""
BAD_TASKS: list[tuple[dict[str, Any], str]] = [
    ({}, "expected 'numbers' in its data, got nothing"),
    ({"text": "bzz"}, "expected 'numbers' in its data, got 'text':"),
    ({"numbers": None}, "expected 'numbers' in its data, got null there"),
    ({"numbers": ""}, "expected 'numbers' in its data, got an empty text there"),
    ({"numbers": [1, 2]}, "expected 4 finite numbers in 'numbers', got 2"),
    ({"numbers": "[1, 2, 3, NaN]"}, "4 finite numbers in 'numbers', got nan at position [3]"),
    (
        {"numbers": [[1, 2], [None, 4]]},
        "4 finite numbers in 'numbers', got null at position [1, 0]",
    ),
    ({"numbers": [1, 1e39, 1, 1]}, "numbers of type float32 in 'numbers', got 1e+39 at position"),
    ({"numbers": [3e38] * 4}, "expected numbers in the range that the network was trained on"),
    ({"numbers": [10**400] * 4}, "expected numbers in 'numbers', got [1000"),
    ({"numbers": "[" * 5000}, "expected numbers in 'numbers', got '[[["),
    ({"numbers": "[" * 100_000}, "expected numbers in 'numbers', got '[[["),
    ({"numbers": {"a": 1}}, "expected numbers in 'numbers', got {'a': 1}"),
    ({"numbers": "data:image/png;base64,%%"}, "expected base64"),
    ({"numbers": "data:image/png,abc"}, "such as PNG or JPEG, got 3 bytes that begin with b'abc'"),
    ({"numbers": "data:,\ud800"}, "expected base64"),
    ({"numbers": "http://127.0.0.1:9/7.png"}, "expected numbers, a data URI, or"),
]
BAD_HEADS: list[tuple[dict[str, Any], str]] = [
    ({"class_axis": 1}, "with a class at every position (axis 1 of its output)"),
    ({"free_dims": {"input": {2: "length"}}}, "with rows of any length"),
    ({"task": "multilabel", "output": "sigmoid_logits"}, "whose task is multilabel"),
    ({"task": "regression", "output": "mean", "classes": None}, "whose task is regression"),
]
PARAMS = {"login": None, "password": None, "context": None}
Post = Callable[..., httpx.Response]


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        del sys.modules[name]


@pytest.fixture
def connect(
    modules: dict[str, ModuleType], ready: httpx.Client
) -> Iterator[Callable[..., TestClient]]:
    """Makes backends over a server that has the model `animals`."""
    with ExitStack() as running:

        def made(**options: Any) -> TestClient:
            chosen = {"dubito": str(ready.base_url), "model": "animals", **options}
            app = modules["backend"].create_app(modules["backend"].Options(**chosen))
            return running.enter_context(TestClient(app))

        yield made


def rows(count: int) -> list[list[float]]:
    made: list[list[float]] = np.random.default_rng(0).normal(size=(count, NUM_FEATURES)).tolist()
    return made


def tasks(values: list[object]) -> list[dict[str, object]]:
    return [
        {"id": 10 + place, "data": {"numbers": value}, "project": 7, "annotations": []}
        for place, value in enumerate(values)
    ]


def predict(client: TestClient, given: list[Any], **fields: Any) -> httpx.Response:
    """The request as Label Studio sends it."""
    body = {
        "tasks": given,
        "model_version": "animals/1",
        "project": "7.1700000000",
        "label_config": CONFIGURATION,
        "params": PARAMS,
        **fields,
    }
    as_json = {"Content-Type": "application/json"}
    return client.post("/predict", content=json.dumps(body), headers=as_json)


def offer(
    server: httpx.Client,
    model: str,
    folder: Path,
    network: nn.Module,
    rows: torch.Tensor,
    **head: Any,
) -> None:
    """Give the server a model."""
    declared = {"task": "classification", "output": "logits", "classes": CLASSES, **head}
    export(network, rows, folder / model, **declared)
    upload(server, model, folder / model).raise_for_status()


def png(pixels: list[list[int]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.array(pixels, np.uint8)).save(file, "png")
    return file.getvalue()


def test_the_backend_is_up_before_anything_is_asked(connect: Callable[..., TestClient]) -> None:
    for path in ("/", "/health"):
        assert connect().get(path).json()["status"] == "UP"
    assert connect().get("/metrics").json() == {}


def test_setup_checks_the_configuration_and_names_the_version_that_answers(
    connect: Callable[..., TestClient], ready: httpx.Client, bundles: Bundles
) -> None:
    sender = {"hostname": "http://localhost:8080", "access_token": "token"}
    body = {"project": "7.1700000000", "schema": CONFIGURATION, **sender}
    client = connect()
    assert client.post("/setup", json=body).json() == {"model_version": "animals/1"}
    upload(ready, "animals", bundles("second")).raise_for_status()
    ready.put("/v1/models/animals/aliases/default", json={"version": 2}).raise_for_status()
    assert client.post("/setup", json=body).json() == {"model_version": "animals/2"}
    assert client.post("/versions", json={"project": "7.17"}).json() == {"versions": ["animals/2"]}
    narrow = CONFIGURATION.replace('<Choice value="cat"/>', "")
    refused = client.post("/setup", json={**body, "schema": narrow})
    assert refused.status_code == 422
    assert "each of the network's 3 classes, got none for cat" in refused.json()["error"]


def test_predictions_are_those_of_the_server_in_the_words_of_the_project(
    connect: Callable[..., TestClient], ready: httpx.Client
) -> None:
    given = rows(12)
    answer = predict(connect(), tasks([*given[:6], *map(json.dumps, given[6:])])).json()
    assert answer["model_version"] == "animals/1"
    outputs = ready.post("/v1/models/animals/predict", json={"inputs": given}).json()["outputs"]
    assert len(answer["results"]) == 12
    for place, found in enumerate(answer["results"]):
        label = outputs["label"][place]
        information = outputs["mutual_information"][place]
        assert found["model_version"] == "animals/1"
        assert found["score"] == pytest.approx(1 - information / math.log(len(CLASSES)))
        [region] = found["result"]
        assert region.pop("score") == pytest.approx(max(outputs["mean"][place]))
        assert region == {
            "from_name": "kind",
            "to_name": "animal",
            "type": "choices",
            "value": {"choices": [{"ant": "Ant"}.get(label, label)]},
        }


@pytest.mark.parametrize("score", ["mutual_information", "predictive_entropy", "confidence"])
def test_ascending_scores_are_the_order_in_which_the_server_would_choose(
    score: str, connect: Callable[..., TestClient], ready: httpx.Client
) -> None:
    given = rows(12)
    results = predict(connect(score=score), tasks(list(given))).json()["results"]
    strategy = {"mutual_information": "bald", "predictive_entropy": "entropy"}
    body = {"strategy": strategy.get(score, "least_confidence"), "k": 12, "inputs": given}
    chosen = ready.post("/v1/models/animals/select", json=body).json()["indices"]
    order = sorted(range(12), key=lambda place: results[place]["score"])
    assert order == chosen
    assert all(0 <= found["score"] <= 1 for found in results)


def test_an_image_becomes_the_numbers_that_it_shows(
    connect: Callable[..., TestClient], ready: httpx.Client
) -> None:
    """A network of four numbers takes a square of two by two."""
    image = png([[0, 255], [51, 102]])
    inline = "data:image/png;base64," + base64.b64encode(image).decode()
    same = [[0, 1, 0.2, 0.4], [1, 0, 0.8, 0.6]]
    for is_inverted, numbers in zip((False, True), same, strict=True):
        client = connect(is_inverted=is_inverted)
        shown, written = predict(client, tasks([inline, numbers])).json()["results"]
        assert shown["score"] == pytest.approx(written["score"], abs=1e-6)
        assert shown["result"][0]["value"] == written["result"][0]["value"]


def test_images_come_from_label_studio_with_its_token_and_from_allowed_addresses_alone(
    connect: Callable[..., TestClient],
) -> None:
    sent: list[tuple[str, str | None]] = []

    class Images(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append((self.path, self.headers.get("Authorization")))
            self.send_response(404 if "gone" in self.path else 200)
            self.end_headers()
            self.wfile.write(png([[0, 255], [51, 102]]))

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Images) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}"
        client = connect(
            label_studio=home, label_studio_key="secret", images_from=(f"{home}/open/",)
        )
        found = predict(client, tasks(["/data/upload/7.png", f"{home}/open/7.png"])).json()
        assert [len(one["result"]) for one in found["results"]] == [1, 1]
        assert sent == [("/data/upload/7.png", "Token secret"), ("/open/7.png", None)]
        elsewhere = predict(client, tasks([f"{home}/shut/7.png"]))
        assert elsewhere.status_code == 422
        assert "begins with one of" in elsewhere.json()["error"]
        # Whatever stands behind the address of Label Studio is a path and no other host.
        predict(client, tasks(["//elsewhere/7.png"]))
        assert sent[2:] == [("/elsewhere/7.png", "Token secret")]
        gone = predict(client, tasks(["/data/gone.png"]))
        assert "got status 404" in gone.json()["error"]
        server.shutdown()


def test_a_task_without_a_row_is_refused_by_its_number_and_does_not_fail_the_others(
    connect: Callable[..., TestClient],
) -> None:
    client, good = connect(), tasks(list(rows(2)))
    whole = predict(client, good).json()["results"]
    for data, message in BAD_TASKS:
        task = {"id": 10, "data": data}
        refused = predict(client, [task])
        assert refused.status_code == 422
        assert message in refused.json()["error"]
        assert refused.json()["error"].startswith("task 10: expected ")
        results = predict(client, [good[0], task, good[1]]).json()["results"]
        assert results[1] == {"result": [], "score": None, "model_version": "animals/1"}
        assert [results[0], results[2]] == whole


def test_a_row_that_the_server_refuses_does_not_fail_the_others(
    connect: Callable[..., TestClient], ready: httpx.Client, tmp_path: Path
) -> None:
    """Tokens of no vocabulary are known to the network alone."""
    network = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Dropout(0.3), nn.Linear(8, 3))
    offer(ready, "tokens", tmp_path, network, torch.randint(9, (3, 2)))
    client = connect(model="tokens")
    given: list[object] = [[1, 2], [3, 99], [5, 6], [1.5, 2], [7, 8]]
    results = predict(client, tasks(given)).json()["results"]
    assert [len(found["result"]) for found in results] == [1, 0, 1, 0, 1]
    kept = predict(client, tasks(given[::2])).json()["results"]
    assert results[::2] == kept
    refused = predict(client, tasks([[3, 99], [1.5, 2]])).json()["error"]
    assert "task 10: Dubito: input `input` expects indices from 0 to 8" in refused
    assert "task 11: expected 2 whole numbers from -9223" in refused


def test_a_project_has_the_model_that_was_named_for_it_and_no_other(
    connect: Callable[..., TestClient], ready: httpx.Client, bundles: Bundles
) -> None:
    upload(ready, "others", bundles("second")).raise_for_status()
    client = connect(model=None, projects={"7": "animals", "8": "others", "9": "missing"})
    versions = {
        number: predict(client, tasks(list(rows(1))), project=f"{number}.17")
        for number in ("7", "8", "9", "10")
    }
    assert versions["7"].json()["model_version"] == "animals/1"
    assert versions["8"].json()["model_version"] == "others/1"
    assert versions["9"].status_code == versions["10"].status_code == 404
    assert "Dubito: " in versions["9"].json()["error"]
    assert "--project 10=MODEL" in versions["10"].json()["error"]


def test_a_server_that_is_not_there_is_named(connect: Callable[..., TestClient]) -> None:
    away = predict(connect(dubito="http://127.0.0.1:9"), tasks(list(rows(1))))
    assert away.status_code == 502
    assert "expected a Dubito server at http://127.0.0.1:9" in away.json()["error"]


def test_a_network_that_does_not_give_each_row_one_class_is_refused_before_any_task(
    connect: Callable[..., TestClient], ready: httpx.Client, tmp_path: Path
) -> None:
    parts = [nn.Conv1d(1, 8, 1), nn.Dropout(0.3), nn.Conv1d(8, len(CLASSES), 1)]
    for number, (head, what) in enumerate(BAD_HEADS):
        whole = [] if "class_axis" in head else [nn.AdaptiveAvgPool1d(1), nn.Flatten()]
        network, model = nn.Sequential(*parts, *whole), f"strange{number}"
        offer(ready, model, tmp_path, network, torch.randn(3, 1, 4), **head)
        client = connect(model=model)
        for refused in (
            client.post("/setup", json={"project": "7.17", "schema": CONFIGURATION}),
            client.post("/versions", json={"project": "7.17"}),
            predict(client, tasks(list(rows(1)))),
        ):
            error = refused.json()["error"]
            assert refused.status_code == 422
            assert "expected a classification of one input, with one class for a row" in error
            assert f"got `{model}`, {what}: name another model" in error


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ("<View", "as XML"),
        ('<View><Text name="animal" value="$numbers"/></View>', "expected <Choices>"),
        (CONFIGURATION.replace('toName="animal"', 'toName="plant"'), 'name="plant"'),
    ],
)
def test_a_configuration_that_classes_cannot_be_put_into_is_refused(
    configuration: str, message: str, connect: Callable[..., TestClient]
) -> None:
    refused = predict(connect(), tasks(list(rows(1))), label_config=configuration)
    assert refused.status_code == 422
    assert message in refused.json()["error"]


def test_the_configuration_that_the_documents_show_is_read(modules: dict[str, ModuleType]) -> None:
    [shown] = re.findall("```xml\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    classes = [str(digit) for digit in range(10)]
    choices = modules["labelling"].read_choices(textwrap.dedent(shown), classes)
    assert (choices.name, choices.to_name, choices.field) == ("digit", "image", "image")
    assert choices.words == dict(zip(classes, classes, strict=True))


def test_events_are_taken_note_of(connect: Callable[..., TestClient]) -> None:
    project = {"id": 7, "label_config": CONFIGURATION}
    labelled = {"task": tasks(list(rows(1)))[0], "annotation": {"id": 1, "result": []}}
    event = {"action": "ANNOTATION_CREATED", "project": project, **labelled}
    answer = connect().post("/webhook", json=event)
    assert answer.status_code == 201
    assert answer.json()["status"] == "ok"


def test_user_and_password_are_asked_where_they_are_set(
    connect: Callable[..., TestClient],
) -> None:
    client = connect(basic=("label", "studio"))
    assert client.get("/health").status_code == 401
    assert client.get("/health", auth=("label", "wrong")).status_code == 401
    assert client.get("/health", auth=("label", "studio")).json()["status"] == "UP"


def test_a_server_with_a_key_is_asked_with_it(
    modules: dict[str, ModuleType],
    serve: Callable[[Settings], Server],
    settings: Settings,
    bundles: Bundles,
) -> None:
    server = serve(settings.model_copy(update={"api_key": SecretStr("k3y")}))
    with httpx.Client(base_url=server.url, headers={"Authorization": "Bearer k3y"}) as owner:
        upload(owner, "animals", bundles("first")).raise_for_status()
    options = modules["backend"].Options(dubito=server.url, model="animals")
    for key, status in ((None, 502), ("k3y", 200)):
        app = modules["backend"].create_app(replace(options, dubito_key=key))
        with TestClient(app) as client:
            assert predict(client, tasks(list(rows(1)))).status_code == status


def test_options_come_from_the_command_line_and_the_environment(
    modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUBITO_API_KEY", "k3y")
    read = modules["backend"].read_options
    options, host, port = read(["--project", "7=animals", "--images-from", "https://host/"])
    assert (dict(options.projects), options.dubito_key) == ({"7": "animals"}, "k3y")
    assert (host, port) == ("127.0.0.1", 9090)
    for bad in ([], ["--project", "7"], ["--model", "a", "--images-from", "https://host"]):
        with pytest.raises(SystemExit):
            read(bad)
