"""From rows as people have them to the arrays that a network reads.

Flow: what is sent → a frame of the columns that the parts need, and of those that are carried along
→ each part makes its inputs → arrays, which are then checked as all rows are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from dubito.errors import InputError, UnsupportedMediaTypeError
from dubito.media import JSON, TABLES, TEXT
from dubito.preprocess.array import ArrayKind
from dubito.preprocess.files import TableFile
from dubito.preprocess.frames import Frame, read_frame
from dubito.preprocess.images.bounds import ImageBounds
from dubito.preprocess.images.kind import ImageKind
from dubito.preprocess.part import PartKind, Rows
from dubito.preprocess.table import TableKind
from dubito.preprocess.text import TextKind
from dubito.preprocess.texts import Texts, guessed
from dubito.preprocess.wanted import Cells, check_names
from dubito_nn import Manifest
from dubito_nn.manifest import named_modules
from dubito_nn.preprocess import ArrayInput, ImageInput, Part, TextInput
from dubito_nn.preprocess.parts import Seen

_TEXTS = TextKind()
KINDS: dict[str, PartKind[Part]] = {
    "table": TableKind(),  # type: ignore[dict-item]  # each is asked of its own parts alone
    "array": ArrayKind(),  # type: ignore[dict-item]
    "image": ImageKind(),  # type: ignore[dict-item]
    "text": _TEXTS,  # type: ignore[dict-item]
}


_BY_COLUMN = ("table", "text")


@dataclass(frozen=True)
class Prepared:
    """Rows that were prepared.

    Args:
        arrays: by input.
        warnings: for the caller.
        beside: the cells of columns that were carried along, by name.
    """

    arrays: Mapping[str, Rows]
    warnings: tuple[str, ...] = ()
    beside: Mapping[str, list[object]] = field(default_factory=dict)


def ready(manifest: Manifest) -> None:
    """Make now what the first rows would else wait for.

    Raises:
        InputError: what a bundle holds for it cannot be used.
    """
    for part in manifest.preprocess or ():
        if isinstance(part, TextInput):
            _TEXTS.ready(part)


def is_made(inputs: object) -> bool:
    """Whether rows are what a network reads already: tensors of torch by input."""
    return (
        isinstance(inputs, Mapping)
        and bool(inputs)
        and all(isinstance(rows, Tensor) for rows in inputs.values())
    )


def read_columns(rows: object, names: Sequence[str], most_rows: int) -> dict[str, list[object]]:
    """Columns of a table of which nothing is declared, as they are.

    Args:
        rows: records, columns, a DataFrame or a file.
        names: of the columns.
        most_rows: largest number of rows.

    Raises:
        InputError: no such table.
    """
    columns = read_frame(rows, names, most_rows).columns
    return {name: _listed(columns[name]) for name in names}


def image_input(manifest: Manifest) -> str | None:
    """The input that is made of an image, and is the only one; None where there is none."""
    match manifest.preprocess:
        case (ImageInput() as part,):
            return str(part.input)
    return None


def check_columns(names: Sequence[str], manifest: Manifest) -> bool:
    """Whether the manifest declares columns of a table, or of texts, which must be among these.

    Args:
        names: of the columns, or arrays, that there are.
        manifest: of a network that declares how its inputs are made.

    Raises:
        InputError: one is missing.
    """
    parts = manifest.preprocess or ()
    if not any(part.kind in _BY_COLUMN for part in parts):
        return False
    check_names(names, [name for part in parts for name in KINDS[part.kind].needs(part)])
    return True


def prepare(
    inputs: object,
    manifest: Manifest,
    *,
    beside: Sequence[str] = (),
    most_rows: int | None = None,
    bounds: ImageBounds | None = None,
    seen: Mapping[str, Seen] | None = None,
) -> Prepared:
    """The inputs of a network that declares how they are made.

    Args:
        inputs: rows as people have them: records, columns, a DataFrame, a file, or arrays.
        manifest: of the network.
        beside: names of columns that are carried along.
        most_rows: largest number of rows of a table; None: any.
        bounds: of images; None: those of Pillow.
        seen: ranges of arrays that were seen besides the example of the export, by input.

    Raises:
        InputError: rows that cannot be used, with column, row and remedy.
        TooLargeError: a file, or an image, that becomes too large.
    """
    parts = manifest.preprocess
    assert parts is not None
    needed = [(part, KINDS[part.kind].needs(part)) for part in parts]
    names = [*(name for _, columns in needed for name in columns), *beside]
    alone = _rows_alone(inputs, parts)
    if alone is not None:
        if beside:
            raise InputError(
                f"`{beside[0]}` expects a table with such a column, got rows alone: leave it out"
            )
        frame = Frame(alone, (), 0)
    else:
        if isinstance(inputs, TableFile) and inputs.kind == TEXT:
            raise UnsupportedMediaTypeError(
                f"content type: expected {' or '.join((JSON, *TABLES))}, got {TEXT}: this version "
                "reads more than one text"
            )
        _refuse_tensors(inputs, manifest, names)
        images = [str(part.input) for part in parts if isinstance(part, ImageInput)]
        frame = read_frame(inputs, names, most_rows, images)
    warnings: list[str] = []
    if frame.others:
        others = named_modules([f"`{name[:60]}`" for name in frame.others])
        warnings.append(f"columns that the model does not read: {others}")
    if frame.gaps:
        gaps = ", ".join(f"`{name[:60]}` in {count}" for name, count in frame.gaps.items())
        warnings.append(f"columns that some rows do not name, taken as empty there: {gaps}"[:600])
    specs = {spec.name: spec for spec in manifest.inputs}
    arrays: dict[str, Rows] = {}
    for part, columns in needed:
        own = {name: frame.columns[name] for name in columns}
        kind: PartKind[Part] = KINDS[part.kind]
        if bounds is not None and isinstance(part, ImageInput):
            kind = ImageKind(bounds)  # type: ignore[assignment]
        if seen and isinstance(part, ArrayInput):
            kind = ArrayKind(seen)  # type: ignore[assignment]
        arrays |= kind.make(part, own, specs, warnings)
    carried = {name: _listed(frame.columns[name]) for name in beside}
    return Prepared(arrays, tuple(warnings), carried)


def _refuse_tensors(inputs: object, manifest: Manifest, names: Sequence[str]) -> None:
    """Refuse what has the names of the inputs, where a table has others.

    Raises:
        InputError: it is sent as the network reads it.
    """
    own = [spec.name for spec in manifest.inputs]
    if isinstance(inputs, Mapping) and {*inputs} == {*own} and not {*names} <= {*own}:
        raise InputError(
            f"`inputs` expects the columns that the bundle declares, got the network's own inputs "
            f"{own}: tensors need `preprocess` false"
        )


def _rows_alone(inputs: object, parts: Sequence[Part]) -> Mapping[str, Cells] | None:
    """Rows of the only part, without its name; None where they are a table, or named."""
    part = parts[0]
    if len(parts) > 1 or isinstance(inputs, Mapping):
        return None
    if isinstance(part, TextInput):
        return _TEXTS.rows_alone(part, inputs)
    is_records = isinstance(inputs, list) and bool(inputs) and isinstance(inputs[0], Mapping)
    if part.kind == "table" or is_records or isinstance(inputs, TableFile):
        return None
    return {KINDS[part.kind].needs(part)[0]: inputs}  # type: ignore[dict-item]


def _listed(cells: Cells) -> list[object]:
    if isinstance(cells, Texts):
        return guessed(cells)
    return list(cells.tolist() if isinstance(cells, np.ndarray) else cells)
