"""`…/fit` and `…/fits`: what a further method learns of rows, look at it, go back to another."""

from __future__ import annotations

from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response

from dubito.api.border.access import Access, access
from dubito.api.border.auth import GuardedRoute, actor, needs
from dubito.api.border.fields import read_small, rows_or_pool
from dubito.api.border.replies import json_response
from dubito.api.intake import Received, answered
from dubito.api.labelled import KINDS, read_labelled
from dubito.api.openapi import ACCEPTED, TIMEOUT, ModelName, asked_version, both, takes
from dubito.api.pages.fits import FitEntry, FitsPage
from dubito.api.pages.work import AcceptedPage
from dubito.api.schemas import ActiveFitsBody
from dubito.asked import own_fields
from dubito.asked_fits import FitBody, FitOptions, fit_order
from dubito.errors import InputError
from dubito.keys import KeyScope
from dubito.media import NPZ, ROWS
from dubito.registry import JobFact

router = APIRouter(prefix="/v1/models", tags=["calibration"], route_class=GuardedRoute)


@both(
    router.post,
    "fit",
    summary="Fit a further method",
    response_model=AcceptedPage,
    status_code=202,
    responses=ACCEPTED,
    openapi_extra=takes(FitBody, NPZ, *ROWS, query=FitOptions, headers=(TIMEOUT,)),
)
@needs(KeyScope.CALIBRATE)
async def fit(request: Request, model: ModelName) -> Response:
    """Fit `laplace` or `distilled` to rows or to a pool, by a job, and make the result active.

    Without a version in the path, the alias `default` names it.
    """
    return await answered(request, KINDS, partial(_start, model, asked_version(request)), _never)


@both(router.get, "fits", summary="All fits of a version", response_model=FitsPage)
@needs(KeyScope.PREDICT)
def list_fits(request: Request, model: ModelName) -> Response:
    """List the fits of a version with their reports, and which are active, by method."""
    return _page(access(request), model, asked_version(request))


@both(
    router.put,
    "fits",
    summary="Make other fits active",
    response_model=FitsPage,
    openapi_extra=takes(ActiveFitsBody),
)
@needs(KeyScope.CALIBRATE)
async def put_fits(request: Request, model: ModelName) -> Response:
    """Go back to an earlier fit of a method, or to none."""
    body = await read_small(request, ActiveFitsBody)
    held, version = access(request), asked_version(request)
    change = partial(held.application.registry.fits.set_active, actor=actor(request))
    await to_thread.run_sync(change, model, version, dict(body.active))
    return await to_thread.run_sync(_page, held, model, version)


def _start(model: str, version: str, received: Received) -> JobFact:
    """Decode a body, and write down the job that it asks for."""
    options, rows = read_labelled(received, FitBody, FitOptions)
    if isinstance(options, FitBody):
        rows_or_pool({k: v for k, v in own_fields(options).items() if v is not None})
    if "ood_inputs" in rows:
        raise InputError("`ood_inputs` are not read by a fit: leave them out")
    beside = {"model": model, "version": version, "actor": received.caller.name}
    order = fit_order(options, **rows, **beside)
    return received.held.application.jobs.fit(order, received.caller)


def _never(reply: None) -> Response:
    raise AssertionError("a fit is always a job")


def _page(held: Access, model: str, reference: str) -> Response:
    version = held.application.library.version(model, reference)
    facts = held.application.registry.fits.all(model, str(version.number))
    return json_response(
        FitsPage(
            model=model,
            version=version.number,
            active=dict(version.active_fits),
            fits=[FitEntry.of_fit(fact) for fact in facts],
        )
    )
