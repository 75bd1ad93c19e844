"""Facts that the registry gives out: frozen, free of any database session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class AliasFact:
    """A name that points to a version; `revision` grows by one with every move."""

    model: str
    name: str
    version: int
    revision: int


@dataclass(frozen=True)
class CalibrationFact:
    """One immutable calibration of a version; `document` is what was fitted, as JSON."""

    model: str
    version: int
    number: int
    document: Mapping[str, object]
    created_at: datetime


@dataclass(frozen=True)
class VersionFact:
    """One immutable bundle of a model.

    `digest` is the SHA-256 of the bundle in hexadecimal, `size_bytes` its size; `manifest` is the
    bundle's own, with the site table; `defaults` are the sampling choices of requests that make
    none; `calibrations` lists the numbers that exist. `uploader` says whose key it came with.
    A version that is retired, at `retired_at` and for `retired_reason`, answers no requests.
    """

    model: str
    number: int
    digest: str
    size_bytes: int
    manifest: Mapping[str, object]
    defaults: Mapping[str, object]
    active_calibration: int | None
    calibrations: tuple[int, ...]
    aliases: tuple[str, ...]
    created_at: datetime
    uploader: str
    retired_at: datetime | None
    retired_reason: str | None


@dataclass(frozen=True)
class ModelFact:
    """A model with all its versions (ascending) and aliases (by name)."""

    name: str
    versions: tuple[VersionFact, ...]
    aliases: tuple[AliasFact, ...]
    created_at: datetime


@dataclass(frozen=True)
class AuditFact:
    """One change: who made it, when, to which model and version, and its details."""

    at: datetime
    actor: str
    action: str
    model: str
    version: int | None
    details: Mapping[str, object]
