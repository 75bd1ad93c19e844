"""`create_app`: the routes, the frame around them, and the application's life.

From the outside in: HEAD as GET → context (id, unforeseen errors) → key → is there time for it? →
router → scope → routes; from there and the scope straight to the routes that are asked most.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial

import orjson
import structlog
from anyio import to_thread
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from dubito import __version__
from dubito.api.border.access import Access
from dubito.api.border.admitting import AdmissionMiddleware
from dubito.api.border.auth import (
    AuthMiddleware,
    GuardedRoute,
    check_bind,
    shut_undeclared,
    wants_key,
)
from dubito.api.border.browsers import let_pages_ask
from dubito.api.border.context import ContextMiddleware, refusal, request_id
from dubito.api.border.draining import DrainingMiddleware
from dubito.api.border.errors import fields_error, status_response
from dubito.api.border.headers_only import HeadersOnlyMiddleware
from dubito.api.open_inference.statistics import count_refusal
from dubito.api.openapi import PROBLEMS, described
from dubito.api.routes import (
    aliases,
    calibration,
    evaluation,
    fits,
    health,
    inference,
    jobs,
    metrics,
    models,
    monitoring,
    pools,
    predict,
    repository,
    select,
)
from dubito.api.rpc.starting import check_rpc, start_rpc
from dubito.api.shortcut import ShortcutMiddleware
from dubito.application import Application
from dubito.errors import DubitoError
from dubito.media import JSON
from dubito.settings import Settings
from dubito.telemetry.starting import check_tracing
from dubito.web import add_page

_GIVE_BACK_S = 5.0  # between two looks
_log = structlog.get_logger(__name__)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Make the ASGI application.

    Args:
        settings: None reads them from the environment.

    Raises:
        InputError: an open address without a key, or a port for gRPC without grpcio, or traces
            without OpenTelemetry.
    """
    chosen = Settings() if settings is None else settings
    check_bind(chosen)
    check_rpc(chosen)
    check_tracing(chosen.tracing)

    app = FastAPIOffline(  # whose pages bring their scripts with them, for closed networks
        redoc_url=None,
        title="Dubito",
        version=__version__,
        summary="PyTorch networks trained with dropout, with the uncertainty of every prediction.",
        lifespan=partial(_lifespan, chosen),
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # `dubito.telemetry` counts
    )
    app.state.settings = chosen
    app.router.route_class = GuardedRoute  # of routes that are added to the application itself
    app.router.routes.extend(_routes())
    add_page(app, wants_key)
    app.openapi = partial(described, app.openapi)  # type: ignore[method-assign]
    _write_document_once(app)
    _guard(app)
    let_pages_ask(app, chosen)
    return app


@asynccontextmanager
async def _lifespan(chosen: Settings, app: FastAPI) -> AsyncIterator[None]:
    """Make the parts and start them, and close them at the end."""
    shut_undeclared(app)
    application = await to_thread.run_sync(Application, chosen)
    await to_thread.run_sync(application.serve)
    access = app.state.access = Access(application, chosen)
    watches = [asyncio.create_task(access.lag.watch()), asyncio.create_task(_give_back(access))]
    rpc = None
    try:
        rpc = app.state.rpc = start_rpc(app.state.access)
        yield
    finally:
        for watch in watches:
            watch.cancel()
        if rpc is not None:
            await to_thread.run_sync(rpc.close, chosen.drain_timeout_ms / 1000)
        await to_thread.run_sync(application.close)


def _guard(app: FastAPI) -> None:
    """Put around the routes what every request passes, the innermost first."""
    app.add_exception_handler(DubitoError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_fields)
    app.add_exception_handler(HTTPException, _answer_status)
    app.add_middleware(ShortcutMiddleware, routes=predict.router.routes, answer_error=_answer_error)
    app.add_middleware(AdmissionMiddleware, count_refusal=count_refusal)
    app.add_middleware(AuthMiddleware)
    app.add_middleware(ContextMiddleware)
    app.add_middleware(DrainingMiddleware)
    app.add_middleware(HeadersOnlyMiddleware)


@cache
def _routes() -> tuple[BaseRoute, ...]:
    """Those of every application: FastAPI works out once what they read and answer."""
    every = (
        *(health, models, aliases, predict, calibration, evaluation, fits, monitoring, select),
        *(pools, jobs, inference, repository, metrics),
    )
    together = APIRouter()
    for routes in every:
        together.include_router(routes.router, responses=PROBLEMS)
    return tuple(together.routes)


async def _give_back(access: Access) -> None:
    """Return memory to the system after large bodies, until this is cancelled."""
    while True:
        await asyncio.sleep(_GIVE_BACK_S)
        await to_thread.run_sync(access.application.admission.give_back)


def _write_document_once(app: FastAPI) -> None:
    """Answer `/openapi.json` with bytes that are written once: FastAPI writes them every time."""

    @cache
    def written() -> bytes:
        return orjson.dumps(app.openapi())

    async def document(request: Request) -> Response:
        return Response(await to_thread.run_sync(written), media_type=JSON)

    path = app.openapi_url
    assert path is not None
    app.router.routes[:] = [
        route for route in app.router.routes if getattr(route, "path", None) != path
    ]
    app.add_route(path, document, include_in_schema=False)


async def _answer_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, DubitoError) or type(error) is DubitoError:
        raise error  # unforeseen: the outermost frame logs and answers it
    if str(error) != error.detail:
        _log.error(error.title, request_id=request_id(request), reason=str(error))
    return refusal(request.scope, error)


async def _answer_fields(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    return refusal(request.scope, fields_error(error))


async def _answer_status(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers) if error.headers else {}
    if "GET" in headers.get("Allow", "").split(", "):
        headers["Allow"] += ", HEAD"
    path, method = request.url.path[:80], request.method[:20]
    detail = {
        404: f"expected a path that /openapi.json lists, got {path!r}: correct it",
        405: f"{path}: expected {headers.get('Allow', 'another method')}, got {method}: "
        "use one of those",
    }.get(error.status_code, error.detail)
    return status_response(error.status_code, detail, request_id(request), headers)
