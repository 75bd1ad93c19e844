"""`dubito calibrate`: fit on the labelled rows of a file."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from dubito.answered import CalibrateReply
from dubito.api.border.fields import read_fields
from dubito.api.pages.calibrations import calibrated_page
from dubito.asked import CalibrateOrder
from dubito.calibration.page import page_of
from dubito.calibration.promised import sentences
from dubito.cli.console import application, finish, local_actor, output
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
from dubito.report import page


@request_options(CalibrateOrder, but=(*OTHERS, "members", "tolerance", "actor"))
def calibrate(
    model: ModelArgument,
    *,
    data: DataOption,
    chosen: Chosen,
    report: ReportOption = None,
    tensors: TensorsOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole reply as JSON.")] = False,
) -> None:
    """Fit a calibration on held-out rows and make it active, unless its fit is worse than none."""
    if report is not None:
        page.check_can_write(report)
    fields = {
        **read_labelled(data, tensors=tensors),
        **chosen,
        "model": model,
        "actor": local_actor(),
    }
    order = read_fields(CalibrateOrder, fields)
    with application() as running:
        reply = finish(running.ask(order), "calibrating")
    if as_json:
        typer.echo(to_json(calibrated_page(reply)))
    else:
        _print(reply)
    if report is not None:
        title = f"{reply.model} version {reply.version}, calibration {reply.calibration}"
        made = page_of(reply.record, title)
        page.write(replace(made, facts={**made.facts, **of_file(data)}), report)


def _print(reply: CalibrateReply) -> None:
    record = reply.record
    told = sentences(record)
    said = "active" if record.is_worth_using else "not active"
    output().print(
        f"{reply.model} version {reply.version}: calibration {reply.calibration}, {said}"
    )
    for sentence in (f"verdict: {told[0]}", *told[1:]):
        output().print(sentence, soft_wrap=True)
    reports = {"before": record.report.before, "after": record.report.after}
    output().print(
        table({name: (figures, record.report.intervals[name]) for name, figures in reports.items()})
    )
    warn((*reply.warnings, *record.warnings))
