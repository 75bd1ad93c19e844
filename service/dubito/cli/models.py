"""`dubito models` and `dubito register`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dubito.cli.console import application, output, progress


def register(
    bundle: Annotated[Path, typer.Argument(help="The bundle, a .dubito file.")],
    model: Annotated[str, typer.Option(help="Name of the model.")],
) -> None:
    """Verify a bundle and store it as the next version of a model."""
    title = f"registering {bundle.name}"
    with application() as running, running.incoming() as path, progress(title):
        shutil.copyfile(bundle, path)
        fact = running.register(model, path)
    output().print(f"{fact.model} version {fact.number} ({fact.digest[:12]})", markup=False)


def models() -> None:
    """List the models of the data directory."""
    table = Table("model", "version", "aliases", "task", "size", "calibration", "created")
    with application() as running:
        for fact in running.models():
            for version in fact.versions:
                active = version.active_calibration
                table.add_row(
                    fact.name,
                    str(version.number),
                    ", ".join(version.aliases),
                    str(version.manifest.get("task", "")),
                    f"{version.size_bytes / 2**20:.2f} MiB",
                    "none" if active is None else str(active),
                    f"{version.created_at:%Y-%m-%d %H:%M}",
                )
    if table.row_count:
        output().print(table)
    else:
        output().print("no models yet: dubito register BUNDLE --model NAME")
