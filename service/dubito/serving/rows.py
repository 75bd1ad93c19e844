"""Rows of an order as tensors: as the network reads them, or made as its bundle declares.

Flow: inputs of an order → prepared, where the bundle declares how → the engine's own checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from dubito.engine import Inputs
from dubito.engine.calling.inputs import read_inputs
from dubito.engine.network import Network
from dubito.errors import InputError, UnsupportedMediaTypeError
from dubito.preprocess import ImageBounds, TableFile, is_made, prepare
from dubito_nn.preprocess.parts import Seen

_TRUTHS = {"classification": "labels", "regression": "targets"}


@dataclass(frozen=True)
class ReadRows:
    """Checked rows.

    Args:
        inputs: by input.
        num_rows: B.
        warnings: for the caller.
        beside: cells of columns that were asked for, by name.
    """

    inputs: dict[str, Tensor]
    num_rows: int
    warnings: tuple[str, ...] = ()
    beside: Mapping[str, list[object]] = field(default_factory=dict)


def read_rows(
    network: Network,
    inputs: Inputs | TableFile,
    most_rows: int,
    *,
    preprocess: bool | None = None,
    beside: Sequence[str] = (),
    bounds: ImageBounds | None = None,
    seen: Mapping[str, Seen] | None = None,
) -> ReadRows:
    """Check rows, and make them as the bundle declares.

    Args:
        network: that reads them.
        inputs: as they were sent.
        most_rows: largest number of rows.
        preprocess: false: they are what the network reads.
        beside: columns of a table that are wanted as well.
        bounds: of images.
        seen: ranges of arrays that a calibration saw, by input.

    Raises:
        InputError: rows that cannot be used, or a column of what is no table.
        UnsupportedMediaTypeError: a file of a table for a network that reads arrays.
    """
    manifest = network.manifest
    if manifest.preprocess is None or preprocess is False or is_made(inputs):
        if isinstance(inputs, TableFile):
            raise UnsupportedMediaTypeError(
                f"content type: expected arrays, as JSON, .npy or .npz, got {inputs.kind}: "
                + (
                    "leave out `preprocess`, or send arrays"
                    if preprocess is False
                    else "this version declares no preprocess, which alone makes numbers of a table"
                )
            )
        if beside:
            raise InputError(
                f"a column `{beside[0][:60]}` expects a table, for a version that declares how one "
                "is read, got arrays: leave it out"
            )
        is_plain = manifest.preprocess is None
        tensors = network.read_inputs(
            inputs if is_plain else read_inputs(inputs, manifest.inputs, manifest.free_sizes)
        )
        return ReadRows(tensors, len(next(iter(tensors.values()))))
    made = prepare(inputs, manifest, beside=beside, most_rows=most_rows, bounds=bounds, seen=seen)
    tensors = network.read_inputs(read_inputs(made.arrays, manifest.inputs, manifest.free_sizes))
    return ReadRows(tensors, len(next(iter(tensors.values()))), made.warnings, made.beside)


def truths_of(task: str, rows: ReadRows, columns: Sequence[str]) -> tuple[object, object]:
    """The labels, or the targets, that columns of a table hold; the others None.

    Args:
        task: of the head, `classification` or `regression`.
        rows: with these columns beside them.
        columns: one, or one for each output or label.
    """
    cells = [rows.beside[name] for name in columns]
    truths: object = (
        cells[0] if len(cells) == 1 else [list(row) for row in zip(*cells, strict=True)]
    )
    if _TRUTHS[task] == "labels":
        return truths, None
    try:
        return None, np.array(truths, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None, truths  # refused by who reads truths
