"""Predictions of the server that runs on the data folder: its networks are loaded and warm."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from urllib.parse import quote

import numpy as np
import orjson

from dubito.errors import InputError
from dubito.media import JSON
from dubito.presence import server_of
from dubito.settings import Settings

UNOBSERVED = "X-Unobserved"
_MAX_BYTES = 4 * 2**20  # of a body: reading a larger one takes longer than a start here
_TIMEOUT_S = 600.0
_OURS = (404, 409, 413, 415, 422)  # refusals that would be the same here


def predicted(
    model: str, version: str | None, fields: Mapping[str, object]
) -> Mapping[str, object] | None:
    """The reply of the server to a prediction, but for its request id.

    Args:
        model: its name.
        version: by number or alias; None: what `default` points to.
        fields: of the body, as HTTP takes it.

    Returns:
        None where no server runs, or where it cannot be asked this: then it is to be done here.

    Raises:
        InputError: what it refuses, in its words.
    """
    settings = Settings()
    url, body = server_of(settings.data_dir), _body(fields)
    if url is None or body is None:
        return None
    at = "" if version is None else f"/versions/{quote(version, safe='')}"
    headers = {"Content-Type": JSON, "Accept": JSON, UNOBSERVED: "1"}
    if settings.api_key is not None:
        headers["Authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
    path = f"{url}/v1/models/{quote(model, safe='')}{at}/predict"
    request = urllib.request.Request(path, data=body, headers=headers, method="POST")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            page: dict[str, object] = orjson.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            if error.code not in _OURS:
                return None
            raise InputError(str(json.load(error)["detail"])) from error
    except (OSError, http.client.HTTPException, ValueError):
        return None
    page.pop("request_id", None)
    return page


def _body(fields: Mapping[str, object]) -> bytes | None:
    """The fields as JSON; None where they are too large for it, or hold what JSON lacks."""
    arrays = _arrays(fields)
    if sum(array.nbytes for array in arrays) > _MAX_BYTES:
        return None
    if any(array.dtype.kind not in "fiub" or not np.isfinite(array).all() for array in arrays):
        return None
    try:
        body = orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY, default=np.ndarray.tolist)
    except TypeError:
        return None
    return body if len(body) <= 4 * _MAX_BYTES else None


def _arrays(value: object) -> list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, Mapping):
        return [array for part in value.values() for array in _arrays(part)]
    return []
