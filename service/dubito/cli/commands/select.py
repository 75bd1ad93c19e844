"""`dubito select`: the rows of a file to label next."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import orjson
import typer
from numpy.typing import NDArray
from rich.table import Table

from dubito.api.border.fields import read_fields
from dubito.asked import SelectBody, SelectOrder, order_of
from dubito.cli.bodies import others, overlay, read_file
from dubito.cli.commands.jobs import follow
from dubito.cli.console import (
    application,
    finish,
    local_caller,
    messages,
    output,
    read_rows,
)
from dubito.cli.options import Chosen, declared_options, request_options
from dubito.cli.tables import TensorsOption
from dubito.cluster.installed import check_installed
from dubito.columns import to_json
from dubito.errors import InputError

if TYPE_CHECKING:
    from dubito.jobs.scan import Searchers


@dataclass(frozen=True)
class How:
    """How a selection is made and shown."""

    tensors: TensorsOption = False
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole reply as JSON.")] = False
    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Search a stored pool by the workers of a Ray cluster: that of RAY_ADDRESS, else "
            "one that runs here, else one that ends with the command.",
        ),
    ] = False


@declared_options(How, into="how")
@request_options(
    SelectOrder, but=("model", "inputs", "targets", "exclude", "maximize", "preprocess")
)
def select(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Rows to choose from in a .npy, .npz or .json file, a table, a folder, .zip or "
            ".tar of images, or a whole request as .json."
        ),
    ] = None,
    targets: Annotated[
        Path | None, typer.Option(help="File of rows like those to be predicted later, for epig.")
    ] = None,
    exclude: Annotated[
        str | None,
        typer.Option(
            help="Indices that are never chosen, separated by commas, or a .npy file of them."
        ),
    ] = None,
    minimize: Annotated[
        bool | None, typer.Option(help="Optimisation: small values are good.")
    ] = None,
    chosen: Chosen,
    how: Chosen,
) -> None:
    """Choose the rows of a file to label next."""
    options = {
        **chosen,
        **({} if targets is None else {"targets": _rows_alone(targets)}),
        **({} if exclude is None else {"exclude": _indices(exclude)}),
        **({} if minimize is None else {"maximize": not minimize}),
        **({"preprocess": False} if how["tensors"] else {}),
    }
    body = read_fields(SelectBody, overlay(SelectBody, data, options))
    if (body.inputs is None) == (body.pool is None):
        raise InputError("expected --data FILE or --pool NAME, got both or neither: choose one")
    order = order_of(SelectOrder, body, model=model, **others(SelectBody, chosen))
    if how["ray"]:
        check_installed()
    if how["ray"] and body.pool is None:
        raise InputError("--ray: expected --pool NAME, got rows: `dubito pool add` stores them")
    with application() as running, _searchers(is_wanted=how["ray"]) as searchers:
        if body.pool is None:
            head = orjson.loads(to_json(finish(running.ask(order), "choosing").head()))
        else:
            accepted = running.jobs.select(order, local_caller(), goes_on=True)
            if accepted.done:
                messages().print(
                    f"job {accepted.id} goes on, of which {accepted.done} of {accepted.total} rows "
                    "are done",
                    soft_wrap=True,
                )
            head = orjson.loads(
                b"".join(running.jobs.result(follow(running, accepted, searchers).id)[1])
            )
    if how["as_json"]:
        typer.echo(to_json(head))
        return
    ids = {body.id_column or "file": head["ids"]} if "ids" in head else {}
    table = Table("row", "score", *ids, title=f"{body.strategy}, {head['candidates']} candidates")
    for index, score, *own in zip(head["indices"], head["scores"], *ids.values(), strict=True):
        table.add_row(str(index), f"{score:.4g}", *map(str, own))
    output().print(table)


@contextmanager
def _searchers(*, is_wanted: bool) -> Iterator[Searchers | None]:
    """The workers of a cluster, where they are wanted."""
    if not is_wanted:
        yield None
        return
    from dubito.cluster.joining import check_storage, joined
    from dubito.cluster.searching import ClusterSearch
    from dubito.settings import Settings

    settings = Settings()
    with redirect_stdout(sys.stderr), joined(None) as cluster:  # Ray tells on the first what died
        check_storage(settings, cluster)
        found = ClusterSearch(settings, cluster)
        found.check_room()
        yield found


def _rows_alone(path: Path) -> object:
    fields = read_file(path)
    if set(fields) != {"inputs"}:
        raise InputError(f"{path}: expected rows alone, got {', '.join(fields)}: leave others out")
    return fields["inputs"]


def _indices(text: str) -> list[int]:
    """Indices from a list with commas, or from a `.npy` file."""
    if text.endswith(".npy"):
        rows = read_rows(Path(text))
        if isinstance(rows, np.ndarray) and rows.ndim == 1 and rows.dtype.kind in "iu":
            indices: NDArray[np.generic] = rows
            return list(indices.tolist())
        raise InputError(f"{text}: expected a list of integers, got something else: save indices")
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InputError(
            f"--exclude expects indices with commas or a .npy file, got {text[:40]!r}: such as 3,17"
        ) from error
