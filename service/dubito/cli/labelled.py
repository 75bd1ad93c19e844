"""What `calibrate` and `evaluate` share: labelled rows of a file, figures in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dubito import disk
from dubito.api.border.errors import FieldsError
from dubito.api.border.fields import ARRAYS, named
from dubito.cli.console import messages, read_arrays
from dubito.cli.pictures import is_pictures, read_pictures
from dubito.cli.tables import SUFFIXES, read_table
from dubito.errors import InputError
from dubito.report import Intervals, Report

ModelArgument = Annotated[str, typer.Argument(help="Name of the model.")]
DataOption = Annotated[
    Path,
    typer.Option(
        help="A .npz file with inputs, labels or targets, and optionally ood_inputs; a table with "
        "--label; or a folder, .zip or .tar of images, in a folder for each label."
    ),
]
ReportOption = Annotated[
    Path | None, typer.Option(help="Write figures and pictures to this file, as one HTML page.")
]
OTHERS = ("model", *ARRAYS, "preprocess")
"""Fields that are no options: the argument, and what the file holds."""


def read_labelled(path: Path, *, tensors: bool) -> Mapping[str, object]:
    """The arrays of a `.npz` file of labelled rows, by field; or a table, or images.

    Args:
        path: the file.
        tensors: whether the rows are what the network reads.

    Raises:
        InputError: it is none, has no inputs, or holds something else as well.
    """
    beside = {"preprocess": False} if tensors else {}
    if path.suffix in SUFFIXES:
        return {"inputs": read_table(path), **beside}
    if is_pictures(path):
        return {"inputs": read_pictures([path]), **beside}
    arrays, remedy = read_arrays(path), "numpy.savez(path, inputs=..., labels=...)"
    if not isinstance(arrays, dict):
        raise InputError(f"{path}: expected a .npz file, got one array: write it with {remedy}")
    try:
        return {**named(arrays, ARRAYS), **beside}
    except FieldsError as error:
        raise InputError(
            f"{path}: expected a .npz file, {error.detail}: write it with {remedy}"
        ) from error


def of_file(path: Path) -> dict[str, str]:
    """What a report says of its labelled rows and of itself: file, digest and date."""
    return {
        "file": path.name if path.is_dir() else f"{path.name}, sha256 {disk.digest(path)}",
        "made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }


def table(columns: Mapping[str, tuple[Report, Intervals]]) -> Table:
    """A line per figure, and beside each figure its interval.

    Args:
        columns: reports with their intervals, by heading.
    """
    shown = Table("report")
    for heading in columns:
        shown.add_column(heading, justify="right")
        shown.add_column("95 %")
    for name in next(iter(columns.values()))[0]:
        cells = [
            (_cell(report.get(name)), _interval(intervals.get(name)))
            for report, intervals in columns.values()
        ]
        shown.add_row(name, *(cell for pair in cells for cell in pair))
    return shown


def warn(warnings: Sequence[str]) -> None:
    """A line per warning."""
    for warning in warnings:
        messages().print(f"warning: {warning}")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4g} .. {interval[1]:.4g}"
