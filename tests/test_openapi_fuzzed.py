"""What `/openapi.json` says is held against a real server by schemathesis, with a fixed seed.

Requests are generated from the schemas, valid ones and broken ones. So that they reach behind the
border, names in paths and some fields of bodies are often put in that the server knows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core import NotSet
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from dubito.settings import Settings

from .conftest import Bundles, Server
from .declared import JSON, as_declared, described
from .http import ANIMALS, normals, npy, npz, upload

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
NUM_EXAMPLES = int(os.environ.get("DUBITO_TEST_EXAMPLES", "12"))
"""Cases of each route; some hundreds make it an examination of an hour."""

LAST = ("DELETE", "retire", "unload", "PUT")  # what takes something away from the others

ROWS, LABELS = normals(120), ["ant", "bee", "cat"] * 40
TARGETS = (10 + 2 * normals(120, seed=1, width=1)).tolist()
JOBS: list[str] = []
NAMES: dict[str, st.SearchStrategy[str]] = {
    "model": st.sampled_from(("animals", "animals", "numbers")),
    "version": st.sampled_from(("1", "2", "default", "spare")),
    "alias": st.sampled_from(("default", "spare", "new")),
    "pool": st.sampled_from(("field", "forest")),
    "job": st.deferred(lambda: st.sampled_from(JOBS)),
}
WANTED = {
    "predict": ("inputs",),
    "calibrate": ("inputs", "labels"),
    "evaluate": ("inputs", "labels"),
    "select": ("inputs", "strategy", "k"),
    "feedback": ("request_id", "rows"),
    "calibration": ("active",),
    "infer": ("inputs",),
}
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "inputs": st.sampled_from((ROWS.tolist(), ROWS[:100].tolist())),
    "labels": st.just(LABELS),
    "targets": st.just(TARGETS),
    "ood_inputs": st.just((9 + ROWS).tolist()),
    "outputs": st.lists(st.sampled_from(("mean", "ood", "interval", "prediction_set", "samples"))),
    "num_samples": st.integers(1, 20),
    "strategy": st.sampled_from(("bald", "entropy", "epig", "coreset", "thompson", "variance")),
    "ood_score": st.sampled_from(("auto", "combined", "energy")),
    "k": st.integers(1, 4),
    "alpha": st.floats(0.05, 0.3),
    "coverage": st.floats(0.5, 0.95),
    "members": st.just([1, 2]),
    "version": st.integers(1, 2),
    "active": st.sampled_from((None, 1)),
    "exclude": st.lists(st.integers(0, 70), max_size=3),
    "request_id": st.just("known"),
    "rows": st.just([{"row": 0, "label": "ant"}]),
}
TENSORS = [
    {"name": name, "shape": [3, 4], "datatype": "FP32", "data": ROWS[:3].reshape(-1).tolist()}
    for name in ("input", "x")  # of the one model, and of the other
]
OF_PROTOCOL: dict[str, st.SearchStrategy[Any]] = {
    "inputs": st.sampled_from([[tensor] for tensor in TENSORS]),
    "outputs": st.lists(st.sampled_from([{"name": "mean"}, {"name": "ood"}])),
    "parameters": st.fixed_dictionaries({"num_samples": st.integers(1, 20)}),
}
FILES: dict[str, tuple[bytes, ...]] = {
    "application/x-npy": (npy(ROWS),),
    "application/x-npz": (
        npz(inputs=ROWS),
        npz(inputs=ROWS, labels=np.array(LABELS)),
        npz(inputs=ROWS, targets=np.array(TARGETS)),
    ),
}
MOSTLY, SELDOM = st.sampled_from((True, True, False)), st.sampled_from((True, False, False, False))


def operations() -> list[Any]:
    """All operations; those that take something away from others come last."""
    schema = schemathesis.openapi.from_dict(described())
    known = [result.ok() for result in schema.get_all_operations()]
    return sorted(known, key=lambda operation: any(word in operation.label for word in LAST))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, bundles: Bundles) -> Iterator[httpx.Client]:
    """A client of a server that knows what `NAMES` names."""
    folder = tmp_path_factory.mktemp("data")
    server = Server(Settings(data_dir=folder, num_samples=16, max_num_samples=50))
    server.start()
    hooks = {"response": [as_declared]}
    try:
        with httpx.Client(base_url=server.url, timeout=60, event_hooks=hooks) as client:
            _load(client, bundles)
            yield client
    finally:
        server.stop()


def _load(client: httpx.Client, bundles: Bundles) -> None:
    """Two calibrated models, pools, jobs that are done, a prediction that waits for its truth."""

    def post(path: str, **options: Any) -> Any:
        return client.post(path, **options).raise_for_status().json()

    for model, name in (("animals", "first"), ("animals", "second"), ("numbers", "regression")):
        upload(client, model, bundles(name)).raise_for_status()
    post(f"{ANIMALS}/calibrate", json={"inputs": ROWS.tolist(), "labels": LABELS})
    post("/v1/models/numbers/calibrate", json={"inputs": ROWS.tolist(), "targets": TARGETS})
    known = {"X-Request-Id": "known"}
    post(f"{ANIMALS}/predict", json={"inputs": ROWS[:3].tolist()}, headers=known)
    client.put(f"{ANIMALS}/aliases/spare", json={"version": 2}).raise_for_status()
    form = {"Content-Type": "application/x-npy"}
    for pool in ("field", "forest"):
        post("/v1/pools", params={"name": pool}, content=npy(ROWS), headers=form)
    for action, fields in (("predict", {}), ("select", {"strategy": "bald", "k": 3})):
        JOBS.append(post(f"{ANIMALS}/{action}", json={"pool": "field", **fields})["job"])
        client.get(f"/v1/jobs/{JOBS[-1]}/events")  # which end with the job


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.label)
def test_a_route_answers_as_the_description_says(operation: Any, loaded: httpx.Client) -> None:
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    cases = st.one_of(*(operation.as_strategy(mode) for mode in modes))

    @settings(
        max_examples=NUM_EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases, st.data())
    def answer(case: Case, data: st.DataObject) -> None:
        case.validate_response(loaded.send(_request(loaded, case, data)), checks=CHECKS)

    answer()


def _request(client: httpx.Client, case: Case, data: st.DataObject) -> httpx.Request:
    """The request of a case, in which some parts are replaced by what the server knows."""
    for name in case.path_parameters or {}:
        if data.draw(MOSTLY):
            case.path_parameters[name] = data.draw(NAMES[name])
    headers = {
        name: str(value).strip().encode("latin-1", "replace")
        for name, value in (case.headers or {}).items()
        if name not in ("Authorization", "X-Request-Timeout-Ms")  # which may end in 504, rightly
    }
    query, content = dict(case.query or {}), None
    if case.media_type is not None and not isinstance(case.body, NotSet):
        headers["Content-Type"] = case.media_type.encode()
        if case.media_type == JSON:
            body = _body(case, data)
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            query = query if data.draw(SELDOM) else {}
        else:
            content = data.draw(st.sampled_from((b"no file", *FILES.get(case.media_type, ()))))
    return client.build_request(
        case.method, case.formatted_path, params=query, headers=headers, content=content
    )


def _body(case: Case, data: st.DataObject) -> Any:
    """As it was generated, or a valid one with few of its fields."""
    if not isinstance(case.body, dict) or not data.draw(MOSTLY):
        return case.body
    fields = FIELDS | (OF_PROTOCOL if case.path.startswith("/v2") else {})
    wanted = WANTED.get(case.path.rpartition("/")[2], ())
    if (case.path_parameters or {}).get("model") == "numbers":
        wanted = tuple("targets" if name == "labels" else name for name in wanted)
    broken = data.draw(st.sets(st.sampled_from(sorted(case.body)), max_size=1)) if case.body else ()
    more = data.draw(st.sets(st.sampled_from(sorted(case.body.keys() & fields.keys()) or ["k"])))
    return {name: case.body[name] for name in broken} | {
        name: data.draw(fields[name]) for name in (*wanted, *sorted(more & case.body.keys()))
    }
