"""The parts of a prediction as one file: `.npz`, or `.parquet` with pyarrow.

Parts are read one at a time, so that a result of any length needs the memory of one part. The same
parts give the same bytes.

Dimensions: N rows of the pool.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from dubito.arrays import Arrays, write_header, write_npy
from dubito.errors import InputError
from dubito.media import NPZ, PARQUET

MEDIA_TYPES = {"npz": NPZ, "parquet": PARQUET}
_PIECE_BYTES = 8 * 2**20
_HEAD = "reply"  # the name of what the columns were made with
_CLASSES = "classes"  # names of what the last axis of their arrays stands for


def check_format(format: str) -> None:
    """Refuse a format of results that cannot be written here.

    Raises:
        InputError: it is unknown, or pyarrow is missing.
    """
    if format not in MEDIA_TYPES:
        raise InputError(f"`format`: expected npz or parquet, got {format[:40]!r}: choose one")
    if format == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ModuleNotFoundError as error:
            raise InputError(
                "`format`: parquet expects pyarrow, which is not installed here: ask for npz, or "
                "pip install 'dubito[parquet]' on the server"
            ) from error


def write_result(
    parts: Iterable[Arrays],
    head: Mapping[str, object],
    format: str,
    total: int,
    path: Path,
    classes: Sequence[str] | None = None,
) -> None:
    """Write the parts of a job as one file.

    Args:
        parts: columns of some rows after the others.
        head: what they were made with.
        format: `npz` or `parquet`.
        total: N.
        path: of the file; others are made beside it meanwhile.
        classes: names of the classes or labels, the array `classes` of a `.npz`, or that in the
            metadata of a `.parquet`.
    """
    if format == "parquet":
        _write_parquet(parts, head, path, classes)
    else:
        _write_npz(parts, head, total, path, classes)


def _write_npz(
    parts: Iterable[Arrays],
    head: Mapping[str, object],
    total: int,
    path: Path,
    classes: Sequence[str] | None,
) -> None:
    kinds: dict[str, NDArray[np.generic]] = {}
    raw_paths: dict[str, Path] = {}
    try:
        for arrays in parts:
            for name, array in arrays.items():
                kinds.setdefault(name, array[:0])
                raw_path = raw_paths.setdefault(
                    name, path.with_name(f"{len(raw_paths)}.{path.name}")
                )
                with raw_path.open("ab") as file:
                    file.write(np.ascontiguousarray(array).data)  # tofile hides why it fails
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, raw_path in raw_paths.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    shape = (total, *kinds[name].shape[1:])
                    write_header(member, kinds[name].dtype.str, shape)
                    with raw_path.open("rb") as file:
                        while piece := file.read(_PIECE_BYTES):
                            member.write(piece)
            if classes is not None:
                with archive.open(zipfile.ZipInfo(f"{_CLASSES}.npy"), "w") as member:
                    member.write(write_npy(np.array(classes)))
            said = np.frombuffer(orjson.dumps(dict(head)), np.uint8)
            with archive.open(zipfile.ZipInfo(f"{_HEAD}.npy"), "w") as member:
                member.write(write_npy(said))
    finally:
        for raw_path in raw_paths.values():
            raw_path.unlink(missing_ok=True)


def _write_parquet(
    parts: Iterable[Arrays],
    head: Mapping[str, object],
    path: Path,
    classes: Sequence[str] | None,
) -> None:
    import pyarrow as pa
    from pyarrow import parquet as pq

    metadata = {"dubito": orjson.dumps(dict(head))}
    if classes is not None:
        metadata[_CLASSES] = orjson.dumps(list(classes))
    writer: pq.ParquetWriter | None = None
    try:
        for arrays in parts:
            names = list(arrays)
            batch = pa.table([_cells(array) for array in arrays.values()], names=names)
            batch = batch.replace_schema_metadata(metadata)
            if writer is None:
                writer = pq.ParquetWriter(path, batch.schema, compression="zstd")
            writer.write_table(batch)
    finally:
        if writer is not None:
            writer.close()


def _cells(array: NDArray[np.generic]) -> object:
    """An array as a column; what has more axes as lists of equal length."""
    import pyarrow as pa

    made = pa.array(np.ascontiguousarray(array).reshape(-1))
    for size in reversed(array.shape[1:]):
        made = pa.FixedSizeListArray.from_arrays(made, size)
    return made
