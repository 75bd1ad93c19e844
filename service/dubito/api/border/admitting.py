"""Refusals by what waits: before the router, and before anything of a body is read.

So that a server under load far above what it can do has time for what it does. What has no line,
or a deadline that is no number, goes on to its route. A key that does not open the route is told
so, and not to come again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from dubito.api.border.access import access_of
from dubito.api.border.context import CALLER, refusal
from dubito.api.border.errors import FieldsError
from dubito.api.border.waiting import timeout_of
from dubito.application import Application
from dubito.errors import DubitoError, ForbiddenError, QueueFullError
from dubito.keys import KeyScope
from dubito.names import DEFAULT_ALIAS
from dubito.serving.turns.backlog import WaitingLine
from dubito.serving.worker import Urgency

_KEY = "dubito.line"
_PREDICTIONS = frozenset({"predict", "infer"})
_NEEDS = {
    "predict": KeyScope.PREDICT,
    "infer": KeyScope.PREDICT,
    "select": KeyScope.SELECT,
    "calibrate": KeyScope.CALIBRATE,
    "evaluate": KeyScope.CALIBRATE,
    "fit": KeyScope.CALIBRATE,
}
_PATH = re.compile(rf"/v[12]/models/([^/]+)(?:/versions/([^/]+))?/({'|'.join(_NEEDS)})")


class AdmissionMiddleware:
    """Answers 429 where a request would wait too long, and lets all others through.

    Args:
        app: what answers them.
        count_refusal: told the model and the version of an inference that is refused.
    """

    def __init__(
        self, app: ASGIApp, count_refusal: Callable[[Application, str, str], None]
    ) -> None:
        self._app = app
        self._count_refusal = count_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            found = _PATH.fullmatch(scope["path"])
            if found is not None:
                model, version, action = found.groups()
                urgency = Urgency.PREDICTIONS if action in _PREDICTIONS else Urgency.LABELLED
                scope[_KEY] = WaitingLine(urgency, model)
                try:
                    _look(scope)
                except QueueFullError as full:
                    error = _forbidden(scope, _NEEDS[action], model) or full
                    if action == "infer" and error is full:
                        application = access_of(scope).application
                        self._count_refusal(application, model, version or DEFAULT_ALIAS)
                    await refusal(scope, error)(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def line_of(request: Request) -> WaitingLine:
    """Where a request that uses the device stands."""
    line: WaitingLine = request.scope[_KEY]
    return line


def _look(scope: Scope) -> None:
    held = access_of(scope)
    try:
        timeout_ms = timeout_of(scope, held.settings)
    except FieldsError:
        return
    deadline_s = time.monotonic() + timeout_ms / 1000
    held.application.admission.look(scope[_KEY], deadline_s, held.lag.ahead_s)


def _forbidden(scope: Scope, needed: KeyScope, model: str) -> DubitoError | None:
    """Why the caller would be refused at any time; None where it would not."""
    try:
        scope[CALLER].check(needed, model)
    except ForbiddenError as error:
        return error
    return None
