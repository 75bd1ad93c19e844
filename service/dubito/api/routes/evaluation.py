"""`…/evaluate`: labelled rows in, the report out; nothing is changed."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import TypeAdapter

from dubito.answered import EvaluateReply, sampling_fields
from dubito.api.bodies import JSON, NPZ
from dubito.api.intake import Given, answered
from dubito.api.labelled import KINDS, read_labelled
from dubito.api.replies import json_response
from dubito.asked import EvaluateBody, EvaluateOptions, EvaluateOrder, order_of
from dubito.serving.worker import Job

router = APIRouter(prefix="/v1/models", tags=["calibration"])

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": TypeAdapter(EvaluateBody).json_schema()},
            NPZ: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post("/{model}/evaluate", summary="Judge on labelled rows", openapi_extra=_BODY)
async def evaluate(request: Request, model: str) -> Response:
    """Judge the version that the alias `default` names."""
    return await _evaluate(request, model, "default")


@router.post(
    "/{model}/versions/{version}/evaluate",
    summary="Judge on labelled rows, one version",
    openapi_extra=_BODY,
)
async def evaluate_version(request: Request, model: str, version: str) -> Response:
    """Judge a version by its number or an alias."""
    return await _evaluate(request, model, version)


async def _evaluate(request: Request, model: str, version: str) -> Response:
    return await answered(request, KINDS, partial(_start, model, version), _answer)


def _start(model: str, version: str, given: Given) -> Job[EvaluateReply]:
    """Decode a body and queue what it asks."""
    options, rows = read_labelled(given, EvaluateBody, EvaluateOptions)
    order = order_of(EvaluateOrder, options, **rows, model=model, version=version)
    application = given.held.application
    return application.ask(order, reservation=given.place, deadline_s=given.deadline_s)


def _answer(reply: EvaluateReply) -> Response:
    evaluation = reply.evaluation
    return json_response(
        {
            "model": reply.model,
            "version": reply.version,
            **sampling_fields(reply.sampling, reply.members),
            "calibration": reply.calibration,
            "coverage": reply.coverage,
            "num_rows": reply.num_rows,
            "splits": {"report": reply.num_rows},
            "report": evaluation.report,
            "intervals": evaluation.intervals,
            "curves": asdict(evaluation.curves),
            "warnings": reply.warnings,
        }
    )
