"""`dubito inspect`: what is random in a bundle, and how much of its work T samples share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dubito.cli.console import output, progress
from dubito.engine import Engine
from dubito.engine.cost import cost
from dubito.engine.running.passes import Passes
from dubito.engine.summary import summary
from dubito_nn import Manifest
from dubito_nn.manifest import named_modules
from dubito_nn.preprocess import ImageInput, Part, TableInput, TextInput


def inspect(
    bundle: Annotated[Path, typer.Argument(help="The bundle, a .dubito file.")],
    num_samples: Annotated[
        int, typer.Option(help="T for which the shared work is computed.", min=2)
    ] = 64,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Also show how often each operation runs, and in which form."),
    ] = False,
) -> None:
    """Show the sites of a bundle, the work that its samples share, and its warnings."""
    with progress(f"reading {bundle.name}"):
        engine = Engine.load(bundle, num_samples=num_samples, timing_limit_s=None if plan else 0)
        counted = cost(engine)
    manifest, console = engine.manifest, output()
    console.print(_facts(manifest, engine))
    console.print(_sites(manifest))
    console.print(
        f"one pass {_flops(counted.prefix + counted.suffix)} per row;"
        f" {counted.prefix_share:.1%} of it runs once, whatever T;"
        f" T = {num_samples} samples take {counted.over_loop(num_samples):.1%}"
        " of the work of a loop"
    )
    if plan:
        pieces = engine.pieces("shared", engine.made_up_rows())
        console.print(_parts(pieces))
        console.print(_forms(pieces) if pieces.options else "forms: none beside dense masks")
    for warning in manifest.warnings:
        console.print(f"warning: {warning}")


def _facts(manifest: Manifest, engine: Engine) -> Table:
    table = Table(show_header=False, box=None)
    inputs = "; ".join(
        f"{spec.name} {spec.dtype} ({', '.join(['rows', *map(str, spec.shape)])})"
        for spec in manifest.inputs
    )
    for name, value in (
        ("task", _task(manifest)),
        ("output", f"{manifest.output}, {manifest.num_outputs} per {_place(manifest)}"),
        ("levels", ", ".join(map(str, (manifest.quantile_levels or ())[:20]))),
        (
            "labels" if manifest.head == "multilabel" else "classes",
            ", ".join(manifest.classes[:20]) if manifest.classes else None,
        ),
        ("inputs", inputs),
        ("made of", "; ".join(map(_made_of, manifest.preprocess or ()))),
        ("weights", f"{sum(t.numel() for t in engine.bundle.weights.values()):,} numbers"),
        ("size", f"{engine.bundle.size_bytes / 2**20:.2f} MiB"),
        ("digest", engine.bundle.digest),
        ("torch", manifest.torch_version),
        ("notes", manifest.notes),
    ):
        if value:
            table.add_row(name, value)
    return table


def _made_of(part: Part) -> str:
    """What people send for the inputs that a part makes."""
    if isinstance(part, TableInput):
        names = dict.fromkeys(f"{column.name} ({column.type})" for column in part.columns)
        return f"a table of {named_modules(list(names), 12)}"
    if isinstance(part, ImageInput):
        shape = " x ".join("any" if size is None else str(size) for size in part.shape)
        return f"images for {part.input}, {part.mode} to {shape}"
    if isinstance(part, TextInput):
        pair = "" if part.pair is None else f" and {part.pair}"
        return f"a text {part.name}{pair}, of at most {part.max_length} tokens"
    return f"an array for {part.input}, x {part.scale} + {part.shift}"


def _task(manifest: Manifest) -> str:
    if manifest.channel_axis is None:
        return manifest.task
    said = "numbers" if manifest.class_axis is None else "a class"
    return f"{manifest.task}, {said} at every position (axis {manifest.channel_axis})"


def _place(manifest: Manifest) -> str:
    return "row" if manifest.channel_axis is None else "position"


def _sites(manifest: Manifest) -> Table:
    table = Table("site", "module", "operator", "distribution", "p", "acts on", "shape")
    for site in manifest.sites:
        rate = "" if site.drop_prob is None else f"{site.drop_prob:.4g}"
        table.add_row(
            str(site.index),
            site.module_path,
            site.operator,
            site.distribution,
            f"{rate} learned" if site.learned else rate,
            site.granularity,
            str(site.shape),
        )
    return table


def _parts(pieces: Passes) -> Table:
    table = Table("part", "runs", "operators", "bytes alive")
    for part in summary(pieces).parts:
        alive = "" if part.alive_bytes is None else f"{part.alive_bytes:,}"
        table.add_row(part.name, part.runs, str(part.operators), alive)
    return table


def _forms(pieces: Passes) -> Table:
    """Each form with the times it is faster than dense masks: by the clock, and by the model."""
    table = Table("form", "in the place of", "used from rows", "times faster: measured (estimated)")
    for option in pieces.options:
        nodes = option.form.nodes
        least = option.least_rows()
        table.add_row(
            type(option.form).__name__.lower(),
            f"{nodes[0]} to {nodes[-1]}",
            "never" if least is None else str(least),
            ", ".join(
                f"B {timing.rows}: {_times(timing.measured)} ({timing.estimated:.2g})"
                for timing in option.timings
            ),
        )
    return table


def _times(ratio: float | None) -> str:
    return "not timed" if ratio is None else f"{ratio:.2g}"


def _flops(count: int) -> str:
    for unit, size in (("GFLOP", 10**9), ("MFLOP", 10**6), ("kFLOP", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} FLOP"
