"""From names to records, and from records to facts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload
from sqlalchemy.orm.interfaces import ORMOption

from dubito.errors import ConflictError, NotFoundError
from dubito.names import version_number
from dubito.registry.database.tables import (
    AliasRecord,
    AuditRecord,
    CalibrationRecord,
    ModelRecord,
    VersionRecord,
)
from dubito.registry.facts import AliasFact, AuditFact, CalibrationFact, ModelFact, VersionFact

# A model with all that its fact tells, in a handful of queries however many versions it has.
WHOLE = (
    selectinload(ModelRecord.aliases),
    selectinload(ModelRecord.versions).selectinload(VersionRecord.aliases),
    selectinload(ModelRecord.versions).selectinload(VersionRecord.calibrations),
    selectinload(ModelRecord.versions).selectinload(VersionRecord.fits),
)


def all_models(session: Session) -> Sequence[ModelRecord]:
    """The records of all models by name, with all that their facts tell."""
    query = select(ModelRecord).order_by(ModelRecord.name).options(*WHOLE)
    return session.scalars(query).all()


def last_changes(session: Session, model: str | None, limit: int) -> Iterable[AuditRecord]:
    """The records of the last changes, the newest first; of one model, or of all.

    Raises:
        NotFoundError: no model of that name.
    """
    query = select(AuditRecord).order_by(AuditRecord.id.desc()).limit(limit)
    if model is not None:
        query = query.where(AuditRecord.model == find_model(session, model).name)
    return session.scalars(query)


def model_or_none(session: Session, name: str, *options: ORMOption) -> ModelRecord | None:
    """The record of a model, if there is one."""
    return session.scalar(select(ModelRecord).where(ModelRecord.name == name).options(*options))


def find_model(session: Session, name: str, *options: ORMOption) -> ModelRecord:
    """The record of a model, loaded as the options say.

    Raises:
        NotFoundError: no model of that name.
    """
    record = model_or_none(session, name, *options)
    if record is None:
        raise NotFoundError(f"no model {name[:64]!r}: GET /v1/models lists those that exist")
    return record


def find_version(session: Session, model: str, reference: str) -> VersionRecord:
    """The record of a version, by its number or an alias.

    Raises:
        NotFoundError: no such model, version or alias.
    """
    parent = find_model(session, model)
    number = version_number(reference)
    query = select(VersionRecord).where(VersionRecord.model_id == parent.id)
    if number is None:
        query = query.join(AliasRecord, AliasRecord.version_id == VersionRecord.id).where(
            AliasRecord.name == reference
        )
    else:
        query = query.where(VersionRecord.number == number)
    record = session.scalar(query)
    if record is None:
        raise _missing(model, "alias" if number is None else "version", reference)
    return record


def alias_or_none(session: Session, model: ModelRecord, name: str) -> AliasRecord | None:
    """The record of an alias, if there is one."""
    return session.scalar(
        select(AliasRecord).where(AliasRecord.model_id == model.id, AliasRecord.name == name)
    )


def find_alias(session: Session, model: str, name: str) -> AliasRecord:
    """The record of an alias.

    Raises:
        NotFoundError: no such model or alias.
    """
    record = alias_or_none(session, find_model(session, model), name)
    if record is None:
        raise _missing(model, "alias", name)
    return record


def refuse_aliased(version: VersionRecord) -> None:
    """Refuse a version that an alias names.

    Raises:
        ConflictError: naming the aliases.
    """
    if version.aliases:
        names = ", ".join(f"`{alias.name}`" for alias in version.aliases)
        raise ConflictError(
            f"version {version.number} of `{version.model.name}`: expected one that no alias "
            f"names, got one named by {names}: move the alias to another version first"
        )


def find_calibration(version: VersionRecord, number: int) -> CalibrationRecord:
    """The record of a calibration.

    Raises:
        NotFoundError: the version has no calibration of that number.
    """
    for record in version.calibrations:
        if record.number == number:
            return record
    known = ", ".join(str(record.number) for record in version.calibrations) or "none"
    raise NotFoundError(
        f"version {version.number} of `{version.model.name}` has no calibration {number}: "
        f"it has {known}"
    )


def model_fact(record: ModelRecord) -> ModelFact:
    """A model as a fact."""
    return ModelFact(
        name=record.name,
        versions=tuple(version_fact(version) for version in record.versions),
        aliases=tuple(alias_fact(alias) for alias in record.aliases),
        created_at=utc(record.created_at),
    )


def version_fact(record: VersionRecord) -> VersionFact:
    """A version as a fact."""
    return VersionFact(
        model=record.model.name,
        number=record.number,
        digest=record.digest,
        size_bytes=record.size_bytes,
        manifest=record.manifest,
        defaults={**record.defaults, **_default_method(record)},
        active_calibration=record.active_calibration,
        calibrations=tuple(calibration.number for calibration in record.calibrations),
        aliases=tuple(alias.name for alias in record.aliases),
        created_at=utc(record.created_at),
        uploader=record.uploader,
        retired_at=None if record.retired_at is None else utc(record.retired_at),
        retired_reason=record.retired_reason,
        active_fits=record.active_fits or {},
    )


def _default_method(record: VersionRecord) -> dict[str, object]:
    """How a version is asked that nothing in it makes random."""
    if not record.manifest.get("deterministic"):
        return {}
    return {"method": "laplace" if "laplace" in (record.active_fits or {}) else "point"}


def alias_fact(record: AliasRecord) -> AliasFact:
    """An alias as a fact."""
    return AliasFact(
        model=record.model.name,
        name=record.name,
        version=record.version.number,
        revision=record.revision,
    )


def calibration_fact(record: CalibrationRecord) -> CalibrationFact:
    """A calibration as a fact."""
    return CalibrationFact(
        model=record.version.model.name,
        version=record.version.number,
        number=record.number,
        document=record.document,
        created_at=utc(record.created_at),
    )


def audit_fact(record: AuditRecord) -> AuditFact:
    """A change as a fact."""
    return AuditFact(
        at=utc(record.at),
        actor=record.actor,
        action=record.action,
        model=record.model,
        version=record.version,
        details=record.details,
    )


def _missing(model: str, kind: str, reference: str) -> NotFoundError:
    return NotFoundError(
        f"model `{model}` has no {kind} {reference[:64]!r}: "
        f"GET /v1/models/{model} lists its versions and aliases"
    )


def utc(moment: datetime) -> datetime:
    """A moment as it was stored; SQLite forgets that it was UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
