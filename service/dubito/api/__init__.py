"""The HTTP API: `/v1`, `/v2` and `/health`. Its routes know no mathematics.

border/         what every request and reply passes: key, limits, bodies, errors, JSON
schemas.py      what JSON and queries may say
pages/          what replies say
intake.py       from a body to an answer
shortcut.py     the short way to the routes that are asked most
labelled.py     bodies of labelled rows
tables.py       bodies of tables
open_inference/  the Open Inference Protocol, which `/v2` speaks
openapi.py      what `/openapi.json` says of a route, and routes with and without a version
routes/         the paths
rpc/            the same protocol over gRPC
factory.py      `create_app`
connections/    connections below the routes: their bounds, refusals before a route
server.py       uvicorn, and how it ends
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dubito.api.border.auth import check_bind as check_bind
    from dubito.api.connections.tls import check_tls as check_tls
    from dubito.api.factory import create_app as create_app
    from dubito.api.server import Server as Server

__all__ = ["Server", "check_bind", "check_tls", "create_app"]

_MODULES = {
    "Server": "server",
    "check_bind": "border.auth",
    "check_tls": "connections.tls",
    "create_app": "factory",
}


def __getattr__(name: str) -> object:
    """What a server is made of, once it is asked for: a command reads `border.fields` alone."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
