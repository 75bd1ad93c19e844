"""The relational tables. A change here needs a new file in `migrations/versions`."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

_BIG = BigInteger().with_variant(Integer(), "sqlite")  # SQLite's integers are big


def _now() -> datetime:
    return datetime.now(UTC)


class Table(DeclarativeBase):
    """Base of all tables; constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class ModelRecord(Table):
    """A name; `next_version` only grows, so that a number is never given twice."""

    __tablename__ = "models"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    next_version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now)

    versions: Mapped[list[VersionRecord]] = relationship(
        back_populates="model", order_by="VersionRecord.number"
    )
    aliases: Mapped[list[AliasRecord]] = relationship(
        back_populates="model", order_by="AliasRecord.name"
    )


class VersionRecord(Table):
    """One bundle of a model, by digest."""

    __tablename__ = "versions"
    __table_args__ = (UniqueConstraint("model_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int]
    digest: Mapped[str] = mapped_column(String(64), index=True)
    size_bytes: Mapped[int] = mapped_column(_BIG)
    manifest: Mapped[dict[str, object]] = mapped_column(JSON)
    defaults: Mapped[dict[str, object]] = mapped_column(JSON)
    active_calibration: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now)
    uploader: Mapped[str] = mapped_column(String(64), server_default="anonymous")
    retired_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    retired_reason: Mapped[str | None] = mapped_column(String(500))
    active_fits: Mapped[dict[str, int] | None] = mapped_column(JSON(none_as_null=True))

    model: Mapped[ModelRecord] = relationship(back_populates="versions")
    aliases: Mapped[list[AliasRecord]] = relationship(
        back_populates="version", order_by="AliasRecord.name", passive_deletes="all"
    )
    calibrations: Mapped[list[CalibrationRecord]] = relationship(
        back_populates="version",
        order_by="CalibrationRecord.number",
        cascade="all, delete-orphan",
        passive_deletes=True,
    )
    fits: Mapped[list[FitRecord]] = relationship(
        back_populates="version",
        order_by="FitRecord.number",
        cascade="all, delete-orphan",
        passive_deletes=True,
    )


class AliasRecord(Table):
    """A name that points to a version, with a revision for `If-Match`."""

    __tablename__ = "aliases"
    __table_args__ = (UniqueConstraint("model_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    revision: Mapped[int] = mapped_column(default=1)

    model: Mapped[ModelRecord] = relationship(back_populates="aliases")
    version: Mapped[VersionRecord] = relationship(back_populates="aliases")


class CalibrationRecord(Table):
    """A calibration of one version, fitted on held-out rows; it never changes."""

    __tablename__ = "calibrations"
    __table_args__ = (UniqueConstraint("version_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"))
    number: Mapped[int]
    document: Mapped[dict[str, object]] = mapped_column(JSON, deferred=True)  # may be large
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now)

    version: Mapped[VersionRecord] = relationship(back_populates="calibrations")


class FitRecord(Table):
    """What a further method learned of one version; it never changes. One job makes one."""

    __tablename__ = "fits"
    __table_args__ = (UniqueConstraint("version_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id", ondelete="CASCADE"))
    number: Mapped[int]
    method: Mapped[str] = mapped_column(String(16))
    digest: Mapped[str] = mapped_column(String(64), index=True)
    job: Mapped[str] = mapped_column(String(32), unique=True)
    document: Mapped[dict[str, object]] = mapped_column(JSON, deferred=True)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now)

    version: Mapped[VersionRecord] = relationship(back_populates="fits")


class ChangesRecord(Table):
    """One record, whose number grows with every transaction that writes; writers queue for it."""

    __tablename__ = "changes"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(_BIG)


class AuditRecord(Table):
    """Who changed what and when; it names, so that it outlives what it tells of."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now)
    actor: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(32))
    model: Mapped[str] = mapped_column(String(64), index=True)
    version: Mapped[int | None]
    details: Mapped[dict[str, object]] = mapped_column(JSON)


class KeyRecord(Table):
    """A key by its hash, and what it opens; one that is revoked is kept, and so is its name."""

    __tablename__ = "keys"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    scope: Mapped[str] = mapped_column(String(16))
    models: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    rate: Mapped[float | None] = mapped_column(Float(53))
    concurrency: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now)
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class PredictionRecord(Table):
    """The answer to one request under one calibration, packed; it is kept for feedback."""

    __tablename__ = "predictions"
    __table_args__ = (UniqueConstraint("request_id", "calibration_id"),)

    id: Mapped[int] = mapped_column(_BIG, primary_key=True)
    calibration_id: Mapped[int] = mapped_column(
        ForeignKey("calibrations.id", ondelete="CASCADE"), index=True
    )
    request_id: Mapped[str] = mapped_column(String(128))
    num_rows: Mapped[int]
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now)
    content: Mapped[bytes] = mapped_column(LargeBinary)


class OutcomeRecord(Table):
    """The truth of one row of a prediction, and what it says; `place` counts from 1."""

    __tablename__ = "outcomes"
    __table_args__ = (
        UniqueConstraint("calibration_id", "place"),
        UniqueConstraint("request_id", "calibration_id", "row"),
    )

    id: Mapped[int] = mapped_column(_BIG, primary_key=True)
    calibration_id: Mapped[int] = mapped_column(ForeignKey("calibrations.id", ondelete="CASCADE"))
    place: Mapped[int] = mapped_column(_BIG)
    request_id: Mapped[str] = mapped_column(String(128))
    row: Mapped[int]
    truth: Mapped[list[float]] = mapped_column(JSON)
    is_covered: Mapped[list[bool]] = mapped_column(JSON)
    is_flagged: Mapped[bool]
    confidence: Mapped[float | None] = mapped_column(Float(53))
    is_right: Mapped[bool | None]
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now)


class MonitoringRecord(Table):
    """Where the windows of a calibration's outcomes stand; whoever adds one holds this row."""

    __tablename__ = "watches"

    calibration_id: Mapped[int] = mapped_column(
        ForeignKey("calibrations.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    num_outcomes: Mapped[int] = mapped_column(_BIG, default=0)
    state: Mapped[dict[str, object]] = mapped_column(JSON)


class PoolRecord(Table):
    """Unlabelled rows under a name; never changed."""

    __tablename__ = "pools"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    digest: Mapped[str] = mapped_column(String(64), index=True)
    size_bytes: Mapped[int] = mapped_column(_BIG)
    format: Mapped[str] = mapped_column(String(16))
    num_rows: Mapped[int] = mapped_column(_BIG)
    columns: Mapped[list[dict[str, object]]] = mapped_column(JSON)
    source: Mapped[str | None] = mapped_column(String(1000))
    uploader: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now)


class JobRecord(Table):
    """Long work: what was asked, how far it is, and which server has it.

    `order` and `versions` are settled when the job is accepted, `plan` when it first runs. `beat`
    grows while a server works on it. Versions and pools are named, since a job outlives them.
    """

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16), index=True)
    model: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    versions: Mapped[list[int]] = mapped_column(JSON)
    pool: Mapped[str] = mapped_column(String(64))
    pool_digest: Mapped[str] = mapped_column(String(64))
    order: Mapped[dict[str, object]] = mapped_column(JSON)
    plan: Mapped[dict[str, object] | None] = mapped_column(JSON)
    total: Mapped[int] = mapped_column(_BIG)
    done: Mapped[int] = mapped_column(_BIG, default=0)
    rate: Mapped[float | None]
    owner: Mapped[str | None] = mapped_column(String(64))
    beat: Mapped[int] = mapped_column(_BIG, default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    result: Mapped[dict[str, object] | None] = mapped_column(JSON)
    reason: Mapped[str | None] = mapped_column(String(1000))
    warnings: Mapped[list[str]] = mapped_column(JSON, default=list)
    actor: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now)
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class JobPartRecord(Table):
    """Rows of a job that are done: an object with their columns."""

    __tablename__ = "job_parts"
    __table_args__ = (UniqueConstraint("job_id", "start"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    start: Mapped[int] = mapped_column(_BIG)
    stop: Mapped[int] = mapped_column(_BIG)
    digest: Mapped[str] = mapped_column(String(64))
