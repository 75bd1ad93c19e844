"""`…/evaluate`: labelled rows in, the report out; nothing is changed."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response

from dubito.answered import EvaluateReply
from dubito.api.border.auth import GuardedRoute, needs
from dubito.api.border.replies import json_response
from dubito.api.intake import Received, answered
from dubito.api.labelled import KINDS, read_labelled
from dubito.api.openapi import TIMEOUT, ModelName, asked_version, both, takes
from dubito.api.pages.calibrations import EvaluatePage
from dubito.asked import EvaluateBody, EvaluateOptions, EvaluateOrder, order_of
from dubito.keys import KeyScope
from dubito.media import NPZ, ROWS
from dubito.serving.worker import Job

router = APIRouter(prefix="/v1/models", tags=["calibration"], route_class=GuardedRoute)


@both(
    router.post,
    "evaluate",
    summary="Judge on labelled rows",
    response_model=EvaluatePage,
    openapi_extra=takes(EvaluateBody, NPZ, *ROWS, query=EvaluateOptions, headers=(TIMEOUT,)),
)
@needs(KeyScope.CALIBRATE)
async def evaluate(request: Request, model: ModelName) -> Response:
    """Judge a version; nothing is changed.

    Without a version in the path, the alias `default` names it.
    """
    return await answered(request, KINDS, partial(_start, model, asked_version(request)), _answer)


def _start(model: str, version: str, received: Received) -> Job[EvaluateReply]:
    """Decode a body and queue what it asks."""
    options, rows = read_labelled(received, EvaluateBody, EvaluateOptions)
    order = order_of(EvaluateOrder, options, **rows, model=model, version=version)
    application = received.held.application
    return application.ask(order, reservation=received.reservation, deadline_s=received.deadline_s)


def _answer(reply: EvaluateReply) -> Response:
    splits = {"splits": {"report": reply.num_rows}}
    return json_response({**reply.head(), **splits, **reply.figures()})
