"""`dubito evaluate`: judge a version on the labelled rows of a file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from dubito.api.replies import sampling_fields, to_json
from dubito.asked import EvaluateOrder, EvaluateReply, SamplingOrder
from dubito.cli.console import application, finish, output
from dubito.cli.labelled import LabelsAreOption, read_labelled, table, warn
from dubito.errors import InputError
from dubito.report import Evaluation, Intervals, Report, page


def evaluate(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    data: Annotated[
        Path,
        typer.Option(help="A .npz file with inputs, labels or targets, and optionally ood_inputs."),
    ],
    version: Annotated[str, typer.Option(help="Version, by number or alias.")] = "default",
    coverage: Annotated[
        float | None,
        typer.Option(help="Coverage of sets and intervals. Default: that of the calibration."),
    ] = None,
    calibration: Annotated[
        str, typer.Option(help="Calibration to apply: active or none.")
    ] = "active",
    labels_are: LabelsAreOption = None,
    num_samples: Annotated[int | None, typer.Option(help="T, masked passes per row.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the masks.")] = None,
    draw: Annotated[
        str | None, typer.Option(help="How masks are drawn: stratified or iid.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Method: mc, point, moments or ensemble.")
    ] = None,
    members: Annotated[
        str | None, typer.Option(help="Versions of the ensemble, separated by commas: 1,2,best.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write figures and pictures to this file, as one HTML page.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Judge a version on labelled rows; nothing is changed."""
    if calibration not in ("active", "none"):
        raise InputError(f"`calibration` expects active or none, got {calibration}")
    if report is not None:
        page.check_can_write(report)
    arrays = read_labelled(data)
    order = EvaluateOrder(
        model=model,
        version=version,
        inputs=arrays["inputs"],
        labels=arrays.get("labels"),
        targets=arrays.get("targets"),
        ood_inputs=arrays.get("ood_inputs"),
        labels_are=labels_are,
        coverage=coverage,
        calibration=cast(Literal["active", "none"], calibration),
        sampling=SamplingOrder(
            num_samples=num_samples,
            seed=seed,
            draw=draw,
            method=method,
            members=None if members is None else members.split(","),
        ),
        compare=not as_json or report is not None,
    )
    with application() as running:
        reply = finish(running.evaluate(order), "evaluating")
    if as_json:
        typer.echo(to_json(_plain(reply)))
    else:
        _print(reply)
    if report is not None:
        page.write(_page(reply), report)


def _print(reply: EvaluateReply) -> None:
    output().print(f"{reply.model} version {reply.version}: {reply.num_rows} rows")
    output().print(table(_columns(reply)))
    warn(reply.warnings)


def _columns(reply: EvaluateReply) -> dict[str, tuple[Report, Intervals]]:
    return {heading: (one.report, one.intervals) for heading, one in _evaluations(reply).items()}


def _evaluations(reply: EvaluateReply) -> dict[str, Evaluation]:
    own = "raw" if reply.calibration is None else f"calibration {reply.calibration}"
    raw = {} if reply.raw is None else {"raw": reply.raw}
    return {**raw, own: reply.evaluation}


def _page(reply: EvaluateReply) -> page.Page:
    facts = sampling_fields(reply.sampling, reply.members)
    return page.Page(
        title=f"{reply.model} version {reply.version}",
        facts={
            "labelled rows": str(reply.num_rows),
            "calibration": "none" if reply.calibration is None else str(reply.calibration),
            **({} if reply.coverage is None else {"coverage": f"{reply.coverage:g}"}),
            **{name.replace("_", " "): str(value) for name, value in facts.items() if value},
        },
        reports=_evaluations(reply),
        coverage=reply.coverage,
        warnings=reply.warnings,
    )


def _plain(reply: EvaluateReply) -> dict[str, object]:
    return {
        "model": reply.model,
        "version": reply.version,
        **sampling_fields(reply.sampling, reply.members),
        "calibration": reply.calibration,
        "coverage": reply.coverage,
        "num_rows": reply.num_rows,
        "report": reply.evaluation.report,
        "intervals": reply.evaluation.intervals,
        "curves": asdict(reply.evaluation.curves),
        "warnings": reply.warnings,
    }
