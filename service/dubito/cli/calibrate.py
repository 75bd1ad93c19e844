"""`dubito calibrate`: fit on the labelled rows of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dubito.asked import CalibrateOrder, SamplingOrder
from dubito.calibration.choices import IntervalsName, ScalingName, SetsName
from dubito.calibration.page import page_of
from dubito.cli.console import application, finish, local_actor, output
from dubito.cli.labelled import LabelsAreOption, read_labelled, table, warn
from dubito.report import page


def calibrate(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    data: Annotated[
        Path,
        typer.Option(help="A .npz file with inputs, labels or targets, and optionally ood_inputs."),
    ],
    version: Annotated[str, typer.Option(help="Version, by number or alias.")] = "default",
    alpha: Annotated[float, typer.Option(help="False-alarm rate of the flag.")] = 0.05,
    coverage: Annotated[float, typer.Option(help="Coverage of sets and intervals.")] = 0.9,
    scaling: Annotated[
        ScalingName | None, typer.Option(help="Classification: what is fitted to the logits.")
    ] = None,
    sets: Annotated[
        SetsName | None,
        typer.Option(help="Classification: score that orders the classes of a set."),
    ] = None,
    per_class: Annotated[
        bool | None,
        typer.Option(
            "--per-class", help="Classification: make the coverage hold for each class on its own."
        ),
    ] = None,
    intervals: Annotated[
        IntervalsName | None, typer.Option(help="Regression: what intervals are built around.")
    ] = None,
    ood_score: Annotated[
        str | None, typer.Option(help="Score of the flag, or auto to choose it on ood_inputs.")
    ] = None,
    target_risk: Annotated[
        float | None, typer.Option(help="Maximum share of errors among accepted rows.")
    ] = None,
    risk_confidence: Annotated[
        float | None, typer.Option(help="Confidence of --target-risk. Default: 0.95.")
    ] = None,
    target_acceptance: Annotated[
        float | None, typer.Option(help="Minimum share of rows that are accepted.")
    ] = None,
    position_share: Annotated[
        float | None,
        typer.Option(help="Share of a row's labels or positions that its sets must hold at once."),
    ] = None,
    noise_precision: Annotated[
        float | None, typer.Option(help="Regression that predicts means alone: 1 / noise variance.")
    ] = None,
    labels_are: LabelsAreOption = None,
    num_samples: Annotated[int | None, typer.Option(help="T, masked passes per row.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the masks.")] = None,
    masks: Annotated[str | None, typer.Option(help="Masks: shared or independent.")] = None,
    draw: Annotated[
        str | None, typer.Option(help="How masks are drawn: stratified or iid.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Method: mc, point or moments.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write figures and pictures to this file, as one HTML page.")
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
        page.write(page_of(found, title), report)
