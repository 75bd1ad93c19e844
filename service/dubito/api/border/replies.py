"""Answers: JSON by orjson, arrays as `.npy` and `.npz` where the caller accepts them.

Same content, same bytes. JSON knows no infinity: an unbounded end of an interval is null.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from dubito.api.border.headers import header_list
from dubito.arrays import write_npy, write_npz
from dubito.columns import Column, arrays_of, to_json
from dubito.errors import InputError
from dubito.media import JSON, NPY, NPZ

_WEIGHT = re.compile(r"(0(\.[0-9]{0,3})?|1(\.0{0,3})?)")
_NO_CHOICE = frozenset({"", "*/*", JSON})
_TAG = re.compile(r'"[!#-~]*"')


def json_response(
    content: BaseModel | Mapping[str, object],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A JSON answer; fields of a page that were not set are left out."""
    if isinstance(content, BaseModel):
        content = content.model_dump(exclude_unset=True)
    return Response(to_json(content), status, headers=dict(headers or {}), media_type=JSON)


def wanted_type(request: Request) -> str:
    """The type that `Accept` gives the greatest weight, the first of equals; else JSON.

    `.npz` and `.npy` are sent only where they are named.

    Source: RFC 9110, section 12.5.1.
    """
    weights: dict[str, float] = {}
    accepted = header_list(request.scope, b"accept")
    if accepted in _NO_CHOICE:
        return JSON
    for entry in accepted.lower().split(","):
        kind, *parameters = "".join(entry.split()).split(";")
        weights.setdefault(kind, _weight(parameters))
    named = {kind: weight for kind, weight in weights.items() if kind in (NPZ, NPY, JSON)}
    named.setdefault(JSON, weights.get("application/*", weights.get("*/*", 0.0)))
    best = max(named, key=lambda kind: named[kind])
    return best if named[best] > 0 else JSON


def _weight(parameters: Sequence[str]) -> float:
    text = next((text[2:] for text in parameters if text.startswith("q=")), "1")
    return float(text) if _WEIGHT.fullmatch(text) else 0.0


def unchanged(request: Request, etag: str) -> Response | None:
    """The answer 304 where `If-None-Match` holds the tag already, by weak comparison.

    Source: RFC 9110, section 13.1.2.
    """
    held = ",".join(request.headers.getlist("if-none-match"))
    if held.strip() != "*" and etag not in _TAG.findall(held):
        return None
    return Response(status_code=304, headers={"ETag": etag})


def columns_response(
    head: Mapping[str, object],
    columns: Mapping[str, Column],
    wanted: str,
    classes: Sequence[str] | None = None,
) -> Response:
    """A prediction in the form that is wanted.

    Args:
        head: all of the reply but its columns; in a `.npz` it is JSON in the array `reply`.
        columns: the outputs.
        wanted: content type.
        classes: names of the classes or labels; in a `.npz` the array `classes`.

    Raises:
        InputError: `.npy` for more than one output.
    """
    if wanted == JSON:
        return json_response({**head, "outputs": columns})
    arrays = dict(arrays_of(columns))
    if wanted == NPZ:
        if classes is not None:
            arrays["classes"] = np.array(classes)
        arrays["reply"] = np.frombuffer(to_json(head), dtype=np.uint8)
        return Response(write_npz(arrays), media_type=NPZ)
    if len(arrays) != 1:
        raise InputError(
            f"Accept {NPY}: expected one output, got {len(arrays)}: "
            f"name one array in `outputs`, or accept {NPZ}"
        )
    return Response(write_npy(next(iter(arrays.values()))), media_type=NPY)
