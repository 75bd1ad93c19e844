"""`dubito monitor`: asks the server that runs, since the drift test is in its memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.table import Table

from dubito.cli.commands.device import Model, Url, Version, ask
from dubito.cli.console import output
from dubito.names import DEFAULT_ALIAS


def monitor(
    model: Model,
    version: Version = DEFAULT_ALIAS,
    url: Url = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reply as JSON.")] = False,
) -> None:
    """Show whether a version is still calibrated, and whether its inputs still look as they did."""
    page = ask("GET", ("v1", "models", model, "versions", version, "monitoring"), url)
    if as_json:
        typer.echo(json.dumps(page, indent=2))
        return
    calibration = page["calibration"]
    shown = "no active calibration" if calibration is None else f"calibration {calibration}"
    output().print(f"{model} version {page['version']}: {shown}")
    table = Table(show_header=False, box=None)
    for name, value in (*_outcomes(page["outcomes"]), *_drift(page["drift"])):
        table.add_row(name, value)
    counts = _mapping(page["predictions"])
    table.add_row("predictions", ", ".join(f"{counts[name]} {name}" for name in counts))
    output().print(table)
    alarms = _mapping(page["alarms"])
    for name, since in alarms.items():
        output().print(f"ALARM {name} since {since}")
    if not alarms:
        output().print("no alarm")


def _outcomes(value: object) -> list[tuple[str, str]]:
    outcomes = _mapping(value)
    if not outcomes:
        return []
    lines = [("outcomes", f"{outcomes['rows']}, figures over the last {outcomes['window']}")]
    coverages = outcomes["coverage"]
    for coverage in coverages if isinstance(coverages, list) else ():
        lines.append(("coverage", _rate(coverage, outcomes["promised_coverage"])))
    if outcomes["flag_rate"] is not None:
        lines.append(("flag rate", _rate(outcomes["flag_rate"], outcomes["promised_flag_rate"])))
    for name in ("accuracy", "ece"):
        if outcomes[name] is not None:
            lines.append((name, f"{outcomes[name]:.3f}"))
    return lines


def _drift(value: object) -> list[tuple[str, str]]:
    drift = _mapping(value)
    if not drift:
        return [("drift", "no prediction under this calibration since the server started")]
    now, largest, level = (drift[name] for name in ("martingale", "largest", "level"))
    return [
        ("drift", f"{drift['rows']} rows by {drift['score']}"),
        ("martingale", f"{now:.3g}, at most {largest:.3g}; the alarm rings at {level:g}"),
    ]


def _rate(value: object, promised: object) -> str:
    rate = _mapping(value)
    observed, lower, upper = (rate[name] for name in ("observed", "lower", "upper"))
    return f"{observed:.3f} [{lower:.3f}, {upper:.3f}], promised {promised:g}"


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
