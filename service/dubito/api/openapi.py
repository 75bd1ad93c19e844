"""What `/openapi.json` says of a route, and routes that exist with and without a version.

Routes read their bodies themselves and write their replies themselves, so that large arrays are
neither checked nor copied on the way. What FastAPI would see in their signatures is said here: the
schemas of bodies, of the query beside a binary body, and of every reply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias, TypeVar

from fastapi import Path, Request
from pydantic import TypeAdapter

from dubito.api.border.auth import KEY_SCHEME
from dubito.api.border.errors import ProblemPage
from dubito.api.pages.work import AcceptedPage
from dubito.media import JSON
from dubito.names import DEFAULT_ALIAS, NAME_PATTERN

Described: TypeAlias = dict[str, Any]  # a part of an OpenAPI document, as FastAPI types them
Responses: TypeAlias = dict[int | str, Described]
Route = TypeVar("Route", bound=Callable[..., object])

_REFERENCE = "#/components/schemas/{model}"
BINARY: Described = {"schema": {"type": "string", "format": "binary"}}
_PROBLEM: Described = {
    "model": ProblemPage,
    "description": "The request is refused, or cannot be answered.",
}
PROBLEMS: Responses = {"4XX": _PROBLEM, "422": _PROBLEM, "5XX": _PROBLEM}
NOT_MODIFIED: Responses = {304: {"description": "`If-None-Match` holds the `ETag` already."}}
DELETED: Described = {"status_code": 204, "response_description": "It is deleted."}

_NAME = {"pattern": NAME_PATTERN}
ModelName: TypeAlias = Annotated[
    str, Path(description="Name of the model.", json_schema_extra=_NAME)
]
VersionName: TypeAlias = Annotated[
    str, Path(description="Number of the version, or an alias that points to it.")
]
AliasName: TypeAlias = Annotated[
    str, Path(description="Name of the alias.", json_schema_extra=_NAME)
]
PoolName: TypeAlias = Annotated[str, Path(description="Name of the pool.", json_schema_extra=_NAME)]
JobName: TypeAlias = Annotated[str, Path(description="Identifier of the job.")]


_KEY: Described = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key with the scope that the route names, made by `dubito keys create`; "
    "or that of the setting DUBITO_API_KEY, which opens everything.",
}
_VERSION: Described = {
    "name": "version",
    "in": "path",
    "required": True,
    "description": "Number of the version, or an alias that points to it.",
    "schema": {"type": "string"},
}


def both(
    register: Callable[..., Callable[[Route], Route]], action: str, **options: Any
) -> Callable[[Route], Route]:
    """Registers a route for a model, and for one version of it; `asked_version` tells which.

    Args:
        register: such as `router.get`.
        action: last part of the path.
        options: what else `register` takes.
    """
    reads = options.pop("openapi_extra", {})
    of_version = reads | {"parameters": [_VERSION, *reads.get("parameters", ())]}

    def decorate(route: Route) -> Route:
        register(f"/{{model}}/{action}", openapi_extra=reads, **options)(route)
        path = f"/{{model}}/versions/{{version}}/{action}"
        return register(path, openapi_extra=of_version, **options)(route)

    return decorate


def asked_version(request: Request) -> str:
    """The version of the path; without one, what the alias `default` points to."""
    name: str = request.path_params.get("version", DEFAULT_ALIAS)
    return name


def header(name: str, description: str) -> Described:
    """A header that a route reads."""
    text = {"type": "string"}
    return {"name": name, "in": "header", "description": description, "schema": text}


UNLESS_MATCH = header("If-None-Match", "An `ETag` that the caller has; answered with 304 if it is.")
TIMEOUT = header("X-Request-Timeout-Ms", "Milliseconds within which the answer is wanted.")
UNOBSERVED = header(
    "X-Unobserved", "With any value, monitoring neither sees the prediction nor keeps it."
)


def takes(
    body: type[object] | None,
    *binary: str,
    query: type[object] | None = None,
    headers: tuple[Described, ...] = (),
) -> Described:
    """Describe what a route reads, for `openapi_extra`.

    Args:
        body: schema of a JSON body; None where there is none.
        binary: other content types of the body.
        query: schema of the query beside a binary body.
        headers: that the route reads.
    """
    content = dict.fromkeys(binary, BINARY)
    if body is not None:
        content = {
            JSON: {"schema": TypeAdapter(body).json_schema(ref_template=_REFERENCE)},
            **content,
        }
    reads: Described = {"parameters": [*headers, *_parameters(query)]}
    if content:
        reads["requestBody"] = {"required": True, "content": content}
    return reads


def gives(*kinds: str, headers: dict[str, str] | None = None) -> Described:
    """Describe a reply beside its JSON: other content types, and headers with what they mean."""
    reply: Described = {"content": dict.fromkeys(kinds, BINARY)} if kinds else {}
    if headers:
        text = {"type": "string"}
        reply["headers"] = {
            name: {"description": meaning, "schema": text} for name, meaning in headers.items()
        }
    return reply


def event_schema(data: str) -> Described:
    """One server-sent event, whose `data` is the JSON of a page."""
    text = {"type": "string"}
    page = {"contentMediaType": JSON, "contentSchema": {"$ref": _REFERENCE.format(model=data)}}
    return {
        "type": "object",
        "properties": {"event": text, "id": text, "data": text | page},
        "required": ["event", "id", "data"],
    }


ACCEPTED: Responses = {
    202: {
        "model": AcceptedPage,
        "description": "A stored pool makes it a job.",
        **gives(headers={"Location": "Path of the job."}),
    }
}


def _parameters(query: type[object] | None) -> list[Described]:
    """Fields as parameters of a query; lists are written with commas."""
    parameters: list[Described] = []
    if query is None:
        return parameters
    for name, field in TypeAdapter(query).json_schema()["properties"].items():
        kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
        words = ("title", "description", "default")
        kinds = [{key: kind[key] for key in kind if key not in words} for kind in kinds]
        parameters.append(
            {
                "name": name,
                "in": "query",
                "description": f"{field['description']} With a binary body only.",
                "schema": kinds[0] if len(kinds) == 1 else {"anyOf": kinds},
                **({"explode": False} if kinds[0].get("type") == "array" else {}),
            }
        )
    return parameters


def described(derived: Callable[[], Described]) -> Described:
    """The document that FastAPI derives, with the schemas of bodies among its components.

    Args:
        derived: makes it, once.
    """
    document = derived()
    document["components"]["securitySchemes"] = {KEY_SCHEME: _KEY}
    schemas = document["components"]["schemas"]
    for methods in document["paths"].values():
        for operation in methods.values():
            entry = operation.get("requestBody", {}).get("content", {}).get(JSON)
            if entry is not None and "$ref" not in entry["schema"]:
                schema = entry["schema"]
                schemas |= schema.pop("$defs", {}) | {schema["title"]: schema}
                entry["schema"] = {"$ref": _REFERENCE.format(model=schema["title"])}
    return document
