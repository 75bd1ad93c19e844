"""The HTTP API: `/v1` and `/health`. Its routes know no mathematics.

border/         what every request and reply passes: key, limits, bodies, errors, JSON
schemas.py      what JSON and queries may say
pages/          what replies say
intake.py       from a body to an answer
labelled.py     bodies of labelled rows
openapi.py      what `/openapi.json` says of a route, and routes with and without a version
routes/         the paths
factory.py      `create_app`
server.py       uvicorn, and how it ends
"""

from dubito.api.border.auth import check_bind
from dubito.api.factory import create_app
from dubito.api.server import Server

__all__ = ["Server", "check_bind", "create_app"]
