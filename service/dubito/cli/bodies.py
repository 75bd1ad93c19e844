"""Files of rows, and whole bodies of requests as HTTP takes them, beside options.

An option that is given wins over the same field of the file; all others are the file's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from dubito.api.arrays import named
from dubito.api.fields import read_fields
from dubito.api.labelled import ARRAYS
from dubito.cli.console import read_rows

Body = TypeVar("Body", bound=BaseModel)


def read_body(schema: type[Body], path: Path | None, options: Mapping[str, object]) -> Body:
    """The fields of a request, as its schema has them.

    Args:
        schema: that of the body over HTTP.
        path: a file of rows, or of a whole body; None: there is none.
        options: fields by name; None where an option is not given.

    Raises:
        InputError: the file cannot be read, or a field is wrong, unknown or missing.
    """
    fields = {} if path is None else read_file(path)
    if path is not None and path.suffix == ".npz":  # maybe labelled rows: truths are not asked for
        fields = {name: rows for name, rows in fields.items() if name in schema.model_fields}
    given = {name: value for name, value in options.items() if value is not None}
    return read_fields(schema, {**fields, **given})


def read_file(path: Path) -> dict[str, object]:
    """What a file of rows says, by field: `inputs` alone, or all that a body or an archive holds.

    Raises:
        InputError: it cannot be read, or is an archive with an unknown array.
    """
    found = read_rows(path)
    if not isinstance(found, dict):
        return {"inputs": found}
    if path.suffix == ".json":
        return found if {"inputs", "pool"} & set(found) else {"inputs": found}
    has_inputs = any(name.partition(".")[0] == "inputs" for name in found)
    return dict(named(found, ARRAYS)) if has_inputs else {"inputs": found}
