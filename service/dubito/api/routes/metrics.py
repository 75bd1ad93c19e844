"""`/metrics`: counts and gauges in the text format of Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from dubito.api.border.access import access
from dubito.api.border.auth import GuardedRoute, needs
from dubito.keys import KeyScope

router = APIRouter(tags=["health"], route_class=GuardedRoute)


@router.get(
    "/metrics",
    summary="Telemetry",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
@needs(KeyScope.PREDICT)
def metrics(request: Request) -> Response:
    """Tell what happened since the start, and what stands now, in the text format of Prometheus."""
    text = access(request).application.telemetry.text()
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})
