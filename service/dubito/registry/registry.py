"""The operations on models, versions, aliases and calibrations.

Flow of an upload: verify the bundle, put the object, then insert the record; a crash between the
last two leaves only an object that nothing names. Flow of a deletion: delete the record, then,
under the write lock, the object if no record names it any more. Objects are put again under that
lock where a deletion came between. Every change writes a line of the audit in its own transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Exists, exists, func, select
from sqlalchemy.orm import Session

from dubito.errors import BundleRefusedError, ConflictError
from dubito.names import ANONYMOUS, DEFAULT_ALIAS, check_name
from dubito.registry.database import Database, records
from dubito.registry.database.tables import (
    AliasRecord,
    CalibrationRecord,
    ModelRecord,
    VersionRecord,
)
from dubito.registry.facts import AliasFact, AuditFact, CalibrationFact, ModelFact, VersionFact
from dubito.registry.fits import FitStore
from dubito.registry.jobs import refuse_needed
from dubito.registry.monitoring import Journal
from dubito.registry.noting import Change, Noting, note
from dubito.registry.objects import Objects
from dubito.registry.orphans import drop_unnamed, without_orphan
from dubito.registry.revisions import Expected, check_revision

if TYPE_CHECKING:  # what it imports takes a second: whoever only looks shall not wait for it
    from dubito_nn import Bundle


class Registry:
    """Models and their versions, over a database and an object store.

    The `actor` of every change is the name of the key that it was made with.

    Args:
        database: its tables are made where it is new.
        objects: the bundles.

    Raises:
        UnavailableError: the tables are older or newer than this build.
    """

    def __init__(self, database: Database, objects: Objects) -> None:
        self._objects = objects
        self._database = database
        self._database.prepare()
        self.noting = Noting(database)
        self.journal = Journal(database)
        self.fits = FitStore(self.noting, database, objects)

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Have a function called after every change that is made here; it must be quick."""
        self.noting.listen(listener)

    def changes(self) -> int:
        """A number that grows with every change, whoever makes it."""
        return self._database.changes()

    def register(
        self,
        model: str,
        source: Path | bytes,
        *,
        defaults: Mapping[str, object] | None = None,
        prove: Callable[[Bundle], object] | None = None,
        actor: str = ANONYMOUS,
    ) -> VersionFact:
        """Verify and store a bundle as the next version of a model.

        The first version makes the model and its alias `default`.

        Args:
            model: name of the model.
            source: the bundle, as a file or as bytes.
            defaults: sampling choices of requests that make none.
            prove: called with the bundle before anything is stored; what it raises ends it.
            actor: who uploads.

        Raises:
            BundleRefusedError: the bundle is damaged, hostile or unknown; nothing is stored.
            InputError: the name does not follow the pattern.
        """
        check_name("model", model)
        bundle = verify_bundle(source)
        if prove is not None:
            prove(bundle)
        self._objects.put(bundle.digest, source)
        object_and_naming = (self._database, self._objects, bundle.digest, _naming(bundle.digest))
        with without_orphan(*object_and_naming), self.noting.writing() as session:
            self._objects.put(bundle.digest, source)
            record = records.model_or_none(session, model)
            is_new = record is None
            if record is None:
                record = ModelRecord(name=model, next_version=1)
                session.add(record)
            version = VersionRecord(
                model=record,
                number=record.next_version,
                digest=bundle.digest,
                size_bytes=bundle.size_bytes,
                manifest=bundle.manifest.to_json(),
                defaults=dict(defaults or {}),
                uploader=actor,
            )
            record.next_version += 1
            session.add(version)
            if is_new:
                session.add(AliasRecord(model=record, version=version, name=DEFAULT_ALIAS))
            note(session, actor, "upload", version, digest=bundle.digest)
            session.flush()
            session.refresh(version)
            return records.version_fact(version)

    def models(self) -> tuple[ModelFact, ...]:
        """Return all models by name."""
        with self._database.reading() as session:
            return tuple(map(records.model_fact, records.all_models(session)))

    def model(self, name: str) -> ModelFact:
        """Return one model.

        Raises:
            NotFoundError: no model of that name.
        """
        with self._database.reading() as session:
            return records.model_fact(records.find_model(session, name, *records.WHOLE))

    def version(self, model: str, reference: str = DEFAULT_ALIAS) -> VersionFact:
        """Return one version, by its number or an alias.

        Raises:
            NotFoundError: no such model, version or alias.
        """
        with self._database.reading() as session:
            return records.version_fact(records.find_version(session, model, reference))

    def bundle(self, digest: str) -> bytes:
        """The bytes of a bundle by its SHA-256."""
        return self._objects.get(digest)

    def delete_version(self, model: str, reference: str, *, actor: str = ANONYMOUS) -> None:
        """Delete a version, its calibrations and fits, and its bundle where no other has it.

        Raises:
            NotFoundError: no such model or version.
            ConflictError: an alias names the version, or a job needs it.
        """
        with self.noting.writing() as session:
            version = records.find_version(session, model, reference)
            records.refuse_aliased(version)
            refuse_needed(session, version)
            change = note(session, actor, "delete", version, digest=version.digest)
            fits = tuple(fit.digest for fit in version.fits)
            session.delete(version)
        self.fits.drop(fits)
        if drop_unnamed(self._database, self._objects, change.digest, _naming(change.digest)):
            self.noting.tell(replace(change, action="drop"))

    def retire(
        self, model: str, reference: str, reason: str, *, actor: str = ANONYMOUS
    ) -> VersionFact:
        """Let a version answer no requests any more, and be named by no alias; it is kept.

        Args:
            model: name of the model.
            reference: number of the version.
            reason: told to whoever asks for it, at most 500 characters.
            actor: who retires it.

        Raises:
            NotFoundError: no such model or version.
            ConflictError: an alias names the version.
        """
        with self.noting.writing() as session:
            version = records.find_version(session, model, reference)
            records.refuse_aliased(version)
            version.retired_at = datetime.now(UTC)
            version.retired_reason = reason
            note(session, actor, "retire", version, reason=reason)
            session.flush()
            return records.version_fact(version)

    def restore(self, model: str, reference: str, *, actor: str = ANONYMOUS) -> VersionFact:
        """Take a retirement back; a version that is not retired is left as it is.

        Raises:
            NotFoundError: no such model or version.
        """
        with self.noting.writing() as session:
            version = records.find_version(session, model, reference)
            version.retired_at = version.retired_reason = None
            note(session, actor, "restore", version)
            session.flush()
            return records.version_fact(version)

    def set_alias(
        self,
        model: str,
        alias: str,
        version: int,
        *,
        if_match: Expected | None = None,
        actor: str = ANONYMOUS,
    ) -> AliasFact:
        """Point an alias to a version; make the alias where it is new.

        Args:
            model: name of the model.
            alias: name of the alias.
            version: number of the version.
            if_match: what the present revision must be in; None: any or none.
            actor: who moves it.

        Raises:
            NotFoundError: no such model or version.
            ConflictError: the version is retired.
            PreconditionFailedError: the alias has another revision, or does not exist.
        """
        with self.noting.writing() as session:
            target, record = _check_move(session, model, alias, version, if_match)
            before = None if record is None else record.version.number
            if record is None:
                record = AliasRecord(model=target.model, version=target, name=alias, revision=1)
                session.add(record)
            else:
                record.version = target
                record.revision += 1
            note(session, actor, "alias", target, alias=alias, before=before)
            session.flush()
            return records.alias_fact(record)

    def alias(self, model: str, alias: str) -> AliasFact:
        """Return one alias.

        Raises:
            NotFoundError: no such model or alias.
        """
        with self._database.reading() as session:
            return records.alias_fact(records.find_alias(session, model, alias))

    def check_move(
        self, model: str, alias: str, version: int, *, if_match: Expected | None = None
    ) -> VersionFact:
        """The version that an alias shall point to, if `set_alias` would not refuse it now.

        Raises:
            DubitoError: as `set_alias`.
        """
        with self._database.reading() as session:
            return records.version_fact(_check_move(session, model, alias, version, if_match)[0])

    def delete_alias(
        self,
        model: str,
        alias: str,
        *,
        if_match: Expected | None = None,
        actor: str = ANONYMOUS,
    ) -> None:
        """Delete an alias other than `default`.

        Raises:
            NotFoundError: no such model or alias.
            ConflictError: it is `default`.
            PreconditionFailedError: the alias has another revision.
        """
        with self.noting.writing() as session:
            record = records.find_alias(session, model, alias)
            if alias == DEFAULT_ALIAS:
                raise ConflictError(
                    f"alias `{DEFAULT_ALIAS}` of `{model}`: expected another alias, since requests "
                    "without a version go where this one points: move it instead"
                )
            check_revision(alias, record.revision, if_match)
            note(session, actor, "alias-delete", record.version, alias=alias)
            session.delete(record)

    def add_calibration(
        self,
        model: str,
        reference: str,
        document: Mapping[str, object],
        *,
        is_active: bool = True,
        actor: str = ANONYMOUS,
    ) -> CalibrationFact:
        """Keep a calibration under the version's next number; `is_active`: in place of the active.

        Raises:
            NotFoundError: no such model or version.
        """
        with self.noting.writing() as session:
            version = records.find_version(session, model, reference)
            last = session.scalar(
                select(func.max(CalibrationRecord.number)).where(
                    CalibrationRecord.version_id == version.id
                )
            )
            number = (last or 0) + 1
            record = CalibrationRecord(version=version, number=number, document=dict(document))
            session.add(record)
            if is_active:
                version.active_calibration = record.number
            details = {"calibration": record.number, "active": is_active}
            note(session, actor, "calibrate", version, **details)
            session.flush()
            return records.calibration_fact(record)

    def calibration(
        self, model: str, reference: str = DEFAULT_ALIAS, number: int | None = None
    ) -> CalibrationFact | None:
        """A calibration of a version by number; without one the active, None where none is.

        Raises:
            NotFoundError: no such model, version or calibration.
        """
        with self._database.reading() as session:
            version = records.find_version(session, model, reference)
            wanted = version.active_calibration if number is None else number
            if wanted is None:
                return None
            return records.calibration_fact(records.find_calibration(version, wanted))

    def set_active_calibration(
        self, model: str, reference: str, number: int | None, *, actor: str = ANONYMOUS
    ) -> CalibrationFact | None:
        """Make a calibration of a version the active one, or none of them.

        Raises:
            NotFoundError: no such model, version or calibration.
        """
        with self.noting.writing() as session:
            version = records.find_version(session, model, reference)
            record = None if number is None else records.find_calibration(version, number)
            version.active_calibration = number
            note(session, actor, "activate", version, calibration=number)
            return None if record is None else records.calibration_fact(record)

    def audit(self, model: str | None = None, *, limit: int = 1000) -> tuple[AuditFact, ...]:
        """The last changes, the newest first; of one model, or of all.

        Args:
            model: name of a model; None: of all.
            limit: most changes.

        Raises:
            NotFoundError: no model of that name.
        """
        with self._database.reading() as session:
            return tuple(map(records.audit_fact, records.last_changes(session, model, limit)))


def verify_bundle(source: Path | bytes) -> Bundle:
    """Read a bundle without running anything of it.

    Raises:
        BundleRefusedError: it is damaged, hostile or of an unknown format.
    """
    from dubito_nn import BundleError, load_bundle

    try:
        return load_bundle(source)
    except BundleError as error:
        raise BundleRefusedError(str(error)) from error


def _naming(digest: str) -> Exists:
    return exists().where(VersionRecord.digest == digest)


def _check_move(
    session: Session, model: str, alias: str, version: int, if_match: Expected | None
) -> tuple[VersionRecord, AliasRecord | None]:
    check_name("alias", alias)
    target = records.find_version(session, model, str(version))
    record = records.alias_or_none(session, target.model, alias)
    check_revision(alias, record.revision if record else None, if_match)
    if target.retired_at is not None:
        raise ConflictError(
            f"version {target.number} of `{model}`: expected one that is not retired, got one that "
            f"is ({target.retired_reason}): restore it first, or choose another"
        )
    return target, record
