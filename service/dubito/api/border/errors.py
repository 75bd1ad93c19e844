"""The one body of every error: RFC 9457 fields, `error` and `request_id`.

`{"type","title","status","detail","error","request_id"}`, with `"fields": [{"path","message"}]`
where single fields were refused.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated

import orjson
from pydantic import BaseModel, Field, ValidationError
from starlette.responses import Response

from dubito.errors import DubitoError, InputError
from dubito.problems import read_problems

if TYPE_CHECKING:  # FastAPI is not imported for a command
    from fastapi.exceptions import RequestValidationError

_TYPE = "urn:dubito:error:"
_MAX_PROBLEMS = 10
_MAX_WORDS = 300


@dataclass(frozen=True)
class FieldProblem:
    """The problem of one field; `path` is written with dots."""

    path: Annotated[str, Field(description="Where the field is, with dots.")]
    message: Annotated[str, Field(description="What is wrong with it.")]


class ProblemPage(BaseModel):
    """The body of every error (RFC 9457)."""

    type: str = Field(description="A name of the kind of error that does not change.")
    title: str = Field(description="The kind of error in words.")
    status: int = Field(description="The status of the reply.")
    detail: str = Field(description="What was expected, what came, and what to do about it.")
    error: str = Field(description="The same as `detail`, for clients that read this field.")
    request_id: str = Field(description="Identifier of the request, which the log has too.")
    fields: list[FieldProblem] = Field(default=[], description="The fields that were refused.")


class FieldsError(InputError):
    """Single fields of a request were refused."""

    kind = "fields"

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        self.problems = tuple(
            FieldProblem(problem.path[:_MAX_WORDS], problem.message[:_MAX_WORDS])
            for problem in problems[:_MAX_PROBLEMS]
        )
        told = "; ".join(f"`{problem.path}`: {problem.message}" for problem in self.problems)
        more = len(problems) - len(self.problems)
        super().__init__(f"{told}; and {more} more" if more else told)


def fields_error(
    error: ValidationError | RequestValidationError,
    *,
    where: str = "",
    known: Collection[str] = (),
) -> FieldsError:
    """A refusal from pydantic or FastAPI in our words.

    Args:
        error: what was raised.
        where: what the fields belong to, such as `query`; put before their paths.
        known: names of the fields that there are.
    """
    return FieldsError(
        [
            FieldProblem(".".join(filter(None, (where, path))) or "body", message)
            for path, message in read_problems(error.errors(), known)
        ]
    )


def error_response(error: DubitoError, request_id: str) -> Response:
    """The answer to an error.

    Args:
        error: its class says the status; the plain `DubitoError` is answered without its detail.
        request_id: id of the request.
    """
    detail = error.detail if type(error) is not DubitoError else "internal error"
    return problem_response(
        status=error.status,
        title=error.title,
        kind=error.kind,
        detail=detail,
        request_id=request_id,
        problems=error.problems if isinstance(error, FieldsError) else (),
        headers=_headers(error),
    )


def problem_response(
    *,
    status: int,
    title: str,
    kind: str,
    detail: str,
    request_id: str,
    problems: Sequence[FieldProblem] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    """An error body with its status."""
    page = ProblemPage(
        type=_TYPE + kind,
        title=title,
        status=status,
        detail=detail,
        error=detail,
        request_id=request_id,
        fields=list(problems),
    )
    body = orjson.dumps(page.model_dump(exclude_defaults=True))
    return Response(body, status, headers=headers, media_type="application/json")


def status_response(
    status: int, detail: str, request_id: str, headers: dict[str, str] | None = None
) -> Response:
    """An error that the router itself found: unknown path, method not allowed."""
    title = HTTPStatus(status).phrase.lower()
    return problem_response(
        status=status,
        title=title,
        kind=title.replace(" ", "-"),
        detail=detail,
        request_id=request_id,
        headers=headers,
    )


def _headers(error: DubitoError) -> dict[str, str]:
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return headers
