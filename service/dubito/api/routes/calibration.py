"""`…/calibrate` and `…/calibration`: fit on labelled rows, look at it, go back to another."""

from __future__ import annotations

from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import TypeAdapter

from dubito.answered import CalibrateReply
from dubito.api.access import Access, access
from dubito.api.auth import actor
from dubito.api.bodies import JSON, NPZ, media_type, parse_json, read_body
from dubito.api.fields import read_fields
from dubito.api.intake import Given, answered
from dubito.api.labelled import KINDS, read_labelled
from dubito.api.pages import calibration_page
from dubito.api.replies import json_response
from dubito.api.schemas import ActiveBody
from dubito.asked import CalibrateBody, CalibrateOptions, CalibrateOrder, order_of
from dubito.serving.worker import Job

router = APIRouter(prefix="/v1/models", tags=["calibration"])

_SMALL_BODY_BYTES = 4096
_ANSWERED = ("verdict", "num_rows", "splits", "report", "warnings", "ood", "policy")
_FIT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": TypeAdapter(CalibrateBody).json_schema()},
            NPZ: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_ACTIVE_BODY = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": ActiveBody.model_json_schema()}},
    }
}


@router.post("/{model}/calibrate", summary="Calibrate on held-out rows", openapi_extra=_FIT_BODY)
async def calibrate(request: Request, model: str) -> Response:
    """Calibrate the version that the alias `default` names."""
    return await _calibrate(request, model, "default")


@router.post(
    "/{model}/versions/{version}/calibrate",
    summary="Calibrate on held-out rows, one version",
    openapi_extra=_FIT_BODY,
)
async def calibrate_version(request: Request, model: str, version: str) -> Response:
    """Calibrate a version by its number or an alias."""
    return await _calibrate(request, model, version)


@router.get("/{model}/calibration", summary="The active calibration")
def get_calibration(request: Request, model: str) -> Response:
    """Show report, reliability bins, thresholds and what it was fitted on, or null."""
    return _active(access(request), model, "default")


@router.get(
    "/{model}/versions/{version}/calibration", summary="The active calibration, one version"
)
def get_version_calibration(request: Request, model: str, version: str) -> Response:
    """Show the active calibration of a version by its number or an alias."""
    return _active(access(request), model, version)


@router.put(
    "/{model}/calibration", summary="Make another calibration active", openapi_extra=_ACTIVE_BODY
)
async def put_calibration(request: Request, model: str) -> Response:
    """Go back to an earlier calibration, or to none."""
    return await _activate(request, model, "default")


@router.put(
    "/{model}/versions/{version}/calibration",
    summary="Make another calibration active, one version",
    openapi_extra=_ACTIVE_BODY,
)
async def put_version_calibration(request: Request, model: str, version: str) -> Response:
    """Go back to an earlier calibration of a version, or to none."""
    return await _activate(request, model, version)


async def _calibrate(request: Request, model: str, version: str) -> Response:
    return await answered(request, KINDS, partial(_start, model, version), _answer)


def _start(model: str, version: str, given: Given) -> Job[CalibrateReply]:
    """Decode a body and queue what it asks."""
    options, rows = read_labelled(given, CalibrateBody, CalibrateOptions)
    beside = {"model": model, "version": version, "actor": given.actor}
    order = order_of(CalibrateOrder, options, **rows, **beside)
    application = given.held.application
    return application.ask(order, reservation=given.place, deadline_s=given.deadline_s)


def _answer(reply: CalibrateReply) -> Response:
    summary = reply.record.summary()
    return json_response(
        {
            "model": reply.model,
            "version": reply.version,
            "calibration": reply.calibration,
            "active": reply.record.is_worth_using,
            **{name: summary[name] for name in _ANSWERED},
        }
    )


def _active(held: Access, model: str, version: str) -> Response:
    page = held.application.library.page(model, version)
    if page.calibration is not None:
        return json_response(calibration_page(page.calibration))
    fact = page.version
    return json_response({"model": fact.model, "version": fact.number, "calibration": None})


async def _activate(request: Request, model: str, version: str) -> Response:
    media_type(request, (JSON,))
    body = read_fields(ActiveBody, parse_json(await read_body(request, _SMALL_BODY_BYTES)))
    held = access(request)
    change = partial(held.application.registry.set_active_calibration, actor=actor(request))
    await to_thread.run_sync(change, model, version, body.active)
    return await to_thread.run_sync(_active, held, model, version)
