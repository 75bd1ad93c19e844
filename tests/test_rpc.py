"""The Open Inference Protocol over gRPC: the messages of the protocol, sent as bytes of our own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from dubito.cli.commands.serve import bind
from dubito.errors import InputError
from dubito.registry.database import Database
from dubito.registry.keys import KeyStore
from dubito.settings import Settings

from .conftest import CLASSES, Bundles, Server
from .http import normals, predicted, upload

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
from dubito.api.rpc import inference_pb2 as pb  # noqa: E402
from dubito.api.rpc.server import SERVICE, RpcServer  # noqa: E402

KEY = "a-long-key"
ROWS = normals(5)
PROTO = Path(pb.__file__).with_name("inference.proto").read_text()
METHODS = dict(re.findall(r"rpc (\w+)\((\w+)\)", PROTO))
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, bundles: Bundles) -> Iterator[Server]:
    """A server with a key and two models, for HTTP and gRPC."""
    running = Server(
        Settings(
            data_dir=tmp_path_factory.mktemp("state") / "data",
            num_samples=16,
            api_key=SecretStr(KEY),
            grpc_port=0,
            max_body_bytes=2**20,
        )
    )
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def http(server: Server, bundles: Bundles) -> Iterator[httpx.Client]:
    """Its client over HTTP, once the models are there."""
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=server.url, timeout=60, headers=headers) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        upload(client, "numbers", bundles("regression")).raise_for_status()
        yield client


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[Any]:
    """A connection to its gRPC port."""
    with grpc.insecure_channel(f"127.0.0.1:{server.app.state.rpc.port}") as channel:
        yield channel


@pytest.fixture(scope="module")
def ask(http: httpx.Client, channel: Any) -> Ask:
    """Calls a method by name, with the key."""

    def call(method: str, *metadata: tuple[str, str], timeout: float = 60, **fields: Any) -> Any:
        sent = (("authorization", f"Bearer {KEY}"), *metadata)
        return _stub(channel, method)(
            getattr(pb, METHODS[method])(**fields), metadata=sent, timeout=timeout
        )

    return call


def _stub(channel: Any, method: str) -> Any:
    kind = getattr(pb, METHODS[method].replace("Request", "Response"))
    return channel.unary_unary(
        f"/{SERVICE}/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=kind.FromString,
    )


def tensor(**fields: Any) -> Any:
    """The one input of `animals`."""
    return pb.ModelInferRequest.InferInputTensor(
        **({"name": "input", "datatype": "FP32", "shape": ROWS.shape} | fields)
    )


def as_bytes(**fields: Any) -> dict[str, Any]:
    """A request whose numbers are bytes."""
    asked = {"model_name": "animals", "inputs": [tensor()], "raw_input_contents": [ROWS.tobytes()]}
    return asked | fields


def parameter(value: Any) -> Any:
    """A parameter of a request."""
    names = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    return pb.InferParameter(**{names[type(value)]: value})


def arrays(reply: Any) -> dict[str, Any]:
    """The outputs of a reply that are numbers."""
    codes = {"FP64": "<f8", "INT64": "<i8", "BOOL": "?"}
    return {
        output.name: np.frombuffer(raw, codes[output.datatype]).reshape(output.shape)
        for output, raw in zip(reply.outputs, reply.raw_output_contents, strict=True)
        if output.datatype in codes
    }


def refusal(call: Callable[[], Any]) -> tuple[Any, str]:
    """The status code and the details that a call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code(), error.details()


def test_an_inference_gives_what_a_prediction_gives(ask: Ask, http: httpx.Client) -> None:
    columns = predicted(http, ROWS)["outputs"]
    reply = ask("ModelInfer", ("x-request-id", "mine"), **as_bytes(id="7"))
    assert (reply.model_name, reply.model_version, reply.id) == ("animals", "1", "7")
    found = arrays(reply)
    for name in ("mean", "mutual_information", "num_samples_used"):
        assert np.allclose(found[name], columns[name], atol=1e-12), name
    assert reply.parameters["request_id"].string_param == "mine"
    assert reply.parameters["num_samples"].int64_param == 16
    assert "no active calibration" in reply.parameters["warnings"].string_param


def test_numbers_come_in_a_field_of_their_kind(ask: Ask) -> None:
    known = arrays(ask("ModelInfer", **as_bytes()))["mean"]
    sent = (("FP32", "fp32_contents", ROWS), ("FP64", "fp64_contents", ROWS))
    for datatype, name, rows in sent:
        contents = pb.InferTensorContents(**{name: rows.reshape(-1).tolist()})
        one = tensor(datatype=datatype, contents=contents)
        reply = ask("ModelInfer", model_name="animals", inputs=[one])
        assert np.allclose(arrays(reply)["mean"], known, atol=1e-12)
    whole = [0, 1] * 10
    wanted = None
    for datatype in ("INT8", "INT64", "UINT16", "UINT64", "BOOL"):
        fields = {"INT8": "int_contents", "UINT16": "uint_contents"}
        name = fields.get(datatype, f"{datatype.lower()}_contents")
        contents = pb.InferTensorContents(**{name: whole})
        reply = ask(
            "ModelInfer",
            model_name="animals",
            inputs=[tensor(datatype=datatype, contents=contents)],
        )
        found = arrays(reply)["mean"]
        wanted = found if wanted is None else wanted
        assert np.array_equal(found, wanted), datatype


def test_parameters_outputs_and_versions_are_honoured(ask: Ask, http: httpx.Client) -> None:
    fields = {"num_samples": 8, "seed": 3, "tolerance": 0.5, "calibration": "none"}
    columns = predicted(http, ROWS, **fields, outputs=["mean", "num_samples_used"])["outputs"]
    sent = {name: parameter(value) for name, value in fields.items()}
    outputs = [pb.ModelInferRequest.InferRequestedOutputTensor(name="mean")]
    sized = tensor(parameters={"binary_data_size": parameter(ROWS.nbytes)})  # as kserve writes it
    asked = as_bytes(parameters=sent, outputs=outputs, model_version="default", inputs=[sized])
    reply = ask("ModelInfer", **asked)
    assert [output.name for output in reply.outputs] == ["mean"]
    assert np.allclose(arrays(reply)["mean"], columns["mean"], atol=1e-12)
    assert reply.parameters["tolerance"].double_param == 0.5


def test_the_server_and_its_models_are_described(ask: Ask, http: httpx.Client) -> None:
    assert ask("ServerLive").live
    assert ask("ServerReady").ready
    server = ask("ServerMetadata")
    assert {"name": server.name, "version": server.version, "extensions": [*server.extensions]} == (
        http.get("/v2").json()
    )
    assert ask("ModelReady", name="animals", version="1").ready
    page = http.get("/v2/models/animals").json()
    found = ask("ModelMetadata", name="animals")
    assert [*found.versions] == page["versions"]
    for kind in ("inputs", "outputs"):
        entries = [
            {"name": one.name, "datatype": one.datatype, "shape": [*one.shape]}
            for one in getattr(found, kind)
        ]
        assert entries == page[kind]
    config = ask("ModelConfig", name="animals").config
    assert config.max_batch_size == 10_000
    assert config.input[0].data_type == pb.TYPE_FP32
    assert list(CLASSES) == re.findall(r"\w+", config.parameters["classes"].string_value)


def test_statistics_count_both_protocols(ask: Ask, http: httpx.Client) -> None:
    def count() -> tuple[int, int]:
        (entry,) = ask("ModelStatistics", name="animals", version="1").model_stats
        return entry.execution_count, entry.inference_stats.fail.count

    before = count()
    ask("ModelInfer", **as_bytes())
    refusal(lambda: ask("ModelInfer", **as_bytes(raw_input_contents=[b"1"])))
    body = {"name": "input", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 0, 0]}
    http.post("/v2/models/animals/infer", json={"inputs": [body]}).raise_for_status()
    assert count() == (before[0] + 2, before[1] + 1)
    assert {one.name for one in ask("ModelStatistics").model_stats} == {"animals", "numbers"}


def test_the_repository_loads_and_unloads(ask: Ask) -> None:
    unload = {"unload_dependents": pb.ModelRepositoryParameter(bool_param=False)}
    ask("RepositoryModelUnload", model_name="numbers", parameters=unload)
    assert not ask("ModelReady", name="numbers").ready
    states = {one.name: one.state for one in ask("RepositoryIndex").models}
    assert states == {"animals": "READY", "numbers": "UNAVAILABLE"}
    assert {one.name for one in ask("RepositoryIndex", ready=True).models} == {"animals"}
    ask("RepositoryModelLoad", model_name="numbers")
    assert ask("ModelReady", name="numbers").ready


def test_every_method_of_the_definition_asks_for_the_key(channel: Any, http: httpx.Client) -> None:
    assert len(METHODS) == 11
    for method in (*METHODS, "Nothing"):
        call = channel.unary_unary(f"/{SERVICE}/{method}")
        for sent in ((), (("authorization", KEY),), (("authorization", "Bearer wrong"),)):
            code, text = refusal(lambda call=call, sent=sent: call(b"", metadata=sent))
            assert code == grpc.StatusCode.UNAUTHENTICATED, method
            assert text == _error(httpx.get(http.base_url.join("/v2")))
    unknown = channel.unary_unary(f"/{SERVICE}/Nothing")
    sent = (("authorization", f"Bearer {KEY}"),)
    assert refusal(lambda: unknown(b"", metadata=sent))[0] == grpc.StatusCode.UNIMPLEMENTED


def test_a_method_opens_to_its_scope_and_model_alone(
    server: Server, channel: Any, http: httpx.Client, ask: Ask
) -> None:
    database = Database(server.settings.registry_url)
    store = KeyStore(database)
    made = {
        "reads": store.create("reads", "predict"),
        "numbers": store.create("numbers", "admin", models=("numbers",)),
        "slow": store.create("slow", "predict", rate=0.01),
    }
    database.close()
    server.app.state.access.application.library.facts.forget()  # rather than wait for it

    def by(key: str, method: str, **fields: Any) -> Any:
        sent = (("authorization", f"Bearer {made[key]}"),)
        message = getattr(pb, METHODS[method])(**fields)
        return _stub(channel, method)(message, metadata=sent, timeout=60)

    for method in METHODS:
        is_change = method in ("RepositoryModelLoad", "RepositoryModelUnload")
        if is_change:
            code, text = refusal(lambda method=method: by("reads", method, model_name="animals"))
            assert code == grpc.StatusCode.PERMISSION_DENIED
            assert "expected the scope `admin`, got `predict`" in text
        of = {"model_name"} if is_change or method == "ModelInfer" else {"name"}
        if of & set(getattr(pb, METHODS[method]).DESCRIPTOR.fields_by_name):
            named = dict.fromkeys(of, "animals")
            code, text = refusal(lambda method=method, named=named: by("numbers", method, **named))
            assert code == grpc.StatusCode.PERMISSION_DENIED, method
            assert "expected one for the model 'animals'" in text
    assert by("reads", "ModelInfer", **as_bytes()).model_version == "1"
    assert {entry.name for entry in by("numbers", "RepositoryIndex").models} == {"numbers"}
    assert {entry.name for entry in by("numbers", "ModelStatistics").model_stats} == {"numbers"}
    assert by("slow", "ServerLive").live
    code, _ = refusal(lambda: by("slow", "ServerLive"))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


def _error(reply: httpx.Response) -> str:
    return str(reply.json()["error"])


def test_errors_have_the_text_of_http(ask: Ask, http: httpx.Client) -> None:
    codes = grpc.StatusCode
    unknown = http.get("/v2/models/nobody")
    assert refusal(lambda: ask("ModelMetadata", name="nobody")) == (
        *(codes.NOT_FOUND, _error(unknown)),
    )
    wrong = {"name": "input", "shape": [1, 3], "datatype": "FP32", "data": [0, 0, 0]}
    refused = http.post("/v2/models/animals/infer", json={"inputs": [wrong]})
    rows = np.zeros((1, 3), np.float32)
    asked = as_bytes(inputs=[tensor(shape=(1, 3))], raw_input_contents=[rows.tobytes()])
    assert refusal(lambda: ask("ModelInfer", **asked)) == (
        *(codes.INVALID_ARGUMENT, _error(refused)),
    )


REFUSED: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "no inputs": (lambda: {"inputs": [], "raw_input_contents": []}, "inputs"),
    "bytes of too many": (lambda: {"raw_input_contents": [b"", b""]}, "raw_input_contents"),
    "too few bytes": (lambda: {"raw_input_contents": [ROWS.tobytes()[:-1]]}, "80 bytes"),
    "no numbers": (lambda: {"raw_input_contents": []}, "20 values"),
    "a datatype": (lambda: {"inputs": [tensor(datatype="FP8")]}, "FP8"),
    "text": (lambda: {"inputs": [tensor(datatype="BYTES")]}, "BYTES"),
    "a negative size": (lambda: {"inputs": [tensor(shape=(-1, 4))]}, "shape"),
    "no shape": (lambda: {"inputs": [tensor(shape=())]}, "shape"),
    "a tensor's parameter": (
        lambda: {"inputs": [tensor(parameters={"shared_memory_region": parameter("a")})]},
        "shared_memory_region",
    ),
    "classification": (
        lambda: {
            "outputs": [
                pb.ModelInferRequest.InferRequestedOutputTensor(
                    name="mean", parameters={"classification": parameter(2)}
                )
            ]
        },
        "classification",
    ),
    "a parameter": (lambda: {"parameters": {"priority": parameter(1)}}, "priority"),
    "a long id": (lambda: {"id": "x" * 300}, "id"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_an_invalid_argument(ask: Ask, name: str) -> None:
    fields, word = REFUSED[name]
    code, text = refusal(lambda: ask("ModelInfer", **as_bytes(**fields())))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert word in text


def test_a_message_that_is_none_and_one_too_large_are_refused(channel: Any, ask: Ask) -> None:
    infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    sent = (("authorization", f"Bearer {KEY}"),)
    code, text = refusal(lambda: infer(b"\xff\xff", metadata=sent))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "inference.ModelInferRequest" in text
    large = as_bytes(raw_input_contents=[bytes(2**20 + 1)])
    code, _ = refusal(lambda: ask("ModelInfer", **large))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ask("ModelInfer", **as_bytes()).outputs


def test_a_deadline_ends_an_inference_that_takes_longer(ask: Ask) -> None:
    many = {"num_samples": parameter(10_000), "timeout": parameter(1)}
    code, text = refusal(lambda: ask("ModelInfer", **as_bytes(parameters=many)))
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "deadline" in text


def test_a_port_that_is_taken_is_told_with_the_setting(server: Server) -> None:
    port = server.app.state.rpc.port
    held = server.app.state.access
    taken = type(held)(held.application, held.settings.model_copy(update={"grpc_port": port}))
    with pytest.raises(InputError, match="DUBITO_GRPC_PORT"):
        RpcServer(taken)
    with pytest.raises(InputError, match="DUBITO_GRPC_PORT"):  # as the command finds it
        bind("127.0.0.1", port, "DUBITO_GRPC_PORT")


def test_the_generated_messages_are_those_of_the_definition() -> None:
    """Fields by name and number; the definition says how they are made anew."""
    fields = re.findall(r"^ +(?:repeated )?(?:map<\w+, )?([\w>]+) (\w+) = (\d+);", PROTO, re.M)
    defined = sorted((name, int(number)) for kind, name, number in fields)
    messages = list(pb.DESCRIPTOR.message_types_by_name.values())
    nested = [one for message in messages for one in message.nested_types]
    kept = [*messages, *(one for one in nested if not one.GetOptions().map_entry)]
    assert defined == sorted((field.name, field.number) for m in kept for field in m.fields)
    assert len(messages) == len(re.findall(r"^message ", PROTO, re.M))
