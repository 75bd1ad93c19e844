"""`…/calibrate` and `…/calibration`: fit on labelled rows, look at it, go back to another."""

from __future__ import annotations

from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response

from dubito.answered import CalibrateReply
from dubito.api.border.access import Access, access
from dubito.api.border.auth import GuardedRoute, actor, needs
from dubito.api.border.fields import read_small
from dubito.api.border.replies import json_response
from dubito.api.intake import Received, answered
from dubito.api.labelled import KINDS, read_labelled
from dubito.api.openapi import TIMEOUT, ModelName, asked_version, both, takes
from dubito.api.pages.calibrations import (
    CalibratePage,
    CalibrationPage,
    NoCalibrationPage,
    calibrated_page,
    calibration_page,
)
from dubito.api.schemas import ActiveBody
from dubito.asked import CalibrateBody, CalibrateOptions, CalibrateOrder, order_of
from dubito.keys import KeyScope
from dubito.media import NPZ, ROWS
from dubito.serving.worker import Job

router = APIRouter(prefix="/v1/models", tags=["calibration"], route_class=GuardedRoute)

_ACTIVE = CalibrationPage | NoCalibrationPage


@both(
    router.post,
    "calibrate",
    summary="Calibrate on held-out rows",
    response_model=CalibratePage,
    openapi_extra=takes(CalibrateBody, NPZ, *ROWS, query=CalibrateOptions, headers=(TIMEOUT,)),
)
@needs(KeyScope.CALIBRATE)
async def calibrate(request: Request, model: ModelName) -> Response:
    """Fit scaling or noise, sets or intervals, and the flag of a version, and make it active.

    Without a version in the path, the alias `default` names it.
    """
    return await answered(request, KINDS, partial(_start, model, asked_version(request)), _answer)


@both(router.get, "calibration", summary="The active calibration", response_model=_ACTIVE)
@needs(KeyScope.PREDICT)
def get_calibration(request: Request, model: ModelName) -> Response:
    """Show report, reliability bins, thresholds and what it was fitted on, or null."""
    return _active(access(request), model, asked_version(request))


@both(
    router.put,
    "calibration",
    summary="Make another calibration active",
    response_model=_ACTIVE,
    openapi_extra=takes(ActiveBody),
)
@needs(KeyScope.CALIBRATE)
async def put_calibration(request: Request, model: ModelName) -> Response:
    """Go back to an earlier calibration of a version, or to none."""
    body = await read_small(request, ActiveBody)
    held, version = access(request), asked_version(request)
    change = partial(held.application.registry.set_active_calibration, actor=actor(request))
    await to_thread.run_sync(change, model, version, body.active)
    return await to_thread.run_sync(_active, held, model, version)


def _start(model: str, version: str, received: Received) -> Job[CalibrateReply]:
    """Decode a body and queue what it asks."""
    options, rows = read_labelled(received, CalibrateBody, CalibrateOptions)
    beside = {"model": model, "version": version, "actor": received.caller.name}
    order = order_of(CalibrateOrder, options, **rows, **beside)
    application = received.held.application
    return application.ask(order, reservation=received.reservation, deadline_s=received.deadline_s)


def _answer(reply: CalibrateReply) -> Response:
    return json_response(calibrated_page(reply))


def _active(held: Access, model: str, version: str) -> Response:
    page = held.application.library.page(model, version)
    if page.calibration is not None:
        return json_response(calibration_page(page.calibration))
    fact = page.version
    return json_response(NoCalibrationPage(model=fact.model, version=fact.number, calibration=None))
