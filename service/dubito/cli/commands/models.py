"""`dubito register`, `dubito models` and `dubito show`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from dubito.cli.console import application, kept, local_actor, output, progress
from dubito.names import DEFAULT_ALIAS
from dubito.registry.facts import VersionFact

_MINUTE = "%Y-%m-%d %H:%M"


def register(
    bundle: Annotated[Path, typer.Argument(help="The bundle, a .dubito file.")],
    model: Annotated[str, typer.Option(help="Name of the model.")],
) -> None:
    """Verify a bundle and store it as the next version of a model."""
    title = f"registering {bundle.name}"
    with application() as running, running.library.incoming() as path, progress(title):
        shutil.copyfile(bundle, path)
        fact = running.library.register(model, path, actor=local_actor())
    output().print(f"{fact.model} version {fact.number} ({fact.digest[:12]})")
    if DEFAULT_ALIAS not in fact.aliases:
        output().print(
            f"another version keeps answering until: dubito alias {model} {fact.number}",
        )


def show(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    version: Annotated[str, typer.Argument(help="Version, by number or alias.")] = DEFAULT_ALIAS,
) -> None:
    """Show what is known about a version: provenance, sites, warnings and calibrations."""
    with kept() as known:
        fact = known.registry.version(model, version)
    manifest = fact.manifest
    table = Table(show_header=False, box=None)
    retired = (
        None if fact.retired_at is None else f"{fact.retired_at:{_MINUTE}} {fact.retired_reason}"
    )
    sites, warnings = manifest.get("sites"), manifest.get("warnings")
    for name, value in (
        ("version", f"{fact.model} {fact.number}"),
        ("aliases", ", ".join(fact.aliases)),
        ("retired", retired),
        ("task", str(manifest.get("task"))),
        ("digest", fact.digest),
        ("size", f"{fact.size_bytes / 2**20:.2f} MiB"),
        ("uploaded", f"{fact.created_at:{_MINUTE}} by {fact.uploader}"),
        ("torch", str(manifest.get("torch_version"))),
        ("notes", manifest.get("notes")),
        ("precision", _precision(fact)),
        ("sites", str(len(sites)) if isinstance(sites, list) else None),
        ("calibrations", ", ".join(map(str, fact.calibrations)) or "none"),
        ("active", "none" if fact.active_calibration is None else str(fact.active_calibration)),
    ):
        if value:
            table.add_row(name, str(value))
    output().print(table)
    for warning in warnings if isinstance(warnings, list) else ():
        output().print(f"warning: {warning}")


def _precision(fact: VersionFact) -> str:
    """Precision of the passes, and how far figures were from float32 when it was last loaded."""
    if fact.precision == "float32":
        return fact.precision
    from dubito.engine.deviation import last_known
    from dubito.engine.findings import Findings
    from dubito.settings import Settings

    known = last_known(Findings(Settings().findings_dir), fact.digest, fact.precision)
    if known is None:
        return fact.precision
    figures = ", ".join(f"{name} {value:.2g}" for name, value in known.figures.items())
    return f"{fact.precision}; from float32 on made-up rows: {figures}"


def models() -> None:
    """List the models of the data directory."""
    whole = Column("model", no_wrap=True)
    table = Table(whole, "version", "aliases", "task", "size", "calibration", "created")
    with kept() as known:
        for fact in known.registry.models():
            for version in fact.versions:
                active = version.active_calibration
                retired = [] if version.retired_at is None else ["retired"]
                table.add_row(
                    fact.name,
                    str(version.number),
                    ", ".join([*version.aliases, *retired]),
                    str(version.manifest.get("task", "")),
                    f"{version.size_bytes / 2**20:.2f} MiB",
                    "none" if active is None else str(active),
                    f"{version.created_at:{_MINUTE}}",
                )
    if table.row_count:
        output().print(table)
    else:
        output().print("no models yet: dubito register BUNDLE --model NAME")
