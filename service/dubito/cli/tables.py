"""Files of tables: rows in, and out again with the answers beside them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from dubito.errors import InputError
from dubito.media import ARROW, CSV, NDJSON, PARQUET, TEXT

if TYPE_CHECKING:  # which imports torch
    from dubito.preprocess import TableFile

SUFFIXES = {
    ".csv": CSV,
    ".parquet": PARQUET,
    ".arrows": ARROW,
    ".ndjson": NDJSON,
    ".jsonl": NDJSON,
    ".txt": TEXT,
}
"""Endings of files of tables, with their media types; `.txt` is a text in each line."""

WRITTEN = (".csv", ".parquet")
TensorsOption = Annotated[
    bool,
    typer.Option(
        "--tensors",
        help="The rows are what the network reads, although the version declares how that is made.",
    ),
]
Columns = dict[str, Sequence[object]]


def read_table(path: Path) -> TableFile | list[Any]:
    """The rows of a file, which become numbers once their model is known.

    Raises:
        InputError: a line of JSON that is none, or no text.
    """
    from dubito.api.border.records import read_records
    from dubito.preprocess import TableFile

    kind, content = SUFFIXES[path.suffix], path.read_bytes()
    try:
        if kind == TEXT:
            return lines_of(content)
        return read_records(content) if kind == NDJSON else TableFile(kind, content)
    except InputError as error:
        raise InputError(f"{path}: {error.detail}") from error


def lines_of(content: bytes) -> list[Any]:
    """The lines of a text, each of which is a row.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        *lines, last = content.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"expected text in UTF-8, got something else ({error}): save it so"
        ) from error
    return [*lines, last] if last else lines


def check_can_write(out: Path) -> None:
    """Refuse a file that answers cannot be written to, before they are made.

    Raises:
        InputError: of another ending, or in a folder that does not exist.
    """
    if out.suffix not in WRITTEN or not out.parent.is_dir():
        raise InputError(
            f"--out expects a .csv or .parquet file in a folder that exists, got {out}: correct it"
        )


def write_answers(
    out: Path,
    rows: Path | None,
    outputs: Mapping[str, object],
    classes: Sequence[str] | None,
    files: Sequence[object] | None = None,
) -> None:
    """Write a table with a line for each row: its own columns, and then the answers.

    Args:
        out: `.csv` or `.parquet`.
        rows: file of the rows; one that is no table gives no columns.
        outputs: of the reply, as JSON has them.
        classes: of the network.
        files: names of the rows, where they are images.
    """
    columns = _columns(rows) if rows is not None and rows.suffix in SUFFIXES else {}
    if files is not None:
        columns["file"] = files
    for name, cells in _answers(outputs, classes):
        columns[f"predicted_{name}" if name in columns else name] = cells
    if out.suffix == ".csv":
        with out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        return
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({name: list(cells) for name, cells in columns.items()}), out)


def _columns(rows: Path) -> Columns:
    """The columns of a file of rows, with all that was in it."""
    kind = SUFFIXES[rows.suffix]
    if kind == CSV:
        lines = csv.reader(io.StringIO(rows.read_text(encoding="utf-8-sig"), newline=""))
        names, *cells = [line for line in lines if line]
        return dict(zip(names, map(list, zip(*cells, strict=True)), strict=True))
    if kind == TEXT:
        return {"text": lines_of(rows.read_bytes())}
    if kind == NDJSON:
        records = read_table(rows)
        assert isinstance(records, list)
        names = list(dict.fromkeys(name for record in records for name in record))
        return {name: [record.get(name) for record in records] for name in names}
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(rows) if kind == PARQUET else pa.ipc.open_stream(rows).read_all()
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _answers(
    outputs: Mapping[str, object], classes: Sequence[str] | None, prefix: str = ""
) -> Iterator[tuple[str, Sequence[object]]]:
    """One column per number of a row, and one per set; null columns are left out."""
    for name, column in outputs.items():
        if isinstance(column, Mapping):
            yield from _answers(column, classes, f"{prefix}{name}_")
        elif isinstance(column, list):
            yield from _spread(f"{prefix}{name}", column, classes)


def _spread(
    name: str, column: list[object], classes: Sequence[str] | None
) -> Iterator[tuple[str, Sequence[object]]]:
    widths = {len(cell) if isinstance(cell, list) else None for cell in column}
    (width,) = widths if len(widths) == 1 else (None,)
    parts = [part for cell in column if isinstance(cell, list) for part in cell]
    if width and all(isinstance(part, int | float | None) for part in parts):
        places = classes if classes is not None and len(classes) == width else range(width)
        for index, place in enumerate(places):
            own = name if width == 1 else f"{name}_{place}"
            yield own, [cell[index] for cell in column if isinstance(cell, list)]
    else:
        yield name, [_cell(cell) for cell in column]


def _cell(cell: object) -> object:
    """Names of a set with a bar between them; what is nested deeper as JSON."""
    if not isinstance(cell, list):
        return cell
    if all(isinstance(part, str) for part in cell):
        return " | ".join(cell)
    return orjson.dumps(cell).decode()
