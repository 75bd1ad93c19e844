"""Files of rows, and whole bodies of requests as HTTP takes them, beside options.

An option that is given wins over the same field of the file; all others are the file's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dubito.api.border.fields import ARRAYS, named, names_of
from dubito.cli.console import read_rows


def overlay(
    schema: type[object], path: Path | None, options: Mapping[str, object]
) -> dict[str, object]:
    """The fields of a file and of options; the rows alone, where they lie in a `.npz`.

    Args:
        schema: that of the body over HTTP.
        path: a file of rows, or of a whole body; None: there is none.
        options: those that were given, by field; those of other schemas are passed over.

    Raises:
        InputError: the file cannot be read.
    """
    names = names_of(schema)
    fields = {} if path is None else read_file(path)
    if path is not None and path.suffix == ".npz":  # maybe labelled rows: truths are not asked for
        fields = {"inputs": fields["inputs"]}
    return {**fields, **{name: value for name, value in options.items() if name in names}}


def others(schema: type[object], options: Mapping[str, object]) -> dict[str, object]:
    """Return the options that are no fields of a body: model and version."""
    names = names_of(schema)
    return {name: value for name, value in options.items() if name not in names}


def read_file(path: Path) -> dict[str, object]:
    """Read a file of rows, by field: `inputs` alone, or all that a body or an archive holds.

    Raises:
        InputError: it cannot be read, or is an archive with an unknown array.
    """
    rows = read_rows(path)
    if not isinstance(rows, dict):
        return {"inputs": rows}
    if path.suffix == ".json":
        return rows if {"inputs", "pool"} & set(rows) else {"inputs": rows}
    has_inputs = any(name.partition(".")[0] == "inputs" for name in rows)
    return dict(named(rows, ARRAYS)) if has_inputs else {"inputs": rows}
