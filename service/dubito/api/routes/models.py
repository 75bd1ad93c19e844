"""`/v1/models`: what there is, uploads, the life of a version, deletion."""

from __future__ import annotations

import hashlib
import re
from functools import partial
from pathlib import Path
from typing import Annotated

from anyio import open_file, to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from dubito.api.border.access import Access, access
from dubito.api.border.auth import GuardedRoute, actor, caller_of, needs
from dubito.api.border.bodies import chunks_within, media_type
from dubito.api.border.errors import FieldProblem, FieldsError
from dubito.api.border.fields import read_small
from dubito.api.border.replies import json_response
from dubito.api.openapi import DELETED, ModelName, VersionName, gives, takes
from dubito.api.pages.models import (
    ChangesPage,
    ModelPage,
    ModelsPage,
    UploadedPage,
    VersionDetailsPage,
    version_page,
)
from dubito.api.schemas import RetireBody
from dubito.errors import InputError
from dubito.keys import KeyScope
from dubito.media import OCTETS
from dubito.names import check_name

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=GuardedRoute)

_SHA256 = re.compile("[0-9a-fA-F]{64}")
_Digest = Annotated[
    str | None, Query(description="SHA-256 of the body in hexadecimal. Another body is refused.")
]


@router.get("", summary="All models", response_model=ModelsPage)
@needs(KeyScope.PREDICT)
def list_models(request: Request) -> Response:
    """List the models with their versions, aliases and states."""
    application = access(request).application
    facts, caller = application.registry.models(), caller_of(request)
    seen = [fact for fact in facts if caller.sees_model(fact.name)]
    pages = [ModelPage.of_model(fact, application.library) for fact in seen]
    return json_response(ModelsPage(models=pages))


@router.get("/{model}", summary="One model", response_model=ModelPage)
@needs(KeyScope.PREDICT)
def get_model(request: Request, model: ModelName) -> Response:
    """Show a model with its versions and aliases."""
    application = access(request).application
    fact = application.registry.model(model)
    return json_response(ModelPage.of_model(fact, application.library))


@router.get("/{model}/versions/{version}", summary="One version", response_model=VersionDetailsPage)
@needs(KeyScope.PREDICT)
def get_version(request: Request, model: ModelName, version: VersionName) -> Response:
    """Show manifest, sites, warnings, notes, defaults and active calibration of a version."""
    return json_response(version_page(access(request).application.library.page(model, version)))


@router.post(
    "/{model}/versions",
    status_code=201,
    summary="Upload a bundle",
    response_model=UploadedPage,
    responses={201: gives(headers={"Location": "Path of the version."})},
    openapi_extra=takes(None, OCTETS),
)
@needs(KeyScope.ADMIN)
async def upload(request: Request, model: ModelName, sha256: _Digest = None) -> Response:
    """Store a bundle as the model's next version. The first creates the model and `default`."""
    held = access(request)
    check_name("model", model)
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise FieldsError([FieldProblem("query.sha256", "expected 64 hexadecimal digits")])
    media_type(request, (OCTETS,))
    with held.application.library.incoming() as path:
        digest = await _receive(request, path, held)
        if sha256 is not None and digest != sha256.lower():
            raise InputError(
                f"sha256: expected {sha256.lower()}, got a body of {digest}: send the file again"
            )
        store = partial(held.application.library.register, model, path, actor=actor(request))
        fact = await to_thread.run_sync(store)
    location = f"/v1/models/{fact.model}/versions/{fact.number}"
    page = UploadedPage(model=fact.model, version=fact.number)
    return json_response(page, 201, {"Location": location})


@router.delete("/{model}/versions/{version}", summary="Delete a version", **DELETED)
@needs(KeyScope.ADMIN)
def delete_version(request: Request, model: ModelName, version: VersionName) -> Response:
    """Delete a version that no alias names."""
    registry = access(request).application.registry
    registry.delete_version(model, version, actor=actor(request))
    return Response(status_code=204)


@router.post(
    "/{model}/versions/{version}/load",
    summary="Load a version onto the device",
    response_model=VersionDetailsPage,
)
@needs(KeyScope.ADMIN)
def load(request: Request, model: ModelName, version: VersionName) -> Response:
    """Load a version and warm it up. The reply comes once it is ready."""
    library = access(request).application.library
    return json_response(version_page(library.load(model, version, actor=actor(request))))


@router.post(
    "/{model}/versions/{version}/unload",
    summary="Unload a version from the device",
    response_model=VersionDetailsPage,
)
@needs(KeyScope.ADMIN)
def unload(request: Request, model: ModelName, version: VersionName) -> Response:
    """Free the memory that a version takes. The next request loads it again."""
    library = access(request).application.library
    return json_response(version_page(library.unload(model, version, actor=actor(request))))


@router.post(
    "/{model}/versions/{version}/retire",
    summary="Retire a version",
    response_model=VersionDetailsPage,
    openapi_extra=takes(RetireBody),
)
@needs(KeyScope.ADMIN)
async def retire(request: Request, model: ModelName, version: VersionName) -> Response:
    """Retire a version that no alias names: it is kept, but no longer answers requests."""
    body = await read_small(request, RetireBody)
    application = access(request).application
    change = partial(application.registry.retire, actor=actor(request))
    retired = await to_thread.run_sync(change, model, version, body.reason)
    page = partial(application.library.page, model, str(retired.number))
    return json_response(version_page(await to_thread.run_sync(page)))


@router.post(
    "/{model}/versions/{version}/restore",
    summary="Un-retire a version",
    response_model=VersionDetailsPage,
)
@needs(KeyScope.ADMIN)
def restore(request: Request, model: ModelName, version: VersionName) -> Response:
    """Let a retired version answer requests again."""
    application = access(request).application
    restored = application.registry.restore(model, version, actor=actor(request))
    return json_response(version_page(application.library.page(model, str(restored.number))))


@router.get("/{model}/audit", summary="Audit of a model", response_model=ChangesPage)
@needs(KeyScope.PREDICT)
def audit(request: Request, model: ModelName) -> Response:
    """List the last 1000 changes of a model, newest first: who changed what and when."""
    return json_response(ChangesPage.of_changes(access(request).application.registry.audit(model)))


async def _receive(request: Request, path: Path, held: Access) -> str:
    digest = hashlib.sha256()
    async with await open_file(path, "wb") as file:
        async for chunk in chunks_within(
            request, held.settings.max_bundle_bytes, "DUBITO_MAX_BUNDLE_BYTES"
        ):
            digest.update(chunk)
            await file.write(chunk)
    return digest.hexdigest()
