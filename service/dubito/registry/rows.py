"""From names to rows, and from rows to facts."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload
from sqlalchemy.orm.interfaces import ORMOption

from dubito.errors import NotFoundError
from dubito.registry.facts import AliasFact, AuditFact, CalibrationFact, ModelFact, VersionFact
from dubito.registry.names import version_number
from dubito.registry.tables import AliasRow, AuditRow, CalibrationRow, ModelRow, VersionRow

# A model with all that its fact tells, in a handful of queries however many versions it has.
WHOLE = (
    selectinload(ModelRow.aliases),
    selectinload(ModelRow.versions).selectinload(VersionRow.aliases),
    selectinload(ModelRow.versions).selectinload(VersionRow.calibrations),
)


def model_or_none(session: Session, name: str, *options: ORMOption) -> ModelRow | None:
    """The row of a model, if there is one."""
    return session.scalar(select(ModelRow).where(ModelRow.name == name).options(*options))


def find_model(session: Session, name: str, *options: ORMOption) -> ModelRow:
    """The row of a model, loaded as the options say.

    Raises:
        NotFoundError: no model of that name.
    """
    row = model_or_none(session, name, *options)
    if row is None:
        raise NotFoundError(f"no model {name[:64]!r}: GET /v1/models lists those that exist")
    return row


def find_version(session: Session, model: str, reference: str) -> VersionRow:
    """The row of a version, by its number or an alias.

    Raises:
        NotFoundError: no such model, version or alias.
    """
    parent = find_model(session, model)
    number = version_number(reference)
    query = select(VersionRow).where(VersionRow.model_id == parent.id)
    if number is None:
        query = query.join(AliasRow, AliasRow.version_id == VersionRow.id).where(
            AliasRow.name == reference
        )
    else:
        query = query.where(VersionRow.number == number)
    row = session.scalar(query)
    if row is None:
        raise _missing(model, "alias" if number is None else "version", reference)
    return row


def alias_or_none(session: Session, model: ModelRow, name: str) -> AliasRow | None:
    """The row of an alias, if there is one."""
    return session.scalar(
        select(AliasRow).where(AliasRow.model_id == model.id, AliasRow.name == name)
    )


def find_alias(session: Session, model: str, name: str) -> AliasRow:
    """The row of an alias.

    Raises:
        NotFoundError: no such model or alias.
    """
    row = alias_or_none(session, find_model(session, model), name)
    if row is None:
        raise _missing(model, "alias", name)
    return row


def find_calibration(version: VersionRow, number: int) -> CalibrationRow:
    """The row of a calibration.

    Raises:
        NotFoundError: the version has no calibration of that number.
    """
    for row in version.calibrations:
        if row.number == number:
            return row
    known = ", ".join(str(row.number) for row in version.calibrations) or "none"
    raise NotFoundError(
        f"version {version.number} of `{version.model.name}` has no calibration {number}: "
        f"it has {known}"
    )


def model_fact(row: ModelRow) -> ModelFact:
    """A model as a fact."""
    return ModelFact(
        name=row.name,
        versions=tuple(version_fact(version) for version in row.versions),
        aliases=tuple(alias_fact(alias) for alias in row.aliases),
        created_at=utc(row.created_at),
    )


def version_fact(row: VersionRow) -> VersionFact:
    """A version as a fact."""
    return VersionFact(
        model=row.model.name,
        number=row.number,
        digest=row.digest,
        size_bytes=row.size_bytes,
        manifest=row.manifest,
        defaults=row.defaults,
        active_calibration=row.active_calibration,
        calibrations=tuple(calibration.number for calibration in row.calibrations),
        aliases=tuple(alias.name for alias in row.aliases),
        created_at=utc(row.created_at),
        uploader=row.uploader,
        retired_at=None if row.retired_at is None else utc(row.retired_at),
        retired_reason=row.retired_reason,
    )


def alias_fact(row: AliasRow) -> AliasFact:
    """An alias as a fact."""
    return AliasFact(
        model=row.model.name, name=row.name, version=row.version.number, revision=row.revision
    )


def calibration_fact(row: CalibrationRow) -> CalibrationFact:
    """A calibration as a fact."""
    return CalibrationFact(
        model=row.version.model.name,
        version=row.version.number,
        number=row.number,
        document=row.document,
        created_at=utc(row.created_at),
    )


def audit_fact(row: AuditRow) -> AuditFact:
    """A change as a fact."""
    return AuditFact(
        at=utc(row.at),
        actor=row.actor,
        action=row.action,
        model=row.model,
        version=row.version,
        details=row.details,
    )


def _missing(model: str, kind: str, reference: str) -> NotFoundError:
    return NotFoundError(
        f"model `{model}` has no {kind} {reference[:64]!r}: "
        f"GET /v1/models/{model} lists its versions and aliases"
    )


def utc(moment: datetime) -> datetime:
    """A moment as it was stored; SQLite forgets that it was UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
