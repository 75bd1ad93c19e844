"""`dubito keys`: who may ask what."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.table import Table

from dubito.cli.console import kept, local_actor, messages, output

keys = typer.Typer(help="Keys of the API: make, list and revoke them.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the key, which the audit shows.")]


@keys.command()
def create(
    name: Name,
    scope: Annotated[
        Literal["predict", "select", "calibrate", "admin"],
        typer.Option(help="What it opens; each opens what those before it open."),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model that it is for. May be given several times. Default: all."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Maximum number of requests per second, per server.", min=0.001),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Maximum number of requests at once, per server.", min=1)
    ] = None,
) -> None:
    """Make a key and print it. It is shown this once, and kept as a hash."""
    models = None if not model else tuple(dict.fromkeys(model))
    with kept() as known:
        key = known.keys.create(
            name,
            scope,
            models=models,
            rate=rate,
            concurrency=concurrency,
            actor=local_actor(),
        )
        there = {fact.name for fact in known.registry.models()}
    for missing in sorted({*(models or ())} - there):
        messages().print(f"note: there is no model {missing} yet", soft_wrap=True)
    messages().print(f"key {name} ({scope}); it is not shown again:", soft_wrap=True)
    output().print(key, soft_wrap=True)


@keys.command("list")
def list_() -> None:
    """Show all keys, without what opens."""
    table = Table("name", "scope", "models", "per second", "at once", "made", "revoked")
    with kept() as known:
        for fact in known.keys.all():
            table.add_row(
                *(fact.name, fact.scope),
                "all" if fact.models is None else ", ".join(fact.models),
                "" if fact.rate is None else f"{fact.rate:g}",
                "" if fact.concurrency is None else str(fact.concurrency),
                f"{fact.created_at:%Y-%m-%d %H:%M:%S}",
                "" if fact.revoked_at is None else f"{fact.revoked_at:%Y-%m-%d %H:%M:%S}",
            )
    output().print(table)


@keys.command()
def revoke(name: Name) -> None:
    """Let a key open nothing any more. Servers see it within a polling interval."""
    with kept() as known:
        known.keys.revoke(name, actor=local_actor())
    output().print(f"{name} is revoked")
