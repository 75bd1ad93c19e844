"""`dubito bench`: latency and standard error of a bundle over T, to choose T by."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import torch
import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from dubito.api.border.fields import read_fields
from dubito.asked import EvaluateOrder, PredictBody, SamplingOptions, own_fields
from dubito.bench import BenchOrder, Step, Study, StudyRows, study
from dubito.bench.latency import Latency
from dubito.bench.picture import check_can_draw, draw
from dubito.cli.bodies import overlay, read_file
from dubito.cli.console import messages, output, progress
from dubito.cli.options import Chosen, declared_options, request_options
from dubito.engine import Engine, Inputs
from dubito.errors import InputError
from dubito.preprocess import TableFile
from dubito.serving.labelled import LabelledRows
from dubito.serving.rows import ReadRows, read_rows
from dubito.settings import Settings

_MEASURED = ("inputs", "num_samples", "seed", "masks", "draw")  # of a request
_COLUMNS = (
    SpinnerColumn(),
    TextColumn("{task.description:<20}", markup=False),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
)


@dataclass(frozen=True)
class BenchedOn:
    """Where a bundle is measured, and how it computes there."""

    device: Annotated[str | None, typer.Option(help="Device to run on: cpu, cuda or cuda:1.")] = (
        None
    )
    threads: Annotated[
        int | None, typer.Option(help="Number of threads that torch uses.", min=1)
    ] = None
    precision: Annotated[
        str,
        typer.Option(help="Precision of the passes: float32, bfloat16, or on a GPU tf32."),
    ] = "float32"


@declared_options(BenchedOn, into="on")
@request_options(
    BenchOrder, but=("num_samples", "method", "members", "tolerance", "sites", "fallback")
)
def bench(
    bundle: Annotated[Path, typer.Argument(help="The bundle, a .dubito file.")],
    *,
    inputs: Annotated[
        Path | None,
        typer.Option(
            help="Rows in a .npy, .npz or .json file, or a request for predict; labelled rows in a "
            ".npz file are judged as well. Default: dummy rows."
        ),
    ] = None,
    budget_ms: Annotated[
        float | None, typer.Option(help="Time budget: name the largest T that stays within it.")
    ] = None,
    chosen: Chosen,
    on: Chosen,
    json_: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the figures to this file, as SVG.")
    ] = None,
) -> None:
    """Measure latency and standard error of a bundle over T."""
    asked = _asked(inputs, chosen)
    order = read_fields(BenchOrder, {**own_fields(asked, SamplingOptions), **chosen})
    if picture is not None:
        check_can_draw()
    benched = BenchedOn(**on)
    if benched.threads is not None:
        torch.set_num_threads(benched.threads)
    with progress(f"reading {bundle.name}"):
        engine = _engine(bundle, benched, order)
        pool = StudyRows.of(engine, cast("Inputs | None", asked.inputs))
        labelled = _labelled(engine, inputs, order.rows)
    with _steps() as step:
        measured = study(engine, pool, order, step, labelled)
    _print(measured, budget_ms)
    page = {**measured.to_json(), **_deviation(engine)}
    if json_ is not None:
        json_.write_text(json.dumps(page, indent=1) + "\n")
    if picture is not None:
        draw(measured, picture)


def _deviation(engine: Engine) -> dict[str, object]:
    """Say how far figures are from those in float32; what the file says of it."""
    if engine.deviation is None:
        return {}
    figures, precision = engine.deviation.figures, engine.defaults.precision
    said = ", ".join(f"{name} {_number(value)}" for name, value in figures.items())
    output().print(f"{precision}: from float32 on dummy rows at most {said}", soft_wrap=True)
    return {"precision": precision, "deviation": figures}


def _asked(path: Path | None, chosen: Chosen) -> PredictBody:
    """The rows, and the sampling of a whole request.

    Raises:
        InputError: it asks for what is not measured.
    """
    asked = read_fields(PredictBody, overlay(PredictBody, path, chosen))
    defaults = own_fields(PredictBody())
    others = [
        name
        for name, value in sorted(own_fields(asked).items())
        if name not in _MEASURED and value != defaults[name]
    ]
    if others:
        raise InputError(
            f"bench expects {', '.join(_MEASURED)} of a request, got {', '.join(others)} as well: "
            "leave out what it does not measure"
        )
    return asked


def _labelled(engine: Engine, path: Path | None, most: int) -> LabelledRows | None:
    """The first labelled rows of a `.npz` file; None where it has no truths.

    Raises:
        InputError: rows or truths that cannot be used.
    """
    fields = read_file(path) if path is not None and path.suffix == ".npz" else {}
    if not {"labels", "targets"} & fields.keys():
        return None
    some = {name: _first(value, most) for name, value in fields.items()}

    def read(rows: Inputs | TableFile, beside: Sequence[str]) -> ReadRows:
        return read_rows(engine, rows, sys.maxsize, beside=beside)

    order = read_fields(EvaluateOrder, {"model": "", **some})
    return LabelledRows.read(order, engine, read)


def _first(value: object, most: int) -> object:
    if isinstance(value, Mapping):
        return {name: _first(part, most) for name, part in value.items()}
    return value[:most]  # type: ignore[index]


def _engine(bundle: Path, on: BenchedOn, order: BenchOrder) -> Engine:
    settings = Settings()
    name = on.device or settings.used_devices[0]
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"`device` expects one that torch finds, got {name}: {reason}") from error
    return Engine.load(
        bundle,
        device=name,
        seed=order.seed or 0,
        masks=order.masks or "shared",
        draw=order.draw or "stratified",
        memory_budget_bytes=settings.memory_budget_bytes,
        timing_limit_s=None,
        precision=on.precision,  # type: ignore[arg-type]  # refused where it is none
        max_deviation=settings.max_deviation,
    )


@contextmanager
def _steps() -> Iterator[Step]:
    """A bar per part of the study."""
    console = messages()
    with Progress(*_COLUMNS, console=console, disable=not console.is_terminal) as bar:
        tasks = {}

        def step(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = bar.add_task(title)
            bar.update(tasks[title], completed=done, total=total)

        yield step


def _print(measured: Study, budget_ms: float | None) -> None:
    console = output()
    console.print(_errors(measured))
    console.print(_times(measured))
    if measured.agreements:
        console.print(_agreements(measured))
    for line in _explained(measured):
        console.print(line, soft_wrap=True)
    refusals = [(str(method.method), method.refused) for method in measured.methods]
    refusals += [(f"sites {one.choice}", one.refused) for one in measured.agreements]
    for name, refused in refusals:
        if refused is not None:
            console.print(f"{name}: {refused}", soft_wrap=True)
    if budget_ms is not None:
        for batch in _batches(measured):
            console.print(_advice(measured, batch, budget_ms), soft_wrap=True)


def _errors(measured: Study) -> Table:
    table = Table("T", "standard error, median", "standard error, largest", "actual error")
    for accuracy in measured.accuracies:
        stated = (accuracy.standard_error_median, accuracy.standard_error_max)
        table.add_row(str(accuracy.num_samples), *map(_number, (*stated, accuracy.error)))
    for method in measured.methods:
        if method.refused is None:
            table.add_row(method.method, "", "", _number(method.error))
    return table


def _times(measured: Study) -> Table:
    batches = _batches(measured)
    table = Table("T", *(f"B = {batch}" for batch in batches))
    for first in measured.latencies:
        if first.batch == batches[0]:
            name = str(first.num_samples) if first.method == "mc" else first.method
            name += "" if first.sites == "all" else f", sites {first.sites}"
            which = (first.method, first.num_samples, first.sites)
            cells = (measured.at(batch, *which) for batch in batches)
            table.add_row(name, *map(_time, cells))
    return table


def _agreements(measured: Study) -> Table:
    names = ("rank, epistemic", "rank, total", "mean error", "NLL", "AUROC, errors", "AUROC, ood")
    table = Table("sites", "sampled", *names)
    for one in measured.agreements:
        if one.refused is None:
            ranks = map(_exact, (one.rank_epistemic, one.rank_total))
            judged = map(_exact, (one.nll, one.auroc_errors, one.auroc_strange))
            error = _number(one.mean_error)
            table.add_row(one.choice, str(one.sampled), *ranks, error, *judged)
    return table


def _explained(measured: Study) -> list[str]:
    lines = [
        "times: minimum / median of a call in ms (minimum over that of one plain forward pass),"
        " in turn with calls of the other lines; warm: minimum of calls one after the other, as"
        " a server makes them"
    ]
    if measured.reference_error is not None:
        lines.append(
            f"actual error: root mean square of the mean on {measured.num_rows} rows, against"
            f" T = {measured.reference:,} (itself good to {measured.reference_error:.2g})"
        )
    lines += [
        f"{method.method}: standard deviation wrong by {method.deviation_error:.1%}"
        for method in measured.methods
        if method.deviation_error is not None
    ]
    if measured.agreements:
        lines.append(
            f"sites: T = {measured.compared_t}, against all sites; rank correlation of the"
            " epistemic and of the total uncertainty, mean absolute error of the mean"
        )
    if measured.is_made_up:
        lines.append("rows: dummy rows; give --inputs for errors on rows of your own")
    return lines


def _advice(measured: Study, batch: int, budget_ms: float) -> str:
    best = measured.largest_within(batch, budget_ms / 1e3)
    if best is None:
        return f"B = {batch}: no T that was tried answers within {budget_ms:g} ms"
    return (
        f"B = {batch}: T = {best.num_samples} answers within {budget_ms:g} ms, standard error"
        f" {best.standard_error_median:.2g} (median), {best.standard_error_max:.2g} (largest)"
    )


def _batches(measured: Study) -> list[int]:
    return sorted({latency.batch for latency in measured.latencies})


def _time(latency: Latency) -> str:
    shown = f"{1e3 * latency.minimum_s:.3g} / {1e3 * latency.median_s:.3g}"
    return f"{shown} ({latency.forwards:.1f}x), warm {1e3 * latency.warm_s:.3g}"


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
