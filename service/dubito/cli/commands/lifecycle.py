"""`dubito alias`, `unalias`, `retire`, `restore`, `delete`: what becomes of a version."""

from __future__ import annotations

from typing import Annotated

import typer

from dubito.cli.console import application, kept, local_actor, output
from dubito.names import DEFAULT_ALIAS

Model = Annotated[str, typer.Argument(help="Name of the model.")]
Version = Annotated[int, typer.Argument(help="Number of the version.", min=1)]
Revision = Annotated[
    int | None,
    typer.Option(
        help="Change the alias only if it has this revision, which `dubito alias` prints.", min=1
    ),
]


def alias(
    model: Model,
    version: Version,
    name: Annotated[str, typer.Option(help="Name of the alias.")] = DEFAULT_ALIAS,
    revision: Revision = None,
) -> None:
    """Point an alias to a version; requests without a version go where `default` points."""
    with application() as running:
        fact = running.library.set_alias(
            model, name, version, if_match=_only(revision), actor=local_actor()
        )
    output().print(
        f"{fact.model}: {fact.name} is version {fact.version} (revision {fact.revision})",
    )


def unalias(
    model: Model,
    name: Annotated[str, typer.Argument(help="Name of the alias. `default` cannot be deleted.")],
    revision: Revision = None,
) -> None:
    """Delete an alias."""
    with kept() as known:
        known.registry.delete_alias(model, name, if_match=_only(revision), actor=local_actor())
    output().print(f"{model}: {name} is gone")


def retire(
    model: Model,
    version: Version,
    reason: Annotated[str, typer.Option(help="Reason, told to whoever asks for the version.")],
) -> None:
    """Retire a version that no alias names: it is kept, but no longer answers requests."""
    with kept() as known:
        known.registry.retire(model, str(version), reason[:500], actor=local_actor())
    output().print(f"{model} version {version} is retired: {reason}")


def restore(model: Model, version: Version) -> None:
    """Un-retire a version, so that it answers requests again."""
    with kept() as known:
        known.registry.restore(model, str(version), actor=local_actor())
    output().print(f"{model} version {version} answers again")


def delete(model: Model, version: Version) -> None:
    """Delete a version that no alias names, with its calibrations."""
    with kept() as known:
        known.registry.delete_version(model, str(version), actor=local_actor())
    output().print(f"{model} version {version} is gone")


def _only(revision: int | None) -> frozenset[int] | None:
    return None if revision is None else frozenset([revision])
