"""`dubito predict`: rows from a file, a table of answers, or JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from dubito.api.border.fields import read_fields, rows_or_pool
from dubito.asked import PredictBody, PredictOrder, order_of
from dubito.cli.bodies import others, overlay
from dubito.cli.console import application, finish, local_actor, messages, output
from dubito.cli.jobs import follow, write_result
from dubito.cli.options import Chosen, request_options
from dubito.columns import Column, Packed, to_json
from dubito.engine import Sampling
from dubito.errors import InputError
from dubito.jobs.results import check_format

_SHOWN = (
    *("label", "mean", "standard_error", "predictive_entropy", "mutual_information"),
    *(
        "epistemic_variance",
        "aleatoric_variance",
        "prediction_set",
        "certain_set",
        "interval lower",
    ),
    *("interval upper", "ood p_value", "ood flag"),
)


@request_options(PredictOrder, but=("model", "inputs", "format", "request_id"))
def predict(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    *,
    inputs: Annotated[
        Path | None,
        typer.Option(help="Rows in a .npy, .npz or .json file, or a whole request as .json."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="With --pool: file to write the result to, .npz or .parquet."),
    ] = None,
    chosen: Chosen,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole reply as JSON.")] = False,
) -> None:
    """Predict the rows of a file, or of a stored pool, with their uncertainty."""
    fields = overlay(PredictBody, inputs, chosen)
    body = read_fields(PredictBody, fields)
    if (body.inputs is None) == (body.pool is None) or (body.pool is None) != (out is None):
        raise InputError(
            "expected --inputs FILE, or --pool NAME with --out FILE, got another combination: "
            "choose one of them"
        )
    rows_or_pool(fields)
    order = order_of(PredictOrder, body, model=model, **others(PredictBody, chosen))
    if out is not None:
        _predict_pool(order, out)
        return
    with application(call=_size(order)) as running:
        reply = finish(running.ask(order), "predicting")
    if as_json:
        typer.echo(to_json({**reply.head(), "outputs": reply.outputs}))
        return
    output().print(_table(reply.outputs))
    for warning in reply.warnings:
        messages().print(f"warning: {warning}")


def _size(order: PredictOrder) -> int:
    """Rows x samples of an order, about."""
    inputs = order.inputs
    arrays = inputs.values() if isinstance(inputs, Mapping) else (inputs,)
    rows = max((len(array) for array in arrays if isinstance(array, Sized)), default=1)
    return rows * (order.num_samples or Sampling().num_samples)


def _predict_pool(order: PredictOrder, out: Path) -> None:
    """Run a job on a stored pool, and write its result."""
    format = out.suffix.removeprefix(".")
    check_format(format)
    with application() as running:
        accepted = running.jobs.predict(
            order_of(PredictOrder, order, format=format), actor=local_actor()
        )
        write_result(running, follow(running, accepted).id, out)


def _table(outputs: Mapping[str, Column]) -> Table:
    """One line per row, one column per output of `_SHOWN`: what fits a terminal.

    Raises:
        InputError: nothing of what was asked for does.
    """
    table = Table("row")
    shown: list[list[str]] = []
    for name, column in _flat(outputs):
        if name in _SHOWN:
            table.add_column(name.replace("_", " "), justify="right", overflow="fold")
            shown.append(column)
    if outputs and not shown:
        raise InputError(
            f"a table has one line per row, got {', '.join(outputs)}, which no line holds: ask for "
            "--json"
        )
    for row, cells in enumerate(zip(*shown, strict=True)):
        table.add_row(str(row), *cells)
    return table


def _flat(outputs: Mapping[str, Column]) -> list[tuple[str, list[str]]]:
    flat: list[tuple[str, list[str]]] = []
    for name, column in outputs.items():
        if isinstance(column, Packed):
            if column.is_null.ndim == 1:  # a map does not fit a terminal
                flat.append((name, [_cell(value) for value in column.values()]))
        elif isinstance(column, list):
            flat.append((name, [_cell(value) for value in column]))
        elif isinstance(column, Mapping):
            flat.extend((f"{name} {part}", cells) for part, cells in _flat(column))
        elif isinstance(column, np.ndarray) and column[0].size == 1:
            flat.append((name, [_cell(value) for value in column.reshape(-1).tolist()]))
    return flat


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    if value is None:
        return "null"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
