"""Whether the clients of others are answered: tritonclient over HTTP and gRPC, and kserve's.

    CLIENTS/bin/python benchmarks/clients.py [--http HOST:PORT] [--grpc HOST:PORT] [--model digits]

It runs in an environment of the clients (`clients.txt`), against a server that runs already and has
a model of one float input; the key is read from DUBITO_API_KEY. Every client asks for health,
metadata, inference as JSON and as bytes, and for what is refused; tritonclient also for the
repository, and for what perf_analyzer asks for: configuration, statistics, and inferences by
several threads at once. It ends with 1 where a check fails.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any

import httpx
import numpy as np

NUM_ROWS, NUM_THREADS, NUM_EACH = 5, 4, 25
NOBODY = "nobody"
CLIENTS = ("tritonclient.http", "tritonclient.grpc", "kserve")


@dataclass(frozen=True)
class Target:
    """The server, and the model that is asked.

    Args:
        http: host and port of HTTP.
        rpc: host and port of gRPC.
        model: its name.
        headers: with the key, where there is one.
    """

    http: str
    rpc: str
    model: str
    headers: dict[str, str]

    def metadata(self) -> dict[str, Any]:
        """What the model takes and gives, asked without any client of the protocol."""
        reply = httpx.get(f"http://{self.http}/v2/models/{self.model}", headers=self.headers)
        page: dict[str, Any] = reply.raise_for_status().json()
        return page

    def rows(self) -> tuple[str, np.ndarray]:
        """Name and rows of the one input."""
        (one,) = self.metadata()["inputs"]
        assert one["datatype"] == "FP32", "expected a model of one FP32 input: choose another"
        shape = (NUM_ROWS, *one["shape"][1:])
        return one["name"], np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def mean(self) -> np.ndarray:
        """What the native API answers."""
        _, rows = self.rows()
        reply = httpx.post(
            f"http://{self.http}/v1/models/{self.model}/predict",
            json={"inputs": rows.tolist(), "outputs": ["mean"]},
            headers=self.headers,
        )
        return np.array(reply.raise_for_status().json()["outputs"]["mean"])


def main() -> int:
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--http", default="127.0.0.1:8000")
    reader.add_argument("--grpc", default="127.0.0.1:8001")
    reader.add_argument("--model", default="digits")
    reader.add_argument("--client", choices=CLIENTS, help="One of them. Default: all in turn.")
    said = reader.parse_args()
    if said.client is None:  # each in a process: they define the same messages twice
        runs = [[sys.executable, *sys.argv, "--client", client] for client in CLIENTS]
        return max(subprocess.call(run) for run in runs)
    logging.disable()  # kserve logs every refusal
    sys.argv[1:] = []  # which kserve reads as its own when it is imported
    key = os.environ.get("DUBITO_API_KEY")
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    target = Target(said.http, said.grpc, said.model, headers)
    package = said.client.partition(".")[0]
    print(f"{said.client} ({package} {version(package)})")
    failures = 0
    for check, run in checks(said.client, target):
        try:
            told = run() or ""
        except Exception:
            failures += 1
            told = "FAILED\n" + traceback.format_exc()
        print(f"  {check:12} {told}", flush=True)
    print(f"  {failures} failed" if failures else "  all passed")
    return 1 if failures else 0


Check = tuple[str, Callable[[], str | None]]


def checks(client: str, target: Target) -> Iterator[Check]:
    """All checks of a client: what is checked, and what runs it."""
    if client == "kserve":
        for run in (_kserve_http, _kserve_grpc):
            yield run.__name__[8:], lambda run=run: asyncio.run(run(target))
        return
    of = Triton.of(import_module(client), target)
    for check in (_health, _metadata, _infers, _parameters, _repository, _errors, _perf):
        yield check.__name__[1:], lambda check=check: check(of)


@dataclass(frozen=True)
class Triton:
    """One of tritonclient's two clients, which have the same methods."""

    module: Any
    client: Any
    target: Target

    @classmethod
    def of(cls, module: Any, target: Target) -> Triton:
        url = target.http if module.__name__.endswith("http") else target.rpc
        return cls(module, module.InferenceServerClient(url), target)

    @property
    def is_http(self) -> bool:
        return str(self.module.__name__).endswith("http")

    @property
    def known(self) -> dict[str, Any]:
        return {"headers": dict(self.target.headers)}  # into which it puts others

    def inputs(self, is_binary: bool = True) -> list[Any]:
        name, rows = self.target.rows()
        one = self.module.InferInput(name, list(rows.shape), "FP32")
        if self.is_http:
            one.set_data_from_numpy(rows, binary_data=is_binary)
        else:
            one.set_data_from_numpy(rows)
        return [one]

    def wanted(self, *names: str, is_binary: bool = True) -> list[Any]:
        form = {"binary_data": is_binary} if self.is_http else {}
        return [self.module.InferRequestedOutput(name, **form) for name in names]

    def infer(self, **options: Any) -> Any:
        asked = {"model_name": self.target.model, "inputs": self.inputs()} | self.known | options
        return self.client.infer(**asked)

    def plain(self, answer: Any) -> Any:
        """JSON of an answer, which over gRPC is a message."""
        from google.protobuf.json_format import MessageToDict

        if self.is_http:
            return answer
        return MessageToDict(answer, preserving_proto_field_name=True)


def _health(of: Triton) -> None:
    assert of.client.is_server_live(**of.known)
    assert of.client.is_server_ready(**of.known)
    assert of.client.is_model_ready(of.target.model, **of.known)
    assert of.client.is_model_ready(of.target.model, "1", **of.known)


def _metadata(of: Triton) -> str:
    server = of.plain(of.client.get_server_metadata(**of.known))
    assert server["name"] == "dubito"
    assert "statistics" in server["extensions"]
    page = of.plain(of.client.get_model_metadata(of.target.model, **of.known))
    known = of.target.metadata()
    assert [(one["name"], one["datatype"]) for one in page["outputs"]] == (
        [(one["name"], one["datatype"]) for one in known["outputs"]]
    )
    return f"{len(page['outputs'])} outputs"


def _infers(of: Triton) -> str:
    mean, names = of.target.mean(), [one["name"] for one in of.target.metadata()["outputs"]]
    ways = (
        ((True, True), (True, False), (False, True), (False, False))
        if of.is_http
        else ((True, True),)
    )
    for sent, wanted in ways:
        outputs = of.wanted(*names, is_binary=wanted)
        answer = of.infer(inputs=of.inputs(sent), outputs=outputs, request_id="mine")
        assert np.allclose(answer.as_numpy("mean"), mean, atol=1e-6)
        for name in names:
            assert len(answer.as_numpy(name)) == NUM_ROWS, name
    answer = of.infer()  # all outputs, in the form that the client asks for by itself
    assert np.allclose(answer.as_numpy("mean"), mean, atol=1e-6)
    assert of.infer(outputs=of.wanted("samples")).as_numpy("samples").shape[0] == NUM_ROWS
    asked = of.client.async_infer
    if of.is_http:
        pending = asked(of.target.model, of.inputs(), **of.known)
        assert np.allclose(pending.get_result().as_numpy("mean"), mean, atol=1e-6)
    return f"{len(names)} outputs, {len(ways)} form{'s' if len(ways) > 1 else ''}"


def _parameters(of: Triton) -> None:
    given = {"num_samples": 8, "seed": 3, "masks": "independent", "tolerance": 0.5}
    answer = of.plain(of.infer(parameters=given, timeout=30_000_000).get_response())
    said = answer["parameters"]
    found = said["num_samples"] if of.is_http else int(said["num_samples"]["int64_param"])
    assert found == 8


def _repository(of: Triton) -> str:
    model = of.target.model
    of.client.unload_model(model, **of.known)
    assert not _is_ready(of)
    of.client.load_model(model, **of.known)
    assert _is_ready(of)
    index = of.plain(of.client.get_model_repository_index(**of.known))
    entries = index if of.is_http else index["models"]
    (state,) = {one["state"] for one in entries if one["name"] == model and one["version"] == "1"}
    assert state == "READY"
    return f"{len(entries)} versions"


def _is_ready(of: Triton) -> bool:
    return bool(of.client.is_model_ready(of.target.model, **of.known))


def _errors(of: Triton) -> str:
    """Refusals are exceptions of the client with the server's words."""
    name, rows = of.target.rows()
    wrong = of.module.InferInput(name, [1, 1, 1], "FP32")
    wrong.set_data_from_numpy(rows.reshape(-1)[:1].reshape(1, 1, 1))
    told = []
    asked: tuple[tuple[dict[str, Any], str], ...] = (
        ({"model_name": NOBODY}, NOBODY),
        ({"inputs": [wrong]}, "expects rows of shape"),
        ({"parameters": {"num_sample": 3}}, "num_sample"),
        ({"outputs": of.wanted("bald")}, "bald"),
        ({"priority": 3}, "priority"),
    )
    for options, words in asked:
        error = _refusal(of, options)
        assert words in error.message(), error.message()
        told.append(str(error.status()))
    return ", ".join(told)


def _refusal(of: Triton, options: dict[str, Any]) -> Any:
    from tritonclient.utils import InferenceServerException

    try:
        of.infer(**options)
    except InferenceServerException as error:
        return error
    raise AssertionError(f"expected a refusal of {options}")


def _perf(of: Triton) -> str:
    """What perf_analyzer asks for: configuration, statistics before and after, and load between."""
    model = of.target.model
    config = of.plain(of.client.get_model_config(model, **of.known))
    config = config if of.is_http else config["config"]
    assert config["max_batch_size"] > 1
    names = [one["name"] for one in config["output"]]
    before = _count(of)
    clients = ThreadPoolExecutor(NUM_THREADS)

    def many(_: int) -> None:
        mine = Triton.of(of.module, of.target)
        inputs, outputs = mine.inputs(), mine.wanted(*names)
        for _ in range(NUM_EACH):
            answer = mine.infer(inputs=inputs, outputs=outputs, model_version="1")
            assert answer.as_numpy(names[0]) is not None
        mine.client.close()

    list(clients.map(many, range(NUM_THREADS)))
    done = _count(of) - before
    assert done == NUM_THREADS * NUM_EACH
    return f"{done} inferences counted"


def _count(of: Triton) -> int:
    stats = of.plain(of.client.get_inference_statistics(of.target.model, "1", **of.known))
    (entry,) = stats["model_stats"]
    return int(entry.get("execution_count", 0))


async def _kserve_http(target: Target) -> str:
    import kserve
    from kserve.inference_client import InferenceRESTClient, RESTConfig

    name, rows = target.rows()
    base, mean = f"http://{target.http}", target.mean()
    known = {"headers": dict(target.headers)}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        assert await client.is_server_live(base, **known)
        assert await client.is_server_ready(base, **known)
        assert await client.is_model_ready(base, target.model, **known)
        for is_binary in (False, True):
            one = kserve.InferInput(name, list(rows.shape), "FP32")
            one.set_data_from_numpy(rows, binary_data=is_binary)
            form = {"binary_data_output": True} if is_binary else {}
            asked = kserve.InferRequest(target.model, [one], request_id="mine", parameters=form)
            answer = await client.infer(
                base, asked, model_name=target.model, headers=dict(target.headers)
            )
            assert (answer.model_name, answer.id) == (target.model, "mine")
            found = {output.name: output for output in answer.outputs}
            assert np.allclose(found["mean"].as_numpy(), mean, atol=1e-6)
        told = []
        for model in (NOBODY, target.model):
            broken = {"inputs": [{"name": name, "shape": [1], "datatype": "FP32", "data": []}]}
            try:
                await client.infer(base, broken, model_name=model, **known)
            except httpx.HTTPStatusError as error:
                told.append(str(error))
    assert len(told) == 2
    assert NOBODY in told[0]
    assert f"`{name}`" in told[1]
    return "health, JSON, bytes, 2 errors"


async def _kserve_grpc(target: Target) -> str:
    import grpc
    import kserve
    from kserve.inference_client import InferenceGRPCClient

    name, rows = target.rows()
    known = {"headers": tuple(target.headers.items())}
    client = InferenceGRPCClient(target.rpc)
    assert await client.is_server_live(**known)
    assert await client.is_server_ready(**known)
    assert await client.is_model_ready(target.model, **known)
    for is_binary in (False, True):
        one = kserve.InferInput(name, list(rows.shape), "FP32")
        one.set_data_from_numpy(rows, binary_data=is_binary)
        asked = kserve.InferRequest(target.model, [one], request_id="mine")
        answer = await client.infer(asked, **known)
        found = {output.name: output for output in answer.outputs}
        assert np.allclose(found["mean"].as_numpy(), target.mean(), atol=1e-6)
    told = ""
    try:
        await client.infer(kserve.InferRequest(NOBODY, [one]), **known)
    except grpc.RpcError as error:
        told = error.details()
    await client.close()
    assert NOBODY in told
    return "health, contents, bytes, 1 error"


if __name__ == "__main__":
    sys.exit(main())
