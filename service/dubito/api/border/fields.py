"""Fields of a request, as a schema has them: of a JSON body, a query, or an archive of arrays."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from dubito.api.border.bodies import media_type, parse_json, read_body
from dubito.api.border.errors import FieldProblem, FieldsError, fields_error
from dubito.arrays import Arrays
from dubito.engine.calling.sampling import read_sites
from dubito.errors import InputError
from dubito.media import JSON

Body = TypeVar("Body")
ARRAYS = ("inputs", "labels", "targets", "ood_inputs")
"""Names of the arrays of labelled rows."""

_MAX_UNKNOWN = 10
_ODD_NUMBER = re.compile(r"\s+[+-]?[0-9].*|\+[0-9].*|[+-]?[0-9.]+\s+|-?[0-9]+(_[0-9]+)+", re.DOTALL)
_SMALL_BODY_BYTES = 4096
_LISTS = ("outputs", "members", "exclude", "indices", "label")


def read_fields(schema: type[Body], fields: Mapping[str, object]) -> Body:
    """The fields of a JSON body, types taken strictly.

    Raises:
        FieldsError: a wrong type, an unknown field, or one that is missing.
    """
    unknown = [name for name in fields if name not in names_of(schema)]
    if len(unknown) > _MAX_UNKNOWN:
        raise FieldsError(
            [FieldProblem(unknown[0], f"unknown field, as are {len(unknown) - 1} others")]
        )
    try:
        return schema(**fields)
    except ValidationError as error:
        raise fields_error(error, known=names_of(schema)) from error


def read_order(
    kind: type[Body], schema: type[object], fields: Mapping[str, object], **beside: object
) -> Body:
    """An order of the fields of a JSON body and of what stands beside them, looked at once.

    Args:
        kind: class of the order.
        schema: class of the body, all of whose fields the order has.
        fields: as they were sent.
        beside: model, version and others by name, which no body may have.

    Raises:
        FieldsError: as `read_fields` of the body.
    """
    if not fields.keys() <= names_of(schema):
        read_fields(schema, fields)  # refuses those that are unknown
    try:
        return kind(**fields, **beside)
    except ValidationError as error:
        raise fields_error(error, known=names_of(schema)) from error


async def read_small(request: Request, schema: type[Body]) -> Body:
    """The fields of a JSON body that has no rows.

    Raises:
        UnsupportedMediaTypeError: the body is no JSON.
        TooLargeError: it is longer than any such body need be.
        FieldsError: a wrong type, an unknown field, or one that is missing.
    """
    media_type(request, (JSON,))
    return read_fields(schema, parse_json(await read_body(request, _SMALL_BODY_BYTES, "")))


def rows_or_pool(fields: Mapping[str, object]) -> None:
    """Refuse a body that names both rows and a pool, or neither, or a format of no pool's result.

    Args:
        fields: of a body that was read.

    Raises:
        InputError: naming what to leave out, or what is missing.
    """
    has_rows, pool, format = "inputs" in fields, fields.get("pool"), fields.get("format")
    if not has_rows and pool is None:
        raise FieldsError(
            [FieldProblem("inputs", "expected rows or a `pool`, got neither: add one")]
        )
    if has_rows and pool is not None:
        raise FieldsError(
            [FieldProblem("pool", "expected rows or a pool, got both: leave one out")]
        )
    if pool is None and format is not None:
        raise InputError(
            f"`format` expects a stored `pool`, got `{format}` for rows in the request: ask "
            "for a type of the reply by `Accept`"
        )


def read_query(schema: type[Body], items: list[tuple[str, str]]) -> Body:
    """The fields of a query; lists are written with commas.

    Raises:
        FieldsError: a wrong type, an unknown field, or one given twice.
    """
    fields: dict[str, object] = {}
    for name, text in items:
        if name in fields:
            raise FieldsError(
                [FieldProblem(f"query.{name}", "expected once, got it twice: leave one out")]
            )
        fields[name] = _in_query(name, text)
        if _ODD_NUMBER.fullmatch(text):
            problem = f"expected a number of digits, a point and an exponent, got {text[:80]!r}"
            raise FieldsError([FieldProblem(f"query.{name}", f"{problem}: write it plainly")])
    try:
        return TypeAdapter(schema).validate_python(fields, strict=False)
    except ValidationError as error:
        raise fields_error(error, where="query", known=names_of(schema)) from error


def _in_query(name: str, text: str) -> object:
    if name == "sites":
        return read_sites(text)
    return text.split(",") if name in _LISTS else text


def no_query(items: list[tuple[str, str]]) -> None:
    """Refuse query parameters where a JSON body says all.

    Raises:
        FieldsError: there is one.
    """
    if items:
        problem = "unknown with a JSON body: put it into the body"
        raise FieldsError([FieldProblem(f"query.{name}", problem) for name, _ in items])


def names_of(schema: type[object]) -> frozenset[str]:
    """Names of the fields of a schema, a model or a dataclass of pydantic."""
    return frozenset(schema.__pydantic_fields__)  # type: ignore[attr-defined]


def named(arrays: Arrays, names: tuple[str, ...]) -> dict[str, NDArray[np.generic] | Arrays]:
    """Arrays by field; `inputs.NAME` and the like are gathered to one object.

    What is no field is an input by its own name, where no array is called `inputs`.

    Args:
        arrays: of an archive.
        names: of the fields; `inputs`, the first, has to be there.

    Raises:
        FieldsError: an array of another name, one beside its parts, or no inputs.
    """
    fields: dict[str, NDArray[np.generic] | Arrays] = {}
    for name, array in arrays.items():
        field, dot, part = name.partition(".")
        if field not in names and names[0] not in arrays:  # an input by its own name
            field, dot, part = names[0], ".", name
        if field not in names:
            raise FieldsError([FieldProblem(name[:80], f"unknown array: known are {names}")])
        if dot and field in arrays:
            problem = f"expected `{field}` or parts of it, got both: leave one out"
            raise FieldsError([FieldProblem(name[:80], problem)])
        if not dot:
            fields[field] = array
        else:
            parts = fields.setdefault(field, {})
            assert isinstance(parts, dict)
            if part in parts:
                raise FieldsError(
                    [FieldProblem(name[:80], "expected once, got it twice: leave one out")]
                )
            parts[part] = array
    if "inputs" not in fields:
        raise FieldsError([FieldProblem("inputs", "expected rows, got nothing: add the array")])
    return fields


def unnamed(arrays: Arrays) -> NDArray[np.generic] | Arrays:
    """Rows of an archive that holds nothing else: `inputs`, or inputs as `NAME` or `inputs.NAME`.

    Raises:
        FieldsError: an input twice.
    """
    if list(arrays) == ["inputs"]:
        return arrays["inputs"]
    parts = {name.removeprefix("inputs."): array for name, array in arrays.items()}
    if len(parts) < len(arrays):
        raise FieldsError(
            [FieldProblem("inputs", "expected each input once, got one twice: leave one out")]
        )
    return parts
