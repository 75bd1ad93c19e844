"""`dubito evaluate`: judge a version on the labelled rows of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import typer

from dubito.answered import EvaluateReply, sampling_fields
from dubito.api.border.fields import read_fields
from dubito.asked import EvaluateOrder
from dubito.cli.console import application, finish, output
from dubito.cli.labelled import (
    OTHERS,
    DataOption,
    ModelArgument,
    ReportOption,
    of_file,
    read_labelled,
    table,
    warn,
)
from dubito.cli.options import Chosen, request_options
from dubito.cli.tables import TensorsOption
from dubito.columns import to_json
from dubito.report import Evaluation, Intervals, Report, page


@request_options(EvaluateOrder, but=(*OTHERS, "tolerance", "compare"))
def evaluate(
    model: ModelArgument,
    *,
    data: DataOption,
    chosen: Chosen,
    report: ReportOption = None,
    tensors: TensorsOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Judge a version on labelled rows; nothing is changed."""
    if report is not None:
        page.check_can_write(report)
    compare = not as_json or report is not None
    fields = {**read_labelled(data, tensors=tensors), **chosen, "model": model, "compare": compare}
    order = read_fields(EvaluateOrder, fields)
    with application() as running:
        reply = finish(running.ask(order), "evaluating")
        named = running.library.version(reply.model, str(reply.version)).manifest.get("classes")
    if as_json:
        typer.echo(to_json({**reply.head(), **reply.figures()}))
    else:
        _print(reply)
    if report is not None:
        made = replace(_page(reply, of_file(data)), classes=_classes(reply, named))
        page.write(made, report)


def _classes(reply: EvaluateReply, named: object) -> Sequence[str]:
    """The names of the classes; their numbers where they have none."""
    if isinstance(named, Sequence):
        return [str(name) for name in named]
    return [str(index) for index in range(len(reply.evaluation.confusion))]


def _print(reply: EvaluateReply) -> None:
    output().print(f"{reply.model} version {reply.version}: {reply.num_rows} rows")
    output().print(table(_columns(reply)))
    warn(reply.warnings)


def _columns(reply: EvaluateReply) -> dict[str, tuple[Report, Intervals]]:
    return {
        heading: (evaluation.report, evaluation.intervals)
        for heading, evaluation in _evaluations(reply).items()
    }


def _evaluations(reply: EvaluateReply) -> dict[str, Evaluation]:
    heading = "raw" if reply.calibration is None else f"calibration {reply.calibration}"
    raw = {} if reply.raw is None else {"raw": reply.raw}
    return {**raw, heading: reply.evaluation}


def _page(reply: EvaluateReply, of_rows: Mapping[str, str]) -> page.Page:
    facts = sampling_fields(reply.sampling, reply.members)
    return page.Page(
        title=f"{reply.model} version {reply.version}",
        facts={
            "labelled rows": str(reply.num_rows),
            "calibration": "none" if reply.calibration is None else str(reply.calibration),
            **({} if reply.coverage is None else {"coverage": f"{reply.coverage:g}"}),
            **{name.replace("_", " "): str(value) for name, value in facts.items() if value},
            **of_rows,
        },
        reports=_evaluations(reply),
        coverage=reply.coverage,
        warnings=reply.warnings,
    )
