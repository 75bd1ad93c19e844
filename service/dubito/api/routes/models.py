"""`/v1/models`: what there is, uploads, aliases, deletion."""

from __future__ import annotations

import hashlib
import re
from functools import partial
from pathlib import Path

from anyio import open_file, to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response

from dubito.api.access import Access, access
from dubito.api.bodies import JSON, OCTETS, chunks_within, media_type, parse_json, read_body
from dubito.api.errors import FieldProblem, FieldsError
from dubito.api.pages import model_page, version_page
from dubito.api.replies import json_response
from dubito.api.schemas import AliasBody, read_fields
from dubito.errors import InputError, PreconditionFailedError
from dubito.registry.names import check_name

router = APIRouter(prefix="/v1/models", tags=["models"])

_UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}},
    }
}
_ALIAS_BODY = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": AliasBody.model_json_schema()}},
    }
}
_SHA256 = re.compile("[0-9a-fA-F]{64}")
_SMALL_BODY_BYTES = 4096


@router.get("", summary="All models")
def list_models(request: Request) -> Response:
    """Models with their versions, aliases and state."""
    application = access(request).application
    pages = [model_page(fact, application) for fact in application.models()]
    return json_response({"models": pages})


@router.get("/{model}", summary="One model")
def get_model(request: Request, model: str) -> Response:
    """A model with its versions and aliases."""
    application = access(request).application
    return json_response(model_page(application.model(model), application))


@router.get("/{model}/versions/{version}", summary="One version")
def get_version(request: Request, model: str, version: str) -> Response:
    """Manifest, site table, warnings, notes, defaults and active calibration of a version."""
    return json_response(version_page(access(request).application.version(model, version)))


@router.post(
    "/{model}/versions", status_code=201, summary="Upload a bundle", openapi_extra=_UPLOAD_BODY
)
async def upload(request: Request, model: str, sha256: str | None = None) -> Response:
    """Store a bundle as the model's next version; the first makes the model and `default`."""
    held = access(request)
    check_name("model", model)
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise FieldsError([FieldProblem("query.sha256", "expected 64 hexadecimal digits")])
    media_type(request, (OCTETS,))
    with held.application.incoming() as path:
        digest = await _receive(request, path, held)
        if sha256 is not None and digest != sha256.lower():
            raise InputError(
                f"sha256: expected {sha256.lower()}, got a body of {digest}: send the file again"
            )
        fact = await to_thread.run_sync(held.application.register, model, path)
    location = f"/v1/models/{fact.model}/versions/{fact.number}"
    content = {"model": fact.model, "version": fact.number}
    return json_response(content, 201, {"Location": location})


@router.put(
    "/{model}/aliases/{alias}", summary="Point an alias to a version", openapi_extra=_ALIAS_BODY
)
async def put_alias(request: Request, model: str, alias: str) -> Response:
    """Move an alias, or make it; `If-Match` names the revision that it must have."""
    media_type(request, (JSON,))
    body = read_fields(AliasBody, parse_json(await read_body(request, _SMALL_BODY_BYTES)))
    call = partial(
        access(request).application.set_alias,
        model,
        alias,
        body.version,
        if_match=_if_match(request),
    )
    fact = await to_thread.run_sync(call)
    content = {
        "model": fact.model,
        "alias": fact.name,
        "version": fact.version,
        "revision": fact.revision,
    }
    return json_response(content, headers={"ETag": f'"{fact.revision}"'})


@router.delete("/{model}/versions/{version}", status_code=204, summary="Delete a version")
def delete_version(request: Request, model: str, version: str) -> Response:
    """Delete a version that no alias names."""
    access(request).application.delete_version(model, version)
    return Response(status_code=204)


async def _receive(request: Request, path: Path, held: Access) -> str:
    digest = hashlib.sha256()
    async with await open_file(path, "wb") as file:
        async for chunk in chunks_within(request, held.settings.max_bundle_bytes):
            digest.update(chunk)
            await file.write(chunk)
    return digest.hexdigest()


def _if_match(request: Request) -> frozenset[int] | None:
    """The revisions that `If-Match` names; None without the header, or for `*`."""
    header = request.headers.get("if-match")
    if header is None or header.strip() == "*":
        return None
    revisions = frozenset(int(tag) for tag in re.findall(r'"(\d{1,9})"', header))
    if not revisions:
        raise PreconditionFailedError(
            f'If-Match: expected a revision such as "3", got {header[:40]!r}: '
            "take it from the ETag of the last change, or from the model's page"
        )
    return revisions
