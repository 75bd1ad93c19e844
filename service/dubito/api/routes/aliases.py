"""`/v1/models/{model}/aliases`: names that point to versions, moved by compare-and-set."""

from __future__ import annotations

import re
from functools import partial

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response

from dubito.api.border.access import access
from dubito.api.border.auth import GuardedRoute, actor, needs
from dubito.api.border.fields import read_small
from dubito.api.border.replies import json_response, unchanged
from dubito.api.openapi import (
    DELETED,
    NOT_MODIFIED,
    UNLESS_MATCH,
    AliasName,
    ModelName,
    Responses,
    gives,
    header,
    takes,
)
from dubito.api.pages.models import AliasPage
from dubito.api.schemas import AliasBody
from dubito.errors import PreconditionFailedError
from dubito.keys import KeyScope
from dubito.registry import AliasFact
from dubito.registry.revisions import EXISTING, MISSING, Expected

router = APIRouter(prefix="/v1/models", tags=["aliases"], route_class=GuardedRoute)

_IF_MATCH = header("If-Match", "Revision that the alias is expected to have, or `*`.")
_IF_NONE_MATCH = header("If-None-Match", "`*`: make the alias only where there is none.")
_TAGGED: Responses = {200: gives(headers={"ETag": "Revision of the alias."})}


@router.get(
    "/{model}/aliases/{alias}",
    summary="One alias",
    response_model=AliasPage,
    responses={**_TAGGED, **NOT_MODIFIED},
    openapi_extra=takes(None, headers=(UNLESS_MATCH,)),
)
@needs(KeyScope.PREDICT)
def get_alias(request: Request, model: ModelName, alias: AliasName) -> Response:
    """Show where an alias points. Its `ETag` is the value for `If-Match`."""
    answer = _answer(access(request).application.registry.alias(model, alias))
    return unchanged(request, answer.headers["ETag"]) or answer


@router.put(
    "/{model}/aliases/{alias}",
    summary="Point an alias to a version",
    response_model=AliasPage,
    responses=_TAGGED,
    openapi_extra=takes(AliasBody, headers=(_IF_MATCH, _IF_NONE_MATCH)),
)
@needs(KeyScope.ADMIN)
async def put_alias(request: Request, model: ModelName, alias: AliasName) -> Response:
    """Create an alias, or move it once the version is loaded. `If-Match` names its revision.

    `If-None-Match: *` only creates it, and fails where it exists.
    """
    body = await read_small(request, AliasBody)
    call = partial(
        access(request).application.library.set_alias,
        model,
        alias,
        body.version,
        if_match=_if_match(request),
        actor=actor(request),
    )
    return _answer(await to_thread.run_sync(call))


@router.delete(
    "/{model}/aliases/{alias}",
    summary="Delete an alias",
    openapi_extra=takes(None, headers=(_IF_MATCH,)),
    **DELETED,
)
@needs(KeyScope.ADMIN)
def delete_alias(request: Request, model: ModelName, alias: AliasName) -> Response:
    """Delete an alias other than `default`. `If-Match` names its revision."""
    registry = access(request).application.registry
    registry.delete_alias(model, alias, if_match=_if_match(request), actor=actor(request))
    return Response(status_code=204)


def _answer(fact: AliasFact) -> Response:
    return json_response(AliasPage.of_alias(fact), headers={"ETag": f'"{fact.revision}"'})


def _if_match(request: Request) -> Expected | None:
    """Return what `If-Match` or `If-None-Match` expects; None without either."""
    header, none_match = (
        ",".join(values) if (values := request.headers.getlist(name)) else None
        for name in ("if-match", "if-none-match")
    )
    if none_match is not None:
        if none_match.strip() != "*" or header is not None:
            raise PreconditionFailedError(
                "If-None-Match: expected `*`, for an alias that does not exist yet, without "
                f"If-Match, got {none_match[:40]!r}: leave one of them out"
            )
        return MISSING
    if header is None:
        return None
    if header.strip() == "*":
        return EXISTING
    # weak tags never match, by RFC 9110, section 13.1.1
    revisions = frozenset(map(int, re.findall(r'(?<!W/)"([0-9]{1,9})"', header)))
    if not revisions:
        raise PreconditionFailedError(
            f'If-Match: expected a revision such as "3", got {header[:40]!r}: '
            "take it from the ETag of the last change, or from the model's page"
        )
    return revisions
