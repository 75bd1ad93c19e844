"""`/v1/pools`: unlabelled rows that stay on the server, sent or taken from an allowed address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from anyio import open_file, to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response
from numpy.typing import NDArray

from dubito.api.border.access import Access, access
from dubito.api.border.auth import GuardedRoute, actor, caller_of, needs
from dubito.api.border.bodies import chunks_within, media_type
from dubito.api.border.fields import no_query, read_query, read_small
from dubito.api.border.replies import json_response
from dubito.api.openapi import DELETED, PoolName, gives, takes
from dubito.api.pages.work import PoolPage, PoolRowsPage, PoolsPage
from dubito.api.schemas import PoolAddressBody, PoolQuery, PoolRowsQuery
from dubito.keys import KeyScope
from dubito.media import ARROW, CSV, JSON, NDJSON, NPY, NPZ, PARQUET, TAR, ZIP
from dubito.pools.shelf import CONVERT
from dubito.registry import PoolFact

router = APIRouter(prefix="/v1/pools", tags=["pools"], route_class=GuardedRoute)

_FORMATS = {
    **{NPY: "npy", NPZ: "npz", PARQUET: "parquet"},
    **{CSV: "csv", NDJSON: "ndjson", ARROW: "arrows"},
    **{ZIP: "zip", TAR: "tar"},
}


@router.post(
    "",
    status_code=201,
    summary="Store a pool",
    response_model=PoolPage,
    responses={201: gives(headers={"Location": "Path of the pool."})},
    openapi_extra=takes(PoolAddressBody, *_FORMATS, query=PoolQuery),
)
@needs(KeyScope.SELECT)
async def add_pool(request: Request) -> Response:
    """Store rows from the body, or from an address that the operator allows."""
    held = access(request)
    kind = media_type(request, (*_FORMATS, JSON), f"set the header Content-Type, or {CONVERT}")
    if kind == JSON:
        fact = await _take(request, held)
    else:
        fact = await _receive(request, held, _FORMATS[kind])
    return json_response(PoolPage.of_pool(fact), 201, {"Location": f"/v1/pools/{fact.name}"})


@router.get("", summary="All pools", response_model=PoolsPage)
@needs(KeyScope.SELECT)
def list_pools(request: Request) -> Response:
    """List the stored pools by name."""
    facts = access(request).application.pools.all(caller_of(request))
    return json_response(PoolsPage(pools=[PoolPage.of_pool(fact) for fact in facts]))


@router.get("/{pool}", summary="One pool", response_model=PoolPage)
@needs(KeyScope.SELECT)
def get_pool(request: Request, pool: PoolName) -> Response:
    """Show the rows, arrays and origin of a pool."""
    fact = access(request).application.pools.get(pool, caller_of(request))
    return json_response(PoolPage.of_pool(fact))


@router.get(
    "/{pool}/rows",
    summary="Some rows of a pool",
    response_model=PoolRowsPage,
    openapi_extra=takes(None, query=PoolRowsQuery),
)
@needs(KeyScope.SELECT)
def pool_rows(request: Request, pool: PoolName) -> Response:
    """Show some rows of a pool, such as those that a selection chose."""
    indices = read_query(PoolRowsQuery, request.query_params.multi_items()).indices
    pools = access(request).application.pools
    features, cells = pools.cells(pool, indices, caller_of(request))
    rows = (
        {name: _listed(column) for name, column in cells.items()}
        if isinstance(cells, Mapping)
        else _listed(cells)
    )
    page = PoolRowsPage(pool=pool, indices=indices, features=features, rows=rows)
    return json_response(page)


@router.delete("/{pool}", summary="Delete a pool", **DELETED)
@needs(KeyScope.SELECT)
def delete_pool(request: Request, pool: PoolName) -> Response:
    """Delete a pool that no job uses."""
    access(request).application.pools.delete(pool, caller_of(request))
    return Response(status_code=204)


def _listed(column: NDArray[np.generic] | Sequence[str | None]) -> list[Any]:
    rows: list[Any] = column.tolist() if isinstance(column, np.ndarray) else list(column)
    return rows


async def _receive(request: Request, held: Access, format: str) -> PoolFact:
    name = read_query(PoolQuery, request.query_params.multi_items()).name
    pools = held.application.pools
    await to_thread.run_sync(pools.check_name, name)
    with pools.incoming() as path:
        async with await open_file(path, "wb") as file:
            async for chunk in chunks_within(
                request, held.settings.max_pool_bytes, "DUBITO_MAX_POOL_BYTES"
            ):
                await file.write(chunk)
        store = partial(pools.add, name, path, format, actor=actor(request))
        return await to_thread.run_sync(store)


async def _take(request: Request, held: Access) -> PoolFact:
    no_query(request.query_params.multi_items())
    body = await read_small(request, PoolAddressBody)
    take = partial(
        held.application.pools.take,
        body.name,
        body.address,
        format=body.format,
        actor=actor(request),
    )
    return await to_thread.run_sync(take)
