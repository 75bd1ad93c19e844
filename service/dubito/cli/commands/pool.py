"""`dubito pool`: rows that stay with the service, for work that outgrows a request."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from dubito.cli.console import kept, local_actor, local_caller, output, progress
from dubito.pools.shelf import format_of
from dubito.registry import PoolFact

pool = typer.Typer(help="Stored pools of unlabelled rows.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the pool.")]


@pool.command()
def add(
    source: Annotated[
        str,
        typer.Argument(
            help="A .npy, .npz, .parquet, .csv, .ndjson or .arrows file, or an allowed address."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Name of the pool. Default: its digest.")] = None,
) -> None:
    """Verify a file and store it as a pool."""
    with kept() as known, progress(f"storing {Path(source).name}"):
        if "://" in source:
            fact = known.pools.take(name, source, actor=local_actor())
        else:
            with known.pools.incoming() as path:  # nobody may write to it meanwhile
                shutil.copyfile(source, path)
                fact = known.pools.add(name, path, format_of(source), actor=local_actor())
    output().print(f"{fact.name}: {_rows(fact)}")


@pool.command("list")
def list_() -> None:
    """Show all pools."""
    table = Table(Column("pool", no_wrap=True), "rows", "arrays", "format", "stored")
    with kept() as known:
        for fact in known.pools.all():
            stored = f"{fact.created_at:%Y-%m-%d %H:%M}"
            table.add_row(fact.name, str(fact.num_rows), _arrays(fact), fact.format, stored)
    output().print(table)


@pool.command()
def show(name: Name) -> None:
    """Show one pool."""
    with kept() as known:
        fact = known.pools.get(name)
    for line in (
        f"{fact.name}: {_rows(fact)}",
        f"{fact.format}, {fact.size_bytes} bytes, sha256 {fact.digest}",
        f"stored {fact.created_at:%Y-%m-%d %H:%M:%S} by {fact.uploader}",
        *([] if fact.source is None else [f"from {fact.source}"]),
    ):
        output().print(line, soft_wrap=True)


@pool.command()
def delete(name: Name) -> None:
    """Delete a pool that no job uses."""
    with kept() as known:
        known.pools.delete(name, local_caller())
    output().print(f"{name} is deleted")


def _rows(fact: PoolFact) -> str:
    return f"{fact.num_rows} rows of {_arrays(fact)}"


def _arrays(fact: PoolFact) -> str:
    return ", ".join(
        f"{column.name} {column.dtype[1:]} {'x'.join(map(str, column.shape)) or '1'}"
        for column in fact.columns
    )
