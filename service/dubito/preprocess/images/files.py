"""Bodies of images as tables: one file, or an archive with a row for each of its files.

The columns of an archive are the image's own, `file`, `label`, which is the folder that a file lies
in, and those of `metadata.csv`, a table whose `file_name` says which row is whose.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import PurePosixPath

from dubito.errors import InputError
from dubito.media import ARCHIVES
from dubito.preprocess.arrow import Found
from dubito.preprocess.files import TableFile
from dubito.preprocess.images.archives import (
    DAMAGE,
    MAX_FILES,
    METADATA,
    Member,
    damaged,
    members_of,
)
from dubito.preprocess.texts import Texts
from dubito.preprocess.wanted import Cells, check_most, check_names

FILE, LABEL = "file", "label"
_FILE_NAME = "file_name"
_OTHERS = 1000  # folders, and files that are passed over


def is_archive(rows: object) -> bool:
    """Whether rows are the files of an archive."""
    return isinstance(rows, TableFile) and rows.kind in ARCHIVES


def read_pictures(
    body: TableFile, wanted: Sequence[str], most_rows: int | None, images: Sequence[str]
) -> Found:
    """The wanted columns of a body of images.

    Args:
        body: of the kind of an image, or of an archive.
        wanted: names of the columns.
        most_rows: largest number of files; None: any.
        images: those of the columns that are images, which is one.

    Raises:
        InputError: damaged, without one of the columns, or for several inputs of images.
        TooLargeError: larger than it may be.
    """
    if len(images) > 1:
        raise InputError(
            f"a body of {body.kind} expects a model of one image, got the inputs {list(images)}: "
            "send JSON with a list of base64 for each"
        )
    if body.kind not in ARCHIVES:
        check_names(images, wanted)
        return {name: [body.content] for name in images}, (), 1
    with io.BytesIO(body.content) as file:
        most_files = MAX_FILES if most_rows is None else most_rows + _OTHERS
        members = members_of(file, body.kind, body.limit_bytes, min(MAX_FILES, most_files))
        columns = columns_of(members, wanted, images)
        check_most(len(files_of(members)), most_rows)
        try:
            contents = [member.read() for member in files_of(members)] if images else []
        except DAMAGE as error:
            raise damaged(error, body.kind) from error
    found: dict[str, Cells] = {**columns, **dict.fromkeys(images, contents)}
    return found, (), len(files_of(members))


def files_of(members: Sequence[Member]) -> list[Member]:
    """Those that are images."""
    return [member for member in members if member.name != METADATA]


def columns_of(
    members: Sequence[Member], wanted: Sequence[str], images: Sequence[str]
) -> dict[str, Cells]:
    """The wanted columns beside the images.

    Raises:
        InputError: one is missing, or a file has no row.
    """
    names = [member.name for member in files_of(members)]
    columns: dict[str, Cells] = {FILE: names}
    folders = [PurePosixPath(name).parent.name for name in names]
    if all(folders):
        columns[LABEL] = folders
    for member in members:
        if member.name == METADATA:
            columns |= _described(member.read(), names)
    check_names([*columns, *images], wanted)
    return {name: columns[name] for name in wanted if name not in images}


def _described(content: bytes, names: Sequence[str]) -> dict[str, Cells]:
    """The columns of a table of the files, in the order of their names."""
    try:
        lines = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        listed = list(lines)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{METADATA}: expected CSV in UTF-8, got others ({str(error)[:120]}): save it so"
        ) from error
    rows = {str(line.get(_FILE_NAME)): line for line in listed}
    for wrong, reason in (
        (len(rows) < len(listed), "each file once, got one twice"),
        (FILE in (lines.fieldnames or ()), f"no column `{FILE}`, which is the name of a file"),
    ):
        if wrong:
            raise InputError(f"{METADATA}: expected {reason}: correct it")
    missing = [name for name in names if name not in rows]
    if missing:
        raise InputError(
            f"{METADATA}: expected a row with the `{_FILE_NAME}` of each file, got none of "
            f"{missing[0][:80]!r}: add it"
        )
    own = [name for name in lines.fieldnames or () if name != _FILE_NAME]
    return {name: Texts(rows[file].get(name) or None for file in names) for name in own}
