"""`dubito select`: the rows of a file to label next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import orjson
import typer
from numpy.typing import NDArray
from rich.table import Table

from dubito.acquisition.order import DEFAULT_CANDIDATES
from dubito.api.replies import to_json
from dubito.api.schemas import SelectBody
from dubito.cli.bodies import read_body, read_file
from dubito.cli.console import application, finish, local_actor, output, read_rows
from dubito.cli.jobs import follow
from dubito.errors import InputError


def select(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    strategy: Annotated[
        str | None, typer.Option(help="Strategy of the choice, such as batchbald.")
    ] = None,
    k: Annotated[int | None, typer.Option("-k", "--k", help="Number of rows to choose.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Rows to choose from in a .npy, .npz or .json file, or a whole request as .json."
        ),
    ] = None,
    pool: Annotated[
        str | None, typer.Option(help="Name of a stored pool, in place of a file.")
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
    version: Annotated[str, typer.Option(help="Version, by number or alias.")] = "default",
    num_samples: Annotated[int | None, typer.Option(help="T, masked passes per row.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the masks and of the choice.")] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            help="Maximum number of rows that a joint strategy compares. Default: "
            f"{DEFAULT_CANDIDATES}."
        ),
    ] = None,
    per_class: Annotated[
        int | None, typer.Option(help="Maximum number of chosen rows of one predicted class.")
    ] = None,
    diversity: Annotated[
        int | None,
        typer.Option(help="Spread the k rows over the features of the best diversity x k rows."),
    ] = None,
    minimize: Annotated[
        bool | None, typer.Option(help="Optimisation: small values are good.")
    ] = None,
    incumbent: Annotated[
        float | None, typer.Option(help="Optimisation: the best value so far.")
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(
            help="Weight of the variance in the confidence bound, or exponent of power_bald."
        ),
    ] = None,
    xi: Annotated[
        float | None,
        typer.Option(help="Optimisation: smallest improvement that counts. Default: 0."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole reply as JSON.")] = False,
) -> None:
    """Choose the rows of a file to label next."""
    body = read_body(
        SelectBody,
        data,
        {
            "strategy": strategy,
            "k": k,
            "pool": pool,
            "targets": None if targets is None else _rows_alone(targets),
            "exclude": None if exclude is None else _indices(exclude),
            "num_samples": num_samples,
            "seed": seed,
            "candidates": candidates,
            "per_class": per_class,
            "diversity": diversity,
            "maximize": None if minimize is None else not minimize,
            "incumbent": incumbent,
            "beta": beta,
            "xi": xi,
        },
    )
    if (body.inputs is None) == (body.pool is None):
        raise InputError("expected --data FILE or --pool NAME, got both or neither: choose one")
    order = body.select_order(model, version, body.inputs, body.targets)
    with application() as running:
        if body.pool is None:
            head = orjson.loads(to_json(finish(running.select(order), "choosing").head()))
        else:
            accepted = running.jobs.select(order, body.pool, actor=local_actor())
            head = orjson.loads(b"".join(running.jobs.result(follow(running, accepted).id)[1]))
    if as_json:
        typer.echo(to_json(head))
        return
    table = Table("row", "score", title=f"{body.strategy}, {head['candidates']} candidates")
    for index, score in zip(head["indices"], head["scores"], strict=True):
        table.add_row(str(index), f"{score:.4g}")
    output().print(table)


def _rows_alone(path: Path) -> object:
    fields = read_file(path)
    if set(fields) != {"inputs"}:
        raise InputError(f"{path}: expected rows alone, got {', '.join(fields)}: leave others out")
    return fields["inputs"]


def _indices(text: str) -> list[int]:
    """Indices from a list with commas, or from a `.npy` file."""
    if text.endswith(".npy"):
        found = read_rows(Path(text))
        if isinstance(found, np.ndarray) and found.ndim == 1 and found.dtype.kind in "iu":
            indices: NDArray[np.generic] = found
            return list(indices.tolist())
        raise InputError(f"{text}: expected a list of integers, got something else: save indices")
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InputError(
            f"--exclude expects indices with commas or a .npy file, got {text[:40]!r}: such as 3,17"
        ) from error
