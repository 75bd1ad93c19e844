"""Replies of a server are held against `/openapi.json`: the fields it declares, and no others."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs

from dubito.api import create_app
from dubito.settings import Settings

JSON = "application/json"
MAX_BYTES = 2**18  # what is longer has more rows, not more fields


@cache
def described() -> dict[str, Any]:
    """What `/openapi.json` says."""
    return create_app(Settings(data_dir=Path("never-made"))).openapi()


def as_declared(response: httpx.Response) -> None:
    """Refuse a JSON reply that is not what its route declares; a hook for httpx."""
    request = response.request
    if response.headers.get("content-type") != JSON or request.method == "HEAD":
        return
    known = described()["paths"]
    for path in [request.url.path] if request.url.path in known else known:
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), request.url.path):
            body = response.read()
            if len(body) < MAX_BYTES and request.method.lower() in described()["paths"][path]:
                _validator(path, request.method.lower(), response.status_code).validate(
                    response.json()
                )


@cache
def _validator(path: str, method: str, status: int) -> Any:
    replies = described()["paths"][path][method]["responses"]
    reply = replies.get(str(status)) or replies[f"{status // 100}XX"]
    schema = reply["content"][JSON]["schema"]
    return jsonschema_rs.validator_for({**schema, "components": {"schemas": _strict()}})


@cache
def _strict() -> dict[str, Any]:
    """The declared schemas, where other fields are refused."""
    schemas = described()["components"]["schemas"]
    return {
        name: {"additionalProperties": False} | schema if "properties" in schema else schema
        for name, schema in schemas.items()
    }
