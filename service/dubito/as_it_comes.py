"""Fields of a request that are not looked at when it is read: rows and truths, however large."""

from __future__ import annotations

from copy import deepcopy
from typing import Annotated, TypeAlias

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from dubito.engine import Inputs
from dubito.preprocess import TableFile

_ARRAY: dict[str, object] = {"type": "array", "items": {}}


class _AsItComes:
    """A value that is not looked at here, however large: it is checked by who reads it.

    Args:
        schema: what JSON may say.
    """

    def __init__(self, schema: dict[str, object]) -> None:
        self._schema = schema

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.any_schema()

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, object]:
        return deepcopy(self._schema)  # what is returned is changed by pydantic


_ROWS = _AsItComes(
    {
        "anyOf": [
            {**_ARRAY, "description": "Nested lists, rows first; records of a table; or texts."},
            {"type": "object", "additionalProperties": _ARRAY},
        ]
    }
)
RowsField: TypeAlias = Annotated[Inputs | TableFile, _ROWS]
MaybeRowsField: TypeAlias = Annotated[Inputs | None, _ROWS]
ArrayField: TypeAlias = Annotated[object, _AsItComes(_ARRAY)]
