"""The operations on models, versions, aliases and calibrations.

Flow of an upload: verify the bundle, put the object, then insert the row; a crash between the
last two leaves only an object that nothing names. Flow of a deletion: delete the row, then, under
the write lock, the object if no row names it any more. Objects are put again under that lock
where a deletion came between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from dubito.errors import (
    BundleRefusedError,
    ConflictError,
    NotFoundError,
    PreconditionFailedError,
)
from dubito.registry.database import Database
from dubito.registry.facts import AliasFact, CalibrationFact, ModelFact, VersionFact
from dubito.registry.names import DEFAULT_ALIAS, check_name, version_number
from dubito.registry.objects import Objects
from dubito.registry.tables import AliasRow, CalibrationRow, ModelRow, VersionRow
from dubito_nn import Bundle, BundleError, load_bundle


class Registry:
    """Models and their versions, over a database and an object store.

    Args:
        database_url: SQLAlchemy URL; its tables are migrated at once.
        objects_dir: folder of the bundles.
    """

    def __init__(self, database_url: str, objects_dir: Path) -> None:
        self._objects = Objects(objects_dir)
        self._database = Database(database_url)
        self._database.migrate()

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def register(
        self,
        model: str,
        source: Path | bytes,
        *,
        defaults: Mapping[str, object] | None = None,
        prove: Callable[[Bundle], object] | None = None,
    ) -> VersionFact:
        """Verify and store a bundle as the next version of a model.

        The first version makes the model and its alias `default`.

        Args:
            model: name of the model.
            source: the bundle, as a file or as bytes.
            defaults: sampling choices of requests that make none.
            prove: called with the bundle before anything is stored; what it raises ends it.

        Raises:
            BundleRefusedError: the bundle is damaged, hostile or unknown; nothing is stored.
            InputError: the name does not follow the pattern.
        """
        check_name("model", model)
        bundle = verify_bundle(source)
        if prove is not None:
            prove(bundle)
        self._objects.put(bundle.digest, source)
        with self._database.writing() as session:
            self._objects.put(bundle.digest, source)
            row = _model_or_none(session, model)
            is_new = row is None
            if row is None:
                row = ModelRow(name=model, next_version=1)
                session.add(row)
            version = VersionRow(
                model=row,
                number=row.next_version,
                digest=bundle.digest,
                size_bytes=bundle.size_bytes,
                manifest=bundle.manifest.to_json(),
                defaults=dict(defaults or {}),
            )
            row.next_version += 1
            session.add(version)
            if is_new:
                session.add(AliasRow(model=row, version=version, name=DEFAULT_ALIAS))
            session.flush()
            session.refresh(version)
            return _version_fact(version)

    def models(self) -> tuple[ModelFact, ...]:
        """All models by name."""
        with self._database.reading() as session:
            rows = session.scalars(select(ModelRow).order_by(ModelRow.name))
            return tuple(_model_fact(row) for row in rows)

    def model(self, name: str) -> ModelFact:
        """One model.

        Raises:
            NotFoundError: no model of that name.
        """
        with self._database.reading() as session:
            return _model_fact(_model(session, name))

    def version(self, model: str, reference: str = DEFAULT_ALIAS) -> VersionFact:
        """One version by its number or an alias.

        Raises:
            NotFoundError: no such model, version or alias.
        """
        with self._database.reading() as session:
            return _version_fact(_version(session, model, reference))

    def bundle(self, digest: str) -> bytes:
        """The bytes of a bundle by its SHA-256."""
        return self._objects.get(digest)

    def delete_version(self, model: str, reference: str) -> None:
        """Delete a version, its calibrations, and its bundle where no other version has it.

        Raises:
            NotFoundError: no such model or version.
            ConflictError: an alias names the version.
        """
        with self._database.writing() as session:
            version = _version(session, model, reference)
            if version.aliases:
                names = ", ".join(f"`{alias.name}`" for alias in version.aliases)
                raise ConflictError(
                    f"version {version.number} of `{model}`: expected one that no alias names, "
                    f"got one named by {names}: move the alias to another version first"
                )
            digest = version.digest
            session.delete(version)
        with self._database.writing() as session:
            if not session.scalar(select(exists().where(VersionRow.digest == digest))):
                self._objects.delete(digest)

    def set_alias(
        self, model: str, alias: str, version: int, *, if_match: frozenset[int] | None = None
    ) -> AliasFact:
        """Point an alias to a version; make the alias where it is new.

        Args:
            model: name of the model.
            alias: name of the alias.
            version: number of the version.
            if_match: revisions of which the present one must be one; None: any or none.

        Raises:
            NotFoundError: no such model or version.
            PreconditionFailedError: the alias has another revision, or does not exist.
        """
        check_name("alias", alias)
        with self._database.writing() as session:
            target = _version(session, model, str(version))
            row = session.scalar(
                select(AliasRow).where(AliasRow.model_id == target.model_id, AliasRow.name == alias)
            )
            _check_revision(alias, row.revision if row else None, if_match)
            if row is None:
                row = AliasRow(model=target.model, version=target, name=alias, revision=1)
                session.add(row)
            else:
                row.version = target
                row.revision += 1
            session.flush()
            return _alias_fact(row)

    def add_calibration(
        self, model: str, reference: str, document: Mapping[str, object]
    ) -> CalibrationFact:
        """Keep a calibration under the version's next number and make it active.

        Raises:
            NotFoundError: no such model or version.
        """
        with self._database.writing() as session:
            version = _version(session, model, reference)
            last = session.scalar(
                select(func.max(CalibrationRow.number)).where(
                    CalibrationRow.version_id == version.id
                )
            )
            row = CalibrationRow(version=version, number=(last or 0) + 1, document=dict(document))
            session.add(row)
            version.active_calibration = row.number
            session.flush()
            return _calibration_fact(row)

    def calibration(
        self, model: str, reference: str = DEFAULT_ALIAS, number: int | None = None
    ) -> CalibrationFact | None:
        """A calibration of a version by number; without one the active, None where none is.

        Raises:
            NotFoundError: no such model, version or calibration.
        """
        with self._database.reading() as session:
            version = _version(session, model, reference)
            wanted = version.active_calibration if number is None else number
            return None if wanted is None else _calibration_fact(_calibration(version, wanted))

    def set_active_calibration(
        self, model: str, reference: str, number: int | None
    ) -> CalibrationFact | None:
        """Make a calibration of a version the active one, or none of them.

        Raises:
            NotFoundError: no such model, version or calibration.
        """
        with self._database.writing() as session:
            version = _version(session, model, reference)
            row = None if number is None else _calibration(version, number)
            version.active_calibration = number
            return None if row is None else _calibration_fact(row)


def verify_bundle(source: Path | bytes) -> Bundle:
    """Read a bundle without running anything of it.

    Raises:
        BundleRefusedError: it is damaged, hostile or of an unknown format.
    """
    try:
        return load_bundle(source)
    except BundleError as error:
        raise BundleRefusedError(str(error)) from error


def _check_revision(alias: str, present: int | None, wanted: frozenset[int] | None) -> None:
    if wanted is None or present in wanted:
        return
    found = "no such alias" if present is None else f'"{present}"'
    raise PreconditionFailedError(
        f"alias `{alias}`: expected the revision that If-Match names, got {found}: "
        "read the model again and repeat the change if it is still wanted"
    )


def _model_or_none(session: Session, name: str) -> ModelRow | None:
    return session.scalar(select(ModelRow).where(ModelRow.name == name))


def _model(session: Session, name: str) -> ModelRow:
    row = _model_or_none(session, name)
    if row is None:
        raise NotFoundError(f"no model {name[:64]!r}: GET /v1/models lists those that exist")
    return row


def _version(session: Session, model: str, reference: str) -> VersionRow:
    parent = _model(session, model)
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
        kind = "alias" if number is None else "version"
        raise NotFoundError(
            f"model `{model}` has no {kind} {reference[:64]!r}: "
            f"GET /v1/models/{model} lists its versions and aliases"
        )
    return row


def _calibration(version: VersionRow, number: int) -> CalibrationRow:
    for row in version.calibrations:
        if row.number == number:
            return row
    known = ", ".join(str(row.number) for row in version.calibrations) or "none"
    raise NotFoundError(
        f"version {version.number} of `{version.model.name}` has no calibration {number}: "
        f"it has {known}"
    )


def _model_fact(row: ModelRow) -> ModelFact:
    return ModelFact(
        name=row.name,
        versions=tuple(_version_fact(version) for version in row.versions),
        aliases=tuple(_alias_fact(alias) for alias in row.aliases),
        created_at=_utc(row.created_at),
    )


def _version_fact(row: VersionRow) -> VersionFact:
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
        created_at=_utc(row.created_at),
    )


def _alias_fact(row: AliasRow) -> AliasFact:
    return AliasFact(
        model=row.model.name, name=row.name, version=row.version.number, revision=row.revision
    )


def _calibration_fact(row: CalibrationRow) -> CalibrationFact:
    return CalibrationFact(
        model=row.version.model.name,
        version=row.version.number,
        number=row.number,
        document=row.document,
        created_at=_utc(row.created_at),
    )


def _utc(moment: datetime) -> datetime:
    """A moment as it was stored; SQLite forgets that it was UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
