"""`/v2`: what the server is, its health, and the model repository extension."""

from __future__ import annotations

from functools import partial
from typing import TypeVar

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from dubito import __version__
from dubito.api.border.access import access
from dubito.api.border.auth import caller_of, needs
from dubito.api.border.bodies import media_type, parse_json, read_body
from dubito.api.border.fields import read_fields
from dubito.api.border.replies import json_response
from dubito.api.open_inference.pages import (
    IndexEntry,
    IndexPage,
    ServerLivePage,
    ServerPage,
    ServerReadyPage,
)
from dubito.api.open_inference.refusals import ProtocolRoute
from dubito.api.open_inference.repository import EXTENSIONS, NAME, index, load, unload
from dubito.api.open_inference.schemas import IndexBody, LoadBody, UnloadBody
from dubito.api.openapi import Described, ModelName, takes
from dubito.columns import to_json
from dubito.keys import KeyScope
from dubito.media import JSON, OCTETS

router = APIRouter(prefix="/v2", tags=["open inference protocol"], route_class=ProtocolRoute)

Body = TypeVar("Body", bound=BaseModel)
_KINDS = (JSON, OCTETS, "")  # clients of the protocol name none
_MAX_BYTES = 4096
_RETRY = {"Retry-After": "5"}


def _may_take(body: type[BaseModel]) -> Described:
    """Describe a body that may be left out."""
    reads = takes(body)
    reads["requestBody"]["required"] = False
    return reads


@router.get("", summary="Metadata of the server", response_model=ServerPage)
@needs(KeyScope.PREDICT)
def server(request: Request) -> Response:
    """Name the server and the extensions of the protocol that it has."""
    page = ServerPage(name=NAME, version=__version__, extensions=list(EXTENSIONS))
    return json_response(page)


@router.get(
    "/health/live",
    summary="Is the server alive, by the protocol?",
    response_model=ServerLivePage,
    responses={503: {"model": ServerLivePage, "description": "One of them does not respond."}},
)
async def live(request: Request) -> Response:
    """Answer 200 while the event loop and the device worker respond, else 503."""
    is_live = access(request).application.vitals.is_live()
    return _health(ServerLivePage(live=is_live), is_live)


@router.get(
    "/health/ready",
    summary="Is the server ready, by the protocol?",
    response_model=ServerReadyPage,
    responses={503: {"model": ServerReadyPage, "description": "Not ready, or draining."}},
)
async def ready(request: Request) -> Response:
    """Answer 200 while requests are taken and all pinned models are loaded, else 503."""
    health = access(request).application.vitals.health()
    page = ServerReadyPage(live=health.is_live, ready=health.is_ready)
    return _health(page, health.is_ready)


@router.post(
    "/repository/index",
    summary="Index of all versions",
    response_model=IndexPage,
    openapi_extra=_may_take(IndexBody),
)
@needs(KeyScope.PREDICT)
async def list_versions(request: Request) -> Response:
    """List all versions of all models with their states on this server."""
    body = await _read(request, IndexBody)
    listing = partial(index, access(request).application, caller_of(request), only_ready=body.ready)
    entries = [entry.model_dump() for entry in await to_thread.run_sync(listing)]
    return Response(to_json(entries), media_type=JSON)


@router.post(
    "/repository/models/{model}/load",
    summary="Load a model onto the device",
    response_model=IndexEntry,
    openapi_extra=_may_take(LoadBody),
)
@needs(KeyScope.ADMIN)
async def load_model(request: Request, model: ModelName) -> Response:
    """Load the version that the alias `default` points to. The reply comes once it is ready."""
    await _read(request, LoadBody)
    call = partial(load, access(request).application, model, caller_of(request))
    return json_response(await to_thread.run_sync(call))


@router.post(
    "/repository/models/{model}/unload",
    summary="Unload a model from the device",
    response_model=IndexEntry,
    openapi_extra=_may_take(UnloadBody),
)
@needs(KeyScope.ADMIN)
async def unload_model(request: Request, model: ModelName) -> Response:
    """Free what all versions of a model take. The next request loads the one that it names."""
    await _read(request, UnloadBody)
    call = partial(unload, access(request).application, model, caller_of(request))
    return json_response(await to_thread.run_sync(call))


def _health(page: BaseModel, is_well: bool) -> Response:
    return json_response(page, 200 if is_well else 503, None if is_well else _RETRY)


async def _read(request: Request, schema: type[Body]) -> Body:
    """The fields of a body, all of which may be left out, and the body as well."""
    media_type(request, _KINDS)
    body = await read_body(request, _MAX_BYTES, "")
    return read_fields(schema, parse_json(body or b"{}"))
