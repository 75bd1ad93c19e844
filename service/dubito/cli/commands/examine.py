"""`dubito examine`: what of a network is random, and what goes wrong when it is switched on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

from dubito.cli.commands.imports import Examples, read_options
from dubito.cli.console import output, progress, tell
from dubito.errors import InputError
from dubito.imports import build, load_weights, read_example, read_state
from dubito_nn import Examination, ExportError
from dubito_nn import examine as examine_network
from dubito_nn.examining import Switch

_TOLD = {
    "eval": "model.eval()",
    "train": "model.train()",
    "dropout": "nn.Dropout modules alone",
    "sampling": "train, norms in eval",
}


def examine(
    factory: Annotated[
        str,
        typer.Argument(help="Factory that returns the network, as module:name or file.py:name."),
    ],
    *,
    example: Examples = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="State dictionary: a .safetensors file, or one written by torch.save."),
    ] = None,
    options: Annotated[
        str | None, typer.Option(help='Arguments of the factory as JSON: {"hidden": 64}.')
    ] = None,
    output_name: Annotated[
        str | None, typer.Option(help="Key or position of the output in a structured return.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Code of a finding to leave out. Repeat it for others.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Examine what of a network is random, exportable or not. This runs its code.

    The exit code is 1 if anything is found.
    """
    if not example:
        raise InputError("--example: expected rows to run it on, such as 8x784, got none")
    rows = read_example(example)
    tell("note", f"running the code of {factory} on this machine")
    with torch.random.fork_rng(devices=[]):  # weights that are made up are always the same
        torch.manual_seed(0)
        network = build(factory, read_options(options))
    if weights is not None:
        load_weights(network, read_state(weights), str(weights))
    with progress("examining"):
        try:
            found = examine_network(network, rows, output_name=output_name)
        except ExportError as error:
            raise InputError(str(error)) from error
    findings = [one for one in found.findings if one.code not in (ignore or ())]
    if as_json:
        shown = [{"code": one.code, "text": one.text} for one in findings]
        typer.echo(json.dumps(found.to_json() | {"findings": shown}, allow_nan=False))
    else:
        _print(factory, found)
        for one in findings:
            output().print(f"{one.code}: {one.text}", soft_wrap=True)
        output().print(f"{len(findings)} finding{'s' * (len(findings) != 1)}")
    if findings:
        raise typer.Exit(1)


def _print(factory: str, found: Examination) -> None:
    console = output()
    count = len(found.operations)
    console.print(f"{factory}: {count} random operation{'' if count == 1 else 's'}")
    if found.operations:
        console.print(_operations(found))
    console.print(_switches(found.switches))
    if found.norms_spread is not None:
        console.print(
            f"norms: {len(found.norms)} keep running statistics; those of the batch in their place"
            f" move the outputs of a pass by {found.norms_spread:.3g}",
            soft_wrap=True,
        )
    if found.refusal is None:
        console.print("export: would be taken")


def _operations(found: Examination) -> Table:
    names = [one.name for one in found.switches]
    table = Table(
        "module", "operator", "p", *names, "outputs vary by it alone", title="draws after"
    )
    for one in found.operations:
        share = "" if one.share is None else f" ({one.share:.0%} of all)"
        table.add_row(
            one.module,
            one.operator,
            "" if one.drop_prob is None else f"{one.drop_prob:.4g}",
            *(_times(one.draws.get(name)) for name in names),
            f"{one.spread:.3g}{share}",
        )
    return table


def _times(count: int | None) -> str:
    if count is None:
        return "?"
    return "no" if count == 0 else "yes" if count == 1 else f"{count} times"


def _switches(switches: tuple[Switch, ...]) -> Table:
    table = Table("switch", "is", "outputs vary by", "rows interact", "buffers changed")
    for one in switches:
        figures = (
            (f"fails: {one.fails}", "", "")
            if one.fails
            else (
                f"{one.spread:.3g}",
                f"from {one.mixed_from}" if one.mixes_rows else "no",
                str(len(one.changes)),
            )
        )
        table.add_row(one.name, _TOLD[one.name], *figures)
    return table
