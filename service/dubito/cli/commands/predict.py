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
from dubito.cli.commands.jobs import follow, write_result
from dubito.cli.console import application, finish, kept, local_caller, messages, output
from dubito.cli.options import Chosen, request_options
from dubito.cli.pictures import read_pictures
from dubito.cli.running import predicted
from dubito.cli.tables import TensorsOption, check_can_write, write_answers
from dubito.columns import to_json
from dubito.engine import Sampling
from dubito.errors import InputError
from dubito.jobs.results import check_format
from dubito.preprocess import TableFile, is_archive


@request_options(PredictOrder, but=("model", "inputs", "format", "request_id", "preprocess"))
def predict(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    rows: Annotated[
        list[Path] | None,
        typer.Argument(
            help="File of rows, as --inputs; or several images; - reads a text from each line that "
            "comes in."
        ),
    ] = None,
    *,
    inputs: Annotated[
        Path | None,
        typer.Option(
            help="Rows in a .npy, .npz or .json file, a table (.csv, .parquet, .arrows, .ndjson), "
            "a .txt with a text in each line, an image, a folder, .zip or .tar of images, or a "
            "whole request as .json."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write the answers to, beside the columns of a table: .csv or .parquet. "
            "With --pool: .npz or .parquet."
        ),
    ] = None,
    chosen: Chosen,
    tensors: TensorsOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole reply as JSON.")] = False,
) -> None:
    """Predict the rows of a file, or of a stored pool, with their uncertainty."""
    if rows and inputs is not None:
        raise InputError("expected one file of rows, got two: leave out --inputs")
    files = rows or ([] if inputs is None else [inputs])
    asked = {**chosen, **({"preprocess": False} if tensors else {})}
    file = files[0] if len(files) == 1 else None
    fields = overlay(PredictBody, file, asked)
    if len(files) > 1:
        fields = {"inputs": read_pictures(files), **fields}
    body = read_fields(PredictBody, fields)
    if (body.inputs is None) == (body.pool is None) or (body.pool is not None and out is None):
        raise InputError(
            "expected --inputs FILE, or --pool NAME with --out FILE, got another combination: "
            "choose one of them"
        )
    rows_or_pool(fields)
    order = order_of(PredictOrder, body, model=model, **others(PredictBody, chosen))
    if out is not None and body.pool is not None:
        _predict_pool(order, out)
        return
    if out is not None:
        check_can_write(out)
    page = predicted(model, chosen.get("version"), fields) or _predicted_here(order)
    if as_json:
        typer.echo(to_json(page))
        return
    plain = orjson.loads(to_json(page))
    if out is None:
        output().print(table_of(plain["outputs"], plain.get("ids")))
    else:
        names = plain.get("ids") if is_archive(order.inputs) else None
        write_answers(out, file, plain["outputs"], _classes(order), names)
        messages().print(f"written to {out}")
    for warning in plain["warnings"]:
        messages().print(f"warning: {warning}")


def _predicted_here(order: PredictOrder) -> Mapping[str, object]:
    """The reply of this process, with columns as they are."""
    with application(call=_size(order)) as running:
        reply = finish(running.ask(order), "predicting")
    return {**reply.head(), "outputs": reply.outputs}


def _classes(order: PredictOrder) -> list[str] | None:
    """Names of the classes of a version."""
    with kept() as known:
        names = known.registry.version(order.model, order.version).manifest.get("classes")
    return names if isinstance(names, list) else None


def _size(order: PredictOrder) -> int:
    """Rows x samples of an order, about."""
    inputs = order.inputs
    if is_archive(inputs):
        return order.num_samples or Sampling().num_samples  # images take longer than what is chosen
    if isinstance(inputs, TableFile):
        inputs = inputs.content.splitlines()
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
