"""The short way to the routes that are asked most: from the frame to the function of a route.

FastAPI looks through all routes for that of a path, and works out arguments that these functions do
not have. The routes stay declared there, for `/openapi.json` and for whatever is not plain here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from dubito.api.border.auth import check_route
from dubito.errors import DubitoError

_PART = re.compile(r"\{(\w+)\}")


class ShortcutMiddleware:
    """Calls the functions of some routes, which take the request and the model.

    Args:
        app: what answers everything else.
        routes: POST, with the parts `model` and maybe `version` in their paths; guarded as ever.
        answer_error: what the application answers to an error.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Sequence[BaseRoute],
        answer_error: Callable[[Request, Exception], Awaitable[Response]],
    ) -> None:
        self._app = app
        self._answer_error = answer_error
        self._routes = [
            (re.compile(_PART.sub(r"(?P<\1>[^/\n]+)", route.path)), route)
            for route in routes
            if isinstance(route, APIRoute)
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] == "http" and scope["method"] == "POST" and not scope.get("root_path"):
            for path, route in self._routes:
                found = path.fullmatch(scope["path"])
                if found is not None:
                    scope.update(
                        route=route, endpoint=route.endpoint, path_params=found.groupdict()
                    )
                    await self._answer(route, Request(scope, receive, send))
                    return
        await self._app(scope, receive, send)

    async def _answer(self, route: APIRoute, request: Request) -> None:
        try:
            check_route(route.endpoint, request.scope)
            response = await route.endpoint(request, request.path_params["model"])
        except DubitoError as error:
            response = await self._answer_error(request, error)
        await response(request.scope, request.receive, request._send)
