"""`dubito load` and `dubito unload`: they ask the server that runs, since the device is its own."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Annotated
from urllib.parse import quote

import typer

from dubito.cli.console import output, progress
from dubito.errors import InputError, UnauthorizedError, UnavailableError
from dubito.names import DEFAULT_ALIAS
from dubito.presence import server_of
from dubito.settings import Settings

_WITH_A_KEY = ", and give it to this command as `DUBITO_API_KEY=KEY dubito ...`"

Model = Annotated[str, typer.Argument(help="Name of the model.")]
Version = Annotated[str, typer.Argument(help="Version, by number or alias.")]
Url = Annotated[
    str | None,
    typer.Option(
        help="URL of the server. Default: that of DUBITO_HOST and DUBITO_PORT where they are "
        "set, else of the server on the data folder. Its key is read from DUBITO_API_KEY."
    ),
]


def load(model: Model, version: Version = DEFAULT_ALIAS, url: Url = None) -> None:
    """Have the running server load a version onto its device."""
    with progress(f"loading {model}"):
        _ask("load", model, version, url)


def unload(model: Model, version: Version = DEFAULT_ALIAS, url: Url = None) -> None:
    """Have the running server free the memory that a version takes on its device."""
    _ask("unload", model, version, url)


def _ask(action: str, model: str, version: str, url: str | None) -> None:
    page = ask("POST", ("v1", "models", model, "versions", version, action), url)
    output().print(f"{model} version {page['version']} is {page['state']}")


def ask(method: str, parts: Sequence[str], url: str | None) -> Mapping[str, object]:
    """Return the answer of the running server.

    Args:
        method: GET or POST, without a body.
        parts: of the path.
        url: the server; None: at the address of the settings, where they name one, else the one
            that runs on the data folder.

    Raises:
        InputError: no HTTP URL.
        UnavailableError: no server answers, or it answers with an error.
    """
    settings = Settings()
    root = url or _address(settings)
    if not root.startswith(("http://", "https://")):
        raise InputError(f"--url: expected http:// or https://, got {root!r}: correct it")
    path = "/".join([root.rstrip("/"), *(quote(part, safe="") for part in parts)])
    headers = {}
    if settings.api_key is not None:
        headers["Authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
    data = b"" if method == "POST" else None
    request = urllib.request.Request(path, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            page: Mapping[str, object] = json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            raise UnavailableError(_detail(error)) from error
    except (urllib.error.URLError, http.client.HTTPException, ValueError) as error:
        raise UnavailableError(
            f"no server answers at {root} ({getattr(error, 'reason', error)}): "
            "start one with `dubito serve`, or name it with --url"
        ) from error
    return page


def _address(settings: Settings) -> str:
    """Where the server is: as the settings name it, else as it says in the data folder."""
    found = server_of(settings.data_dir)
    if found is not None and not {"host", "port"} & settings.model_fields_set:
        return found
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "http" if settings.tls_cert is None else "https"
    return f"{scheme}://{host}:{settings.port}"


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        detail = str(json.load(error)["detail"])
        return detail + _WITH_A_KEY if error.code == UnauthorizedError.status else detail
    except (ValueError, KeyError, TypeError):
        return f"the server answered {error.code}: check --url"
