"""`/health/*`: open to everyone, answered without the user queue."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from dubito.api.access import access
from dubito.api.pages import health_line
from dubito.api.replies import json_response

router = APIRouter(prefix="/health", tags=["health"])

_RETRY = {"Retry-After": "5"}


@router.get("/live", summary="Is the server alive?")
async def live(request: Request) -> Response:
    """Answers 200 while the event loop and the device worker respond, else 503."""
    is_live = access(request).application.vitals.is_live()
    return json_response({"live": is_live}, 200 if is_live else 503, None if is_live else _RETRY)


@router.get("/ready", summary="Is the server ready?")
async def ready(request: Request) -> Response:
    """Answers 200 while requests are taken and all pinned models are loaded, else 503."""
    health = access(request).application.vitals.health()
    content = {
        "ready": health.is_ready,
        "live": health.is_live,
        "draining": health.is_draining,
        "models": [health_line(line) for line in health.lines],
    }
    is_ready = health.is_ready
    return json_response(content, 200 if is_ready else 503, None if is_ready else _RETRY)
