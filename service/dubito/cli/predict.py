"""`dubito predict`: rows from a file, a table of answers, or JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Annotated

import orjson
import typer

from dubito.api.border.fields import read_fields, rows_or_pool
from dubito.asked import PredictBody, PredictOrder, order_of
from dubito.cli.answers import table_of
from dubito.cli.bodies import others, overlay
from dubito.cli.console import application, finish, local_caller, messages, output
from dubito.cli.jobs import follow, write_result
from dubito.cli.options import Chosen, request_options
from dubito.cli.running import predicted
from dubito.columns import to_json
from dubito.engine import Sampling
from dubito.errors import InputError
from dubito.jobs.results import check_format


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
    page = predicted(model, chosen.get("version"), fields) or _predicted_here(order)
    if as_json:
        typer.echo(to_json(page))
        return
    plain = orjson.loads(to_json(page))
    output().print(table_of(plain["outputs"]))
    for warning in plain["warnings"]:
        messages().print(f"warning: {warning}")


def _predicted_here(order: PredictOrder) -> Mapping[str, object]:
    """The reply of this process, with columns as they are."""
    with application(call=_size(order)) as running:
        reply = finish(running.ask(order), "predicting")
    return {**reply.head(), "outputs": reply.outputs}


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
        asked = order_of(PredictOrder, order, format=format)
        accepted = running.jobs.predict(asked, local_caller())
        write_result(running, follow(running, accepted).id, out)
