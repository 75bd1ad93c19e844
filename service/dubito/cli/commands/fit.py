"""`dubito fit`: what a further method learns of the rows of a file, or of a stored pool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer

from dubito.api.border.fields import read_fields
from dubito.asked_fits import FitBody, FitOrder, fit_order
from dubito.cli.bodies import others
from dubito.cli.commands.jobs import follow
from dubito.cli.console import application, local_actor, local_caller, output, read_rows
from dubito.cli.labelled import ModelArgument, read_labelled
from dubito.cli.options import Chosen, request_options
from dubito.cli.tables import SUFFIXES, TensorsOption
from dubito.columns import to_json
from dubito.errors import InputError


@request_options(FitOrder, but=("model", "inputs", "labels", "targets", "preprocess", "actor"))
def fit(
    model: ModelArgument,
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Rows in a .npy or .json file or a table, or a .npz file with inputs and maybe "
            "labels or targets."
        ),
    ] = None,
    chosen: Chosen,
    tensors: TensorsOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fit a further method to rows, and make the result active."""
    rows = {} if data is None else _rows(data, tensors)
    beside = {name: value for name, value in chosen.items() if name != "version"}
    body = read_fields(FitBody, {**rows, **{k: v for k, v in beside.items() if k != "model"}})
    if (body.inputs is None) == (body.pool is None):
        raise InputError("expected --data FILE or --pool NAME, got both or neither: choose one")
    order = fit_order(body, model=model, actor=local_actor(), **others(FitBody, chosen))
    with application() as running:
        accepted = running.jobs.fit(order, local_caller())
        job = follow(running, accepted).id
        result = orjson.loads(b"".join(running.jobs.result(job)[1]))
    if as_json:
        typer.echo(to_json(result))
        return
    output().print(
        f"{result['model']} version {result['version']}: fit {result['fit']} of"
        f" {result['method']}, active"
    )
    report = dict(result["report"])
    certificate = report.pop("certificate", None)
    ways = report.pop("ways", ())
    for name, value in report.items():
        output().print(f"{name}: {_shown(value)}", soft_wrap=True)
    if certificate is not None:
        _print_certificate(certificate)
    for way in ways:
        times = ", ".join(f"{ms:.3g} ms for {rows}" for rows, ms in way["milliseconds"].items())
        output().print(
            f"  {way['method']} T = {way['num_samples']}, sites {way['sites']}: error of the mean"
            f" {way['error_of_mean']:.3g}, Spearman {way['spearman']:.3f}, {times} rows",
            soft_wrap=True,
        )
    for warning in result["warnings"]:
        output().print(warning, soft_wrap=True)


def _print_certificate(certificate: dict[str, object]) -> None:
    """How far the head and the passes agree: a line for each kind of rows."""
    rows = {kind: found for kind, found in certificate.items() if isinstance(found, dict)}
    output().print(
        f"agreement with T = {certificate['num_samples']} on {certificate['num_rows']} held-out"
        " rows and on corrupted copies of them:",
        soft_wrap=True,
    )
    for kind, found in rows.items():
        figures = ", ".join(f"{name} {_shown(value)}" for name, value in found.items())
        output().print(f"  {kind}: {figures}", soft_wrap=True)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _rows(path: Path, tensors: bool) -> dict[str, object]:
    """The rows of a file, with their truths where it has any."""
    if path.suffix in (".npz", *SUFFIXES):
        return dict(read_labelled(path, tensors=tensors))
    return {"inputs": read_rows(path), **({"preprocess": False} if tensors else {})}
