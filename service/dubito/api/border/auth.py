"""Keys: who asks, before the router; and whether they may, at the route that was chosen.

Every path but those that hold no data needs a key, whether a route has it or not. Each route then
declares the scope that it needs; one that declares none is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from anyio import to_thread
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from dubito.addresses import is_loopback
from dubito.api.border.access import access_of
from dubito.api.border.browsers import check_origin
from dubito.api.border.context import CALLER, refusal
from dubito.errors import DubitoError, ForbiddenError, InputError
from dubito.keys import NOBODY, Caller, KeyScope
from dubito.models.opening import has_keys
from dubito.settings import Settings

Route = TypeVar("Route", bound=Callable[..., object])

KEY_SCHEME = "key"  # as the document names it
_NEEDS = "dubito_needs"
_OPEN_PATHS = frozenset(
    {
        *("/", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"),
        *("/docs", "/docs/oauth2-redirect", "/openapi.json"),
    }
)
_OPEN_FOLDERS = ("/page/", "/static-offline-docs/")  # what `/` and the documentation load


def needs(scope: KeyScope) -> Callable[[Route], Route]:
    """Declare the scope that a route needs; it stands below what registers the route."""

    def declare(route: Route) -> Route:
        setattr(route, _NEEDS, scope)
        return route

    return declare


def needed(endpoint: object) -> KeyScope | None:
    """The scope that a route declares; None where it declares none."""
    scope: KeyScope | None = getattr(endpoint, _NEEDS, None)
    return scope


def caller_of(connection: HTTPConnection) -> Caller:
    """Who asks."""
    caller: Caller = connection.scope[CALLER]
    return caller


def actor(connection: HTTPConnection) -> str:
    """The name of the key that a request came with, for the audit."""
    return caller_of(connection).name


def is_open(path: str) -> bool:
    """Whether a path holds no data, and needs no key."""
    return path in _OPEN_PATHS or f"{path}/".startswith(_OPEN_FOLDERS)


def wants_key(request: HTTPConnection) -> bool:
    """Whether there are keys, one of which every path that is not open wants."""
    keys = access_of(request.scope).application.keys
    if keys.is_stale:
        keys.refresh()
    return keys.is_locked


def check_route(endpoint: object, scope: Scope) -> None:
    """Refuse a route to a caller that may not ask it; whatever calls a route calls this before.

    Raises:
        ForbiddenError: the key has not the scope or the model, or the route declares no scope.
    """
    scope_needed = needed(endpoint)
    if scope_needed is not None:
        scope[CALLER].check(scope_needed, scope["path_params"].get("model"))
    elif not is_open(scope["path"]):
        raise _undeclared(scope["path"])


class AuthMiddleware:
    """Finds out who asks, and refuses who has no key or sends too much.

    Args:
        app: what is guarded.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer 401 or 429."""
        if scope["type"] == "lifespan" or is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        keys = access_of(scope).application.keys
        try:
            if keys.is_stale:
                await to_thread.run_sync(keys.refresh)
            sent = [value for name, value in scope["headers"] if name == b"authorization"]
            if len(sent) > 1:
                raise InputError("`Authorization` expected once, got several: send one key")
            caller = scope[CALLER] = keys.caller(sent[0] if sent else b"")
            if caller is NOBODY:
                check_origin(scope, access_of(scope).settings)
            if caller.allowance is not None:
                caller.allowance.begin()
        except DubitoError as error:
            await refusal(scope, error)(scope, receive, send)
            return
        if caller.allowance is None:
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            caller.allowance.end()


class GuardedRoute(APIRoute):
    """A route that is refused to callers without the scope that it declares, or its model."""

    def __init__(self, path: str, endpoint: Callable[..., object], **options: Any) -> None:
        scope_needed = needed(endpoint)
        if scope_needed is not None:
            security = {"security": [{KEY_SCHEME: [scope_needed.word]}]}
            options["openapi_extra"] = (options.get("openapi_extra") or {}) | security
        super().__init__(path, endpoint, **options)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, once the caller may ask it."""
        check_route(self.endpoint, scope)
        await super().handle(scope, receive, send)


class _Shut(BaseRoute):
    """A route of another kind: it declares no scope, and is refused."""

    def __init__(self, route: BaseRoute) -> None:
        self._route = route

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As the route itself."""
        return self._route.matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse."""
        raise _undeclared(scope["path"])


def shut_undeclared(app: FastAPI) -> None:
    """Shut all routes but guarded and open ones, such as those that were added by other means."""
    app.router.routes[:] = [
        route if _is_guarded(route) else _Shut(route) for route in app.router.routes
    ]


def check_bind(settings: Settings) -> None:
    """Refuse to serve on an open address without a key.

    Args:
        settings: host, key, database, and whether the caller insists.

    Raises:
        InputError: the address is not loopback, there is no key, and `insecure` is not set.
    """
    is_closed = settings.api_key is not None or settings.insecure or is_loopback(settings.host)
    if is_closed or has_keys(settings):
        return
    raise InputError(
        f"host {settings.host}: expected a loopback address or a key, got neither: make one with "
        "`dubito keys create NAME --scope admin`, set DUBITO_API_KEY, or add --insecure to serve "
        "anyone who can reach the port"
    )


def _is_guarded(route: BaseRoute) -> bool:
    if isinstance(route, _Shut):
        return True
    return all(
        isinstance(one.original_route, GuardedRoute) or is_open(one.path or "")
        for one in iter_route_contexts([route])
    )


def _undeclared(path: str) -> ForbiddenError:
    return ForbiddenError(
        f"{path[:80]}: expected a route that declares the scope that it needs, got one that "
        "declares none, which no key opens: report it"
    )
