"""Bodies of tables: files that are read once their model is known, and records line by line."""

from __future__ import annotations

from dubito.api.border.records import read_records
from dubito.api.intake import Received
from dubito.media import NDJSON
from dubito.preprocess import TableFile


def read_table(received: Received) -> list[object] | TableFile:
    """The rows of a body that is a table.

    Raises:
        InputError: a line is no JSON object, or there are too many.
    """
    settings = received.held.settings
    if received.kind == NDJSON:
        return read_records(received.body, settings.max_rows)
    return TableFile(received.kind, received.body, settings.max_body_bytes)
