"""`dubito calibrate`: fit on the labelled rows of a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dubito.cli.console import application, finish, local_actor, messages, output, read_arrays
from dubito.errors import InputError
from dubito.serving.orders import CalibrateOrder, SamplingOrder

_NAMES = ("inputs", "labels", "targets", "ood_inputs")


def calibrate(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    data: Annotated[
        Path, typer.Option(help="A .npz file with inputs, labels or targets, maybe ood_inputs.")
    ],
    version: Annotated[str, typer.Option(help="Number or alias.")] = "default",
    alpha: Annotated[float, typer.Option(help="False-alarm rate of the flag.")] = 0.05,
    coverage: Annotated[float, typer.Option(help="Of sets and intervals.")] = 0.9,
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
    num_samples: Annotated[int | None, typer.Option(help="T, masked passes per row.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the masks.")] = None,
) -> None:
    """Fit a calibration on held-out rows and make it active."""
    arrays = read_arrays(data)
    if not isinstance(arrays, dict) or "inputs" not in arrays or not set(arrays) <= set(_NAMES):
        got = ", ".join(arrays) if isinstance(arrays, dict) else "one array"
        raise InputError(
            f"{data}: expected a .npz file with arrays of {', '.join(_NAMES)}, got {got}: "
            "write it with numpy.savez(path, inputs=..., labels=...)"
        )
    order = CalibrateOrder(
        model=model,
        version=version,
        inputs=arrays["inputs"],
        labels=arrays.get("labels"),
        targets=arrays.get("targets"),
        ood_inputs=arrays.get("ood_inputs"),
        alpha=alpha,
        coverage=coverage,
        ood_score=ood_score,
        target_risk=target_risk,
        risk_confidence=risk_confidence,
        target_acceptance=target_acceptance,
        sampling=SamplingOrder(num_samples=num_samples, seed=seed),
        actor=local_actor(),
    )
    with application() as running:
        reply = finish(running.calibrate(order), "calibrating")
    output().print(f"{reply.model} version {reply.version}: calibration {reply.calibration}")
    output().print(_report(reply.document))
    warnings = reply.document.get("warnings", ())
    for warning in warnings if isinstance(warnings, list | tuple) else ():
        messages().print(f"warning: {warning}", markup=False)


def _report(document: Mapping[str, object]) -> Table:
    table = Table("report", "before", "after")
    report = document["report"]
    before, after = (
        (report.get("before", {}), report.get("after", {}))
        if isinstance(report, dict)
        else ({}, {})
    )
    for name in after:
        table.add_row(name, _cell(before.get(name)), _cell(after[name]))
    return table


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
