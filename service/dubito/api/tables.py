"""Bodies of tables: files that are read once their model is known, and records line by line."""

from __future__ import annotations

from dubito.api.border.access import Access
from dubito.api.border.records import read_records
from dubito.api.intake import Received
from dubito.media import NDJSON
from dubito.preprocess import TableFile


def read_table(received: Received) -> list[object] | TableFile:
    """The rows of a body that is a table.

    Raises:
        InputError: a line is no JSON object, or there are too many.
    """
    return table_of(received.held, received.kind, received.body)


def table_of(held: Access, kind: str, body: bytes) -> list[object] | TableFile:
    """The same of a body by its content type.

    Args:
        held: the settings, which bound it.
        kind: one of `ROWS`.
        body: all of it.

    Raises:
        InputError: as `read_table`.
    """
    if kind == NDJSON:
        return read_records(body, held.settings.max_rows)
    return TableFile(kind, body, held.settings.max_body_bytes)
