"""`/health/*`: open to everyone, answered without the user queue."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from dubito.api.border.access import access
from dubito.api.border.replies import json_response
from dubito.api.pages.models import DeviceEntry, HealthEntry, LivePage, ReadyPage

router = APIRouter(prefix="/health", tags=["health"])

_RETRY = {"Retry-After": "5"}


@router.get(
    "/live",
    summary="Is the server alive?",
    response_model=LivePage,
    responses={503: {"model": LivePage, "description": "One of them does not respond."}},
)
async def live(request: Request) -> Response:
    """Answers 200 while the event loop and the worker of every device respond, else 503."""
    is_live = access(request).application.vitals.is_live()
    return _answer(LivePage(live=is_live), is_live)


@router.get(
    "/ready",
    summary="Is the server ready?",
    response_model=ReadyPage,
    responses={503: {"model": ReadyPage, "description": "Not ready, or draining."}},
)
async def ready(request: Request) -> Response:
    """Answers 200 while requests are taken and all pinned models are loaded, else 503."""
    health = access(request).application.vitals.health()
    entries = [
        HealthEntry.of(line, pinned=line.is_pinned, samples_vary=line.varies)
        for line in health.lines
    ]
    page = ReadyPage(
        ready=health.is_ready,
        live=health.is_live,
        draining=health.is_draining,
        models=entries,
        devices=[
            DeviceEntry(
                device=worker.device,
                running=worker.is_running,
                heartbeat_age_ms=round(worker.heartbeat_age_s * 1000, 1),
            )
            for worker in health.workers
        ],
    )
    return _answer(page, health.is_ready)


def _answer(page: LivePage | ReadyPage, is_well: bool) -> Response:
    return json_response(page, 200 if is_well else 503, None if is_well else _RETRY)
