"""Records line by line (NDJSON), each a JSON object."""

from __future__ import annotations

from dubito.api.border.bodies import parse_json
from dubito.errors import InputError


def read_records(body: bytes, most_rows: int | None = None) -> list[object]:
    """The objects of all lines; empty lines are passed over.

    Args:
        body: UTF-8, a line for each row.
        most_rows: largest number of lines; None: any.

    Raises:
        InputError: a line is no JSON object, or there are too many.
    """
    num_lines = body.removesuffix(b"\n").count(b"\n") + 1
    if most_rows is not None and num_lines > most_rows:
        raise InputError(
            f"body: expected at most {most_rows} lines, got {num_lines}: send them in several "
            "requests"
        )
    lines = enumerate(body.splitlines(), start=1)
    return [_record(number, line) for number, line in lines if line.strip()]


def _record(number: int, line: bytes) -> object:
    try:
        return parse_json(line)
    except InputError as error:
        raise InputError(f"line {number} of the {error.detail}") from error
