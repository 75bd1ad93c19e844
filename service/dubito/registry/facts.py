"""Facts that the registry gives out: frozen, free of any database session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    `active_fits` names the fit that each further method answers with.
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
    active_fits: Mapping[str, int] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """Of its passes."""
        return str(self.defaults.get("precision", "float32"))

    @property
    def loaded_as(self) -> str:
        """What its engine is called, which versions of one bundle and precision share."""
        return loaded_as(self.digest, self.precision)


def loaded_as(digest: str, precision: str) -> str:
    """The name of the engine of a bundle in a precision."""
    return digest if precision == "float32" else f"{digest}-{precision}"


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


@dataclass(frozen=True)
class KeyFact:
    """A key, and what it opens.

    `digest` is its SHA-256 in hexadecimal: the key itself is kept nowhere. `scope` is one of
    `predict`, `select`, `calibrate`, `admin`; `models` names those that it is for, None: all.
    `rate` is in requests per second, `concurrency` in requests at once; None: no limit.
    """

    name: str
    digest: str
    scope: str
    models: tuple[str, ...] | None
    rate: float | None
    concurrency: int | None
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True)
class ColumnFact:
    """One array of a pool: the name of its input, numpy's name of its type, one row's shape.

    `features` are the columns of a table that became the numbers of a row, where they have names.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    features: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Plain values; `features` only where there are any."""
        values: dict[str, object] = {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
        }
        return values | ({"features": list(self.features)} if self.features else {})


@dataclass(frozen=True)
class PoolFact:
    """Unlabelled rows under a name.

    `digest` is the SHA-256 of what was uploaded, `format` its kind (`npy`, `npz` or `parquet`);
    `source` is the address that it was taken from, None where it was sent.
    """

    name: str
    digest: str
    size_bytes: int
    format: str
    num_rows: int
    columns: tuple[ColumnFact, ...]
    source: str | None
    uploader: str
    created_at: datetime


@dataclass(frozen=True)
class JobFact:
    """A job: a prediction or selection of a stored pool, or a fit to it or to rows of its own.

    `kind` is `predict`, `select` or `fit`; `state` `queued`, `running`, `succeeded`, `failed` or
    `cancelled`. `order` and `versions` were settled when it was accepted, `plan` when it first
    ran. `total` and `done` are in rows, `rate` in rows per second. `result` names the object that
    holds the result; `reason` says why it failed.
    """

    id: str
    kind: str
    state: str
    model: str
    version: int
    versions: tuple[int, ...]
    pool: str
    pool_digest: str
    order: Mapping[str, object]
    plan: Mapping[str, object] | None
    total: int
    done: int
    rate: float | None
    owner: str | None
    beat: int
    attempts: int
    result: Mapping[str, object] | None
    reason: str | None
    warnings: tuple[str, ...]
    actor: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def is_finished(self) -> bool:
        """Whether nothing of it will change any more."""
        return self.state not in ("queued", "running")

    @property
    def remaining_s(self) -> float | None:
        """Seconds until it is done, at the present rate; None where that is not known."""
        if self.state != "running" or not self.rate:
            return None
        return (self.total - self.done) / self.rate


@dataclass(frozen=True)
class PartFact:
    """Rows `start` to `stop` of a job that are done, and the digest of their object."""

    start: int
    stop: int
    digest: str
