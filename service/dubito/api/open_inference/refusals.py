"""What was wrong with a request is answered with 400 under `/v2`, with the one body of all errors.

Clients of the protocol know no 422.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from dubito.api.border.auth import GuardedRoute
from dubito.api.border.context import note_reason, request_id
from dubito.api.border.errors import FieldsError, problem_response
from dubito.errors import InputError

BAD_REQUEST = 400


class ProtocolRoute(GuardedRoute):
    """A route whose refusals of input have the status 400."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except InputError as error:
                note_reason(request.scope, error)
                return problem_response(
                    status=BAD_REQUEST,
                    title=error.title,
                    kind=error.kind,
                    detail=error.detail,
                    request_id=request_id(request),
                    problems=error.problems if isinstance(error, FieldsError) else (),
                )

        return answer
