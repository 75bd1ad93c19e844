"""`/openapi.json` states what routes read and answer; `declared.py` holds replies against it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from dubito.api import routes

from .declared import JSON, described

PROBLEM = {"$ref": "#/components/schemas/ProblemPage"}


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in described()["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


@pytest.mark.parametrize("module", [module.name for module in iter_modules(routes.__path__)])
def test_the_routes_of_every_file_are_served(module: str) -> None:
    router: APIRouter = import_module(f"{routes.__name__}.{module}").router
    paths = {route.path for route in router.routes if isinstance(route, APIRoute)}
    assert paths
    assert paths <= described()["paths"].keys(), "name the file in `every` of api/factory.py"


def every_value(value: object, key: str) -> Iterator[Any]:
    """All values under a key, however deep they stand."""
    if isinstance(value, dict):
        if key in value:
            yield value[key]
        for part in value.values():
            yield from every_value(part, key)
    elif isinstance(value, list):
        for part in value:
            yield from every_value(part, key)


@pytest.mark.parametrize(("name", "operation"), [*operations()])
def test_a_route_states_each_reply(name: str, operation: dict[str, Any]) -> None:
    replies = operation["responses"]
    answers = [status for status in replies if status.startswith("2")]
    assert answers
    for status in answers:
        content = replies[status].get("content", {})
        assert status == "204" or content, status
        for kind, entry in content.items():
            schema = entry.get("schema") or entry["itemSchema"]
            is_named = "$ref" in schema or "anyOf" in schema
            assert is_named if kind == JSON else schema["type"] in ("string", "object"), status
    for status in ("4XX", "422", "5XX"):
        assert replies[status]["content"][JSON]["schema"] == PROBLEM
    assert operation["summary"]
    assert operation["description"].endswith(".")


def test_every_reference_leads_to_a_schema() -> None:
    schemas = described()["components"]["schemas"]
    named = set(every_value(described(), "$ref"))
    assert len(named) > 40
    assert named <= {f"#/components/schemas/{name}" for name in schemas}


def test_every_field_of_a_page_and_every_parameter_says_what_it_means() -> None:
    schemas = described()["components"]["schemas"]
    for name, schema in schemas.items():
        for field, value in schema.get("properties", {}).items():
            means = schemas[value["$ref"].rpartition("/")[2]] if "$ref" in value else value
            assert means.get("description", "").endswith("."), f"{name}.{field}"
    for name, operation in operations():
        for parameter in operation.get("parameters", []):
            assert parameter["description"].endswith("."), name


def test_a_route_with_a_version_takes_it_and_says_what_the_other_says() -> None:
    paths = described()["paths"]
    for path in [path for path in paths if "/versions/{version}/" in path]:
        plain = paths.get(path.replace("/versions/{version}", ""))
        for method, operation in paths[path].items() if plain else ():
            parameters = operation["parameters"]
            assert [one["name"] for one in parameters[:2]] == ["model", "version"]
            assert plain[method]["parameters"] == [parameters[0], *parameters[2:]]
            for part in ("summary", "description", "requestBody"):
                assert plain[method].get(part) == operation.get(part)
            both = (plain[method]["responses"], operation["responses"])
            assert len({tuple(every_value(replies, "$ref")) for replies in both}) == 1
