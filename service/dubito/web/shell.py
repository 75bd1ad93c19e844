"""Serves the page's files: the shell at `/`, what it loads below `/page`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog
from anyio import to_thread
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_log = structlog.get_logger(__name__)

STATIC = Path(__file__).parent / "static"
DRAWING = STATIC / "drawing" / "uPlot.iife.min.js"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Cache-Control": "no-cache",  # asked for again, and answered 304 until Dubito is upgraded
    "Content-Security-Policy": _POLICY,  # beside that of all replies: a browser holds to both
}
_ROOT = '<html lang="en"'


class _Files(StaticFiles):
    """Static files with the headers of the page."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The reply to one path."""
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


def add_page(app: FastAPI, wants_key: Callable[[Request], bool]) -> None:
    """Let an application serve the page, also where the library that draws is missing.

    Args:
        app: routes are added to it; `dubito.api.border.auth.is_open` names their paths.
        wants_key: whether the data want a key; the shell says so, lest one be asked for in vain.
    """

    async def shell(request: Request) -> Response:
        if not DRAWING.is_file():
            _log.warning(
                "the page shows tables in place of pictures: uPlot is missing from this "
                "installation; install a built wheel, or run `python scripts/hatch_build.py`, "
                "which needs npm"
            )
        text = await to_thread.run_sync((STATIC / "index.html").read_text)
        if await to_thread.run_sync(wants_key, request):
            text = text.replace(_ROOT, f"{_ROOT} data-wants-key", 1)
        return HTMLResponse(text, headers=_HEADERS)

    app.add_route("/", shell, include_in_schema=False)
    app.mount("/page", _Files(directory=STATIC), name="page")
