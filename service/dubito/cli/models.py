"""`dubito models`, `dubito register` and `dubito alias`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dubito.cli.console import application, output, progress
from dubito.registry.names import DEFAULT_ALIAS


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
    if DEFAULT_ALIAS not in fact.aliases:
        output().print(
            f"another version keeps answering until: dubito alias {model} {fact.number}",
            markup=False,
        )


def alias(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    version: Annotated[int, typer.Argument(help="Number of the version.")],
    name: Annotated[str, typer.Option(help="The alias.")] = DEFAULT_ALIAS,
) -> None:
    """Point an alias to a version; requests without a version go where `default` points."""
    with application() as running:
        fact = running.set_alias(model, name, version)
    output().print(f"{fact.model}: {fact.name} is version {fact.version}", markup=False)


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
