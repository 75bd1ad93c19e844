"""Answers: JSON by orjson, arrays as `.npy` and `.npz` where the caller accepts them.

Same content, same bytes. JSON knows no infinity: an unbounded end of an interval is null.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from dubito.api.arrays import write_npz
from dubito.api.bodies import JSON, NPY, NPZ
from dubito.columns import ClassNames, ClassSets, Column, Flags, arrays_of
from dubito.engine import Sampling
from dubito.errors import InputError
from dubito.registry import JobFact

_WEIGHT = re.compile(r"(0(\.[0-9]{0,3})?|1(\.0{0,3})?)")
_TAG = re.compile(r'"[!#-~]*"')
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS


def to_json(content: Mapping[str, object]) -> bytes:
    """JSON of plain values, arrays and columns."""
    return orjson.dumps(content, default=_to_plain, option=_OPTIONS)


def json_response(
    content: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON answer."""
    return Response(to_json(content), status, headers=dict(headers or {}), media_type=JSON)


def sampling_fields(sampling: Sampling, members: tuple[int, ...] | None) -> dict[str, object]:
    """What a reply says of how it was drawn; `members` of an ensemble alone."""
    return {
        **({} if members is None else {"members": list(members)}),
        "num_samples": sampling.num_samples,
        "seed": sampling.seed,
        "masks": sampling.masks,
        "draw": sampling.draw,
        "method": sampling.method,
        "tolerance": sampling.tolerance,
    }


def accepted(job: JobFact) -> Response:
    """The answer to what became long work."""
    return json_response({"job": job.id}, 202, {"Location": f"/v1/jobs/{job.id}"})


def wanted_type(request: Request) -> str:
    """The type that `Accept` gives the greatest weight, the first of equals; else JSON.

    `.npz` and `.npy` are sent only where they are named.

    Source: RFC 9110, section 12.5.1.
    """
    weights: dict[str, float] = {}
    for one in ",".join(request.headers.getlist("accept")).lower().split(","):
        kind, *parameters = "".join(one.split()).split(";")
        weights.setdefault(kind, _weight(parameters))
    named = {kind: weight for kind, weight in weights.items() if kind in (NPZ, NPY, JSON)}
    named.setdefault(JSON, weights.get("application/*", weights.get("*/*", 0.0)))
    best = max(named, key=lambda kind: named[kind])
    return best if named[best] > 0 else JSON


def _weight(parameters: Sequence[str]) -> float:
    text = next((one[2:] for one in parameters if one.startswith("q=")), "1")
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
    return Response(_npy(next(iter(arrays.values()))), media_type=NPY)


def _npy(array: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _to_plain(value: object) -> object:
    """What orjson shall write for what it does not know."""
    if isinstance(value, ClassSets | ClassNames):
        return value.names()
    if isinstance(value, Flags):
        return value.values()
    if isinstance(value, np.ndarray):  # a layout that orjson does not read
        return np.ascontiguousarray(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
