"""The HTTP border: routes, schemas, bodies and errors of `/v1` and `/health`.

    context.py      request id, the outermost frame of a request, unforeseen errors
    headers_only.py HEAD as GET without its body
    draining.py     the rest of a body, before a refusal is sent
    auth.py         the bearer key, asked on everything but health
    errors.py       the one error body
    bodies.py       reading a body within its limit
    arrays.py       `.npy` and `.npz` in and out
    schemas.py      what JSON and queries may say; fields.py reads them
    replies.py      JSON out
    waiting.py      waiting for a job: deadline and disconnection
    routes/         the paths
    factory.py      `create_app`
    server.py       uvicorn, and how it ends

Routes know no mathematics.
"""

from dubito.api.auth import check_bind
from dubito.api.factory import create_app
from dubito.api.server import Server

__all__ = ["Server", "check_bind", "create_app"]
