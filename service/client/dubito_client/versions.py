"""Models, their versions and aliases, the life of a version, and the health of the server."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from os import PathLike
from pathlib import Path

from dubito_client.bodies import told
from dubito_client.calls import (
    Call,
    Document,
    File,
    model_path,
    nothing,
    page,
    pages,
    path_of,
)


@dataclass(frozen=True, kw_only=True)
class Alias:
    """Where an alias points; `revision` grows with every move."""

    model: str
    alias: str
    version: int
    revision: int


@dataclass(frozen=True, kw_only=True)
class AliasTarget:
    """Where an alias of a model points; `revision` grows with every move."""

    version: int
    revision: int


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version among those of its model.

    `state` is `available`, `loading`, `loaded`, `failed` or `retired` (both with a `reason`).
    """

    version: int
    aliases: list[str]
    state: str
    reason: str | None
    task: str | None
    output: str | None
    digest: str
    size_bytes: int
    created_at: datetime
    uploader: str


@dataclass(frozen=True, kw_only=True)
class VersionDetails(Version):
    """All that is known of a version."""

    model: str
    torch_version: str | None
    warnings: list[str]
    notes: str | None
    sites: list[Document] = field(repr=False)
    manifest: Document = field(repr=False)
    defaults: Document
    calibrations: list[int]
    active_calibration: Document | None = field(repr=False)
    plan: Document | None = field(default=None, repr=False)
    precision: str = "float32"
    deviation: Mapping[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model with its versions and aliases."""

    model: str
    created_at: datetime
    aliases: Mapping[str, AliasTarget]
    versions: list[Version]


@dataclass(frozen=True, kw_only=True)
class Uploaded:
    """What an upload has become."""

    model: str
    version: int


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of a model: who made it, and when."""

    at: datetime
    actor: str
    action: str
    model: str
    version: int | None
    details: Document


@dataclass(frozen=True, kw_only=True)
class LoadedVersion:
    """A version that is loaded, or a pinned model whether it is or not."""

    model: str
    version: int | None
    state: str
    reason: str | None
    pinned: bool
    samples_vary: bool | None
    precision: str | None = None


@dataclass(frozen=True, kw_only=True)
class ServedDevice:
    """A device of the server, and the worker that owns it."""

    device: str
    running: bool
    heartbeat_age_ms: float


@dataclass(frozen=True, kw_only=True)
class Health:
    """Whether predictions are taken."""

    ready: bool
    live: bool
    draining: bool
    models: list[LoadedVersion]
    devices: list[ServedDevice]


def models() -> Call[list[Model]]:
    """All models with their versions and aliases."""
    return Call(method="GET", path=path_of("models"), read=pages(Model, "models"))


def model(model: str) -> Call[Model]:
    """One model with its versions and aliases."""
    return Call(method="GET", path=model_path(model, None), read=page(Model))


def version(model: str, version: int | str = "default") -> Call[VersionDetails]:
    """One version: manifest, sites, warnings, notes, defaults, active calibration."""
    return Call(method="GET", path=model_path(model, version), read=page(VersionDetails))


def upload(model: str, bundle: Path | str) -> Call[Uploaded]:
    """Upload a bundle as the model's next version; the first makes the model and `default`.

    The server is told the file's SHA-256, and refuses a body that is another.

    Args:
        model: its name.
        bundle: path of the file, which is sent piece by piece.

    Raises:
        TypeError: something else than a path.
    """
    if not isinstance(bundle, (str, PathLike)):
        raise TypeError(f"`bundle` expects the path of a file, got {type(bundle).__name__}")
    path = Path(bundle)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Call(
        method="POST",
        path=model_path(model, None, "versions"),
        read=page(Uploaded),
        query={"sha256": digest},
        headers={"Content-Type": "application/octet-stream"},
        body=File(path, path.stat().st_size),
        is_repeatable=False,
    )


def delete_version(model: str, version: int | str) -> Call[None]:
    """Delete a version that no alias names."""
    path = model_path(model, version)
    return Call(method="DELETE", path=path, read=nothing, is_repeatable=False)


def load(model: str, version: int | str = "default") -> Call[VersionDetails]:
    """Load a version onto the server's device and warm it up; answers once it is ready."""
    path = model_path(model, version, "load")
    return Call(method="POST", path=path, read=page(VersionDetails))


def unload(model: str, version: int | str = "default") -> Call[VersionDetails]:
    """Free the memory that a version takes; the next request loads it again."""
    path = model_path(model, version, "unload")
    return Call(method="POST", path=path, read=page(VersionDetails))


def retire(model: str, version: int | str, reason: str) -> Call[VersionDetails]:
    """Let a version that no alias names answer no more requests; callers are told the reason."""
    path = model_path(model, version, "retire")
    return told("POST", path, {"reason": reason}, page(VersionDetails), is_repeatable=False)


def restore(model: str, version: int | str) -> Call[VersionDetails]:
    """Let a retired version answer requests again."""
    path = model_path(model, version, "restore")
    return Call(method="POST", path=path, read=page(VersionDetails), is_repeatable=False)


def alias(model: str, alias: str) -> Call[Alias]:
    """Where an alias points, with its revision."""
    return Call(method="GET", path=_alias_path(model, alias), read=page(Alias))


def set_alias(
    model: str, alias: str, version: int, *, revision: int | None = None, is_new: bool = False
) -> Call[Alias]:
    """Move an alias to a version, which is loaded and warmed up first.

    Args:
        model: name of the model.
        alias: name of the alias, such as `default`.
        version: number of the version.
        revision: that the alias is expected to have; None: whatever it is.
        is_new: whether the alias is expected not to exist.
    """
    expected = {"If-None-Match": "*"} if is_new else _if_match(revision)
    return told(
        "PUT",
        _alias_path(model, alias),
        {"version": version},
        page(Alias),
        headers=expected,
        is_repeatable=not expected,  # the first of two would change the revision
    )


def delete_alias(model: str, alias: str, *, revision: int | None = None) -> Call[None]:
    """Delete an alias other than `default`; `revision` as of `set_alias`."""
    return Call(
        method="DELETE",
        path=_alias_path(model, alias),
        read=nothing,
        headers=_if_match(revision),
        is_repeatable=False,
    )


def audit(model: str) -> Call[list[Change]]:
    """The last 1000 changes of a model, the newest first."""
    path = model_path(model, None, "audit")
    return Call(method="GET", path=path, read=pages(Change, "changes"))


def is_live() -> Call[bool]:
    """Whether the event loop and the device worker of the server beat."""
    return Call(
        method="GET",
        path="/health/live",
        read=lambda response: bool(response.json()["live"]),
        answers=frozenset({503}),
    )


def health() -> Call[Health]:
    """Whether predictions are taken, and what is loaded."""
    return Call(method="GET", path="/health/ready", read=page(Health), answers=frozenset({503}))


def _alias_path(model: str, alias: str) -> str:
    return path_of("models", model, "aliases", alias)


def _if_match(revision: int | None) -> dict[str, str]:
    return {} if revision is None else {"If-Match": f'"{revision}"'}
