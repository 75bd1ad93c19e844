"""`dubito calibrate`: fit on the labelled rows of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dubito.asked import CalibrateOrder, SamplingOrder
from dubito.calibration.choices import IntervalsName, ScalingName, SetsName
from dubito.cli.console import application, finish, local_actor, output
from dubito.cli.labelled import LabelsAreOption, read_labelled, table, warn
from dubito.report import page


def calibrate(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    data: Annotated[
        Path, typer.Option(help="A .npz file with inputs, labels or targets, maybe ood_inputs.")
    ],
    version: Annotated[str, typer.Option(help="Number or alias.")] = "default",
    alpha: Annotated[float, typer.Option(help="False-alarm rate of the flag.")] = 0.05,
    coverage: Annotated[float, typer.Option(help="Of sets and intervals.")] = 0.9,
    scaling: Annotated[
        ScalingName | None, typer.Option(help="Classification: fitted to the logits.")
    ] = None,
    sets: Annotated[SetsName | None, typer.Option(help="Classification: score of sets.")] = None,
    per_class: Annotated[
        bool | None,
        typer.Option("--per-class", help="Classification: coverage for each class on its own."),
    ] = None,
    intervals: Annotated[
        IntervalsName | None, typer.Option(help="Regression: built around this.")
    ] = None,
    ood_score: Annotated[
        str | None, typer.Option(help="Score of the flag, or auto: chosen on ood_inputs.")
    ] = None,
    target_risk: Annotated[
        float | None, typer.Option(help="Most share of wrong ones among accepted rows.")
    ] = None,
    risk_confidence: Annotated[
        float | None, typer.Option(help="With which that is promised; 0.95.")
    ] = None,
    target_acceptance: Annotated[
        float | None, typer.Option(help="Least share of rows that is accepted.")
    ] = None,
    position_share: Annotated[
        float | None,
        typer.Option(help="Several labels or positions per row: share that its sets hold at once."),
    ] = None,
    noise_precision: Annotated[
        float | None, typer.Option(help="Regression of means alone: 1 / noise variance.")
    ] = None,
    labels_are: LabelsAreOption = None,
    num_samples: Annotated[int | None, typer.Option(help="T, masked passes per row.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the masks.")] = None,
    masks: Annotated[str | None, typer.Option(help="shared or independent.")] = None,
    draw: Annotated[str | None, typer.Option(help="stratified or iid.")] = None,
    method: Annotated[str | None, typer.Option(help="mc, point or moments.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write figures and pictures there, as one HTML file.")
    ] = None,
) -> None:
    """Fit a calibration on held-out rows and make it active, unless its fit is worse than none."""
    if report is not None:
        page.check_can_write(report)
    arrays = read_labelled(data)
    order = CalibrateOrder(
        model=model,
        version=version,
        inputs=arrays["inputs"],
        labels=arrays.get("labels"),
        targets=arrays.get("targets"),
        ood_inputs=arrays.get("ood_inputs"),
        labels_are=labels_are,
        alpha=alpha,
        coverage=coverage,
        scaling=scaling,
        sets=sets,
        per_class=per_class,
        intervals=intervals,
        ood_score=ood_score,
        target_risk=target_risk,
        risk_confidence=risk_confidence,
        target_acceptance=target_acceptance,
        position_share=position_share,
        noise_precision=noise_precision,
        sampling=SamplingOrder(
            num_samples=num_samples, seed=seed, masks=masks, draw=draw, method=method
        ),
        actor=local_actor(),
    )
    with application() as running:
        reply = finish(running.calibrate(order), "calibrating")
    found = reply.record
    said = "active" if found.is_worth_using else "not active"
    output().print(
        f"{reply.model} version {reply.version}: calibration {reply.calibration}, {said}"
    )
    output().print(f"verdict: {found.verdict}", soft_wrap=True)
    reports = {"before": found.report.before, "after": found.report.after}
    output().print(
        table({name: (one, found.report.intervals[name]) for name, one in reports.items()})
    )
    warn(found.warnings)
    if report is not None:
        title = f"{reply.model} version {reply.version}, calibration {reply.calibration}"
        page.write(page.of_calibration(found, title), report)
