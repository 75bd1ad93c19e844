"""Bodies of labelled rows: JSON; or a `.npz` or a table, the other fields being the query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from dubito.api.border.bodies import parse_json
from dubito.api.border.fields import ARRAYS, named, no_query, read_fields, read_query
from dubito.api.intake import Received
from dubito.api.tables import read_table
from dubito.arrays import read_npz
from dubito.media import JSON, NPZ, ROWS

Options = TypeVar("Options")

KINDS = (JSON, NPZ, *ROWS)


def read_labelled(
    received: Received, body: type[Options], options: type[Options]
) -> tuple[Options, Mapping[str, object]]:
    """The fields of a body, and its rows where they are not among them.

    Args:
        received: the body.
        body: all fields as JSON.
        options: the fields of the query beside a `.npz` or a table.

    Raises:
        FieldsError: a field or an array is wrong, unknown or missing.
        InputError: a body that cannot be read.
    """
    if received.kind == JSON:
        no_query(received.query)
        return read_fields(body, parse_json(received.body, received.held.settings.max_rows)), {}
    fields = read_query(options, received.query)
    if received.kind in ROWS:
        return fields, {"inputs": read_table(received)}
    return fields, named(read_npz(received.body, received.held.settings.max_body_bytes), ARRAYS)
