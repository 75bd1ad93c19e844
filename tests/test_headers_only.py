"""HEAD: the headers of GET, without its body, on every path that answers GET."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator

import httpx
import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from dubito.api import create_app
from dubito.api.border.headers_only import HeadersOnlyMiddleware
from dubito.settings import Settings

from .conftest import NUM_FEATURES

CHANGES = {"date"}


def _paths(job: str) -> list[str]:
    """Every path that answers GET, those without a schema as well, with names filled in."""
    app = create_app(Settings())
    documented = {path for path, methods in app.openapi()["paths"].items() if "get" in methods}
    hidden = {
        str(getattr(route, "path", "/"))
        for route in app.routes
        if "GET" in (getattr(route, "methods", None) or ())
    }
    filled = {
        **{"{model}": "animals", "{version}": "1", "{alias}": "default"},
        **{"{pool}": "wild", "{job}": job},
    }
    found = set()
    for path in documented | hidden | {"/docs", "/openapi.json", "/health/live", "/metrics", "/v2"}:
        for name, value in filled.items():
            path = path.replace(name, value)
        assert "{" not in path
        found.add(path)
    return sorted(found)


def test_every_path_answers_head_with_the_headers_of_get(ready: httpx.Client) -> None:
    file = io.BytesIO()
    np.save(file, np.zeros((20, NUM_FEATURES), np.float32))
    kind = {"Content-Type": "application/x-npy"}
    ready.post("/v1/pools?name=wild", content=file.getvalue(), headers=kind).raise_for_status()
    job = ready.post("/v1/models/animals/predict", json={"pool": "wild"}).json()["job"]
    ready.get(f"/v1/jobs/{job}/events").raise_for_status()  # ends with the job
    num_found = 0
    for path in _paths(job):
        got, head = ready.get(path), ready.head(path)
        num_found += got.status_code == 200
        assert head.status_code == got.status_code, path
        assert head.content == b"", path
        headers = [
            {k: v for k, v in one.headers.items() if k not in CHANGES} for one in (got, head)
        ]
        if path.endswith("/events"):  # whose length nobody knows, and a HEAD has no chunks
            assert headers[0].pop("transfer-encoding") == "chunked"
        if path == "/metrics":  # which counts these requests too
            assert all(int(one.pop("content-length")) > 0 for one in headers)
        assert headers[0] == headers[1], path
    assert num_found >= 18
    refused = ready.head("/v1/models/animals/predict")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")
    assert ready.delete("/v1/models").headers["Allow"] == "GET, HEAD"
    paths = ready.get("/openapi.json").json()["paths"]
    assert not [path for path, methods in paths.items() if "head" in methods]


def test_a_stream_without_an_end_is_not_begun() -> None:
    began = []

    async def endless() -> AsyncIterator[bytes]:
        began.append(True)
        while True:
            yield b"event"
            await asyncio.sleep(3600)

    async def stream(request: Request) -> Response:
        return StreamingResponse(endless(), media_type="text/event-stream")

    app = HeadersOnlyMiddleware(Starlette(routes=[Route("/", stream, methods=["GET"])]))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            return await client.head("http://test/")

    reply = asyncio.run(ask())
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert (reply.content, began) == (b"", [])
