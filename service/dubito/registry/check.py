"""Whether the registry is whole: every row has what it names, and what nobody names is told.

Objects are listed before rows are read: an upload puts its object first, so one that is on its way
is not taken for an orphan because its row came later. An orphan is removed under the write lock,
under which an upload would put it again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import exists, select

from dubito.errors import DubitoError, UnavailableError
from dubito.registry.database import Database
from dubito.registry.names import DEFAULT_ALIAS
from dubito.registry.objects import Objects, StoredObject
from dubito.registry.rows import WHOLE
from dubito.registry.tables import ModelRow, VersionRow

ORPHAN_AGE_S = 3600.0


@dataclass(frozen=True)
class Orphan:
    """An object, or a half-written file, that no version names; an upload may have been killed.

    Args:
        name: digest, or name of the file.
        size_bytes: its size.
        age_s: since it was written.
        is_removed: whether the check removed it.
    """

    name: str
    size_bytes: int
    age_s: float
    is_removed: bool


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Args:
        num_models, num_versions, num_objects: how much was looked at.
        problems: what is not whole, a line each.
        orphans: what takes room for nothing; no problem.
    """

    num_models: int
    num_versions: int
    num_objects: int
    problems: tuple[str, ...]
    orphans: tuple[Orphan, ...]


def check(
    database: Database, objects: Objects, *, fix: bool = False, min_age_s: float = ORPHAN_AGE_S
) -> CheckReport:
    """Look at every row and read every object; also while servers run.

    Args:
        database: the rows.
        objects: the bundles.
        fix: remove orphans.
        min_age_s: of the orphans that are removed; younger ones may be uploads on their way.

    Raises:
        UnavailableError: the database or the object store does not answer.
    """
    stored = tuple(objects.stored())
    problems: list[str] = []
    named: dict[str, int] = {}
    num_versions = 0
    with database.reading() as session:
        models = session.scalars(select(ModelRow).order_by(ModelRow.name).options(*WHOLE)).all()
        for model in models:
            problems += _model_problems(model)
            num_versions += len(model.versions)
            named.update({version.digest: version.size_bytes for version in model.versions})
    for digest, size_bytes in named.items():
        problems += _object_problems(database, objects, digest, size_bytes)
    fix_from_s = min_age_s if fix else None
    orphans = [
        _orphan(database, objects, one, fix_from_s) for one in stored if one.digest not in named
    ]
    orphans += _unfinished(objects, fix_from_s)
    return CheckReport(len(models), num_versions, len(stored), tuple(problems), tuple(orphans))


def _model_problems(model: ModelRow) -> Iterator[str]:
    name = f"model `{model.name}`"
    numbers = [version.number for version in model.versions]
    if not numbers:
        yield f"{name}: expected versions, got none"
    elif max(numbers) >= model.next_version:
        yield f"{name}: expected a next number above {max(numbers)}, got {model.next_version}"
    if DEFAULT_ALIAS not in [alias.name for alias in model.aliases]:
        yield f"{name}: expected the alias `{DEFAULT_ALIAS}`, got none"
    for alias in model.aliases:
        if alias.version.model_id != model.id:
            yield f"{name}: alias `{alias.name}` names a version of another model"
        elif alias.version.retired_at is not None:
            yield f"{name}: alias `{alias.name}` names a version that is retired"
    for version in model.versions:
        found = [calibration.number for calibration in version.calibrations]
        one = f"version {version.number} of `{model.name}`"
        if found != list(range(1, len(found) + 1)):
            yield f"{one}: expected calibrations from 1 without gaps, got {found}"
        if version.active_calibration is not None and version.active_calibration not in found:
            yield f"{one}: calibration {version.active_calibration} is active and not there"


def _object_problems(
    database: Database, objects: Objects, digest: str, size_bytes: int
) -> Iterator[str]:
    try:
        actual = objects.actual_digest(digest)
    except UnavailableError:
        raise
    except DubitoError:
        actual = None
    if actual == digest or not _is_named(database, digest):  # deleted while it was looked at
        return
    got = "none" if actual is None else f"one of digest {actual}"
    yield f"object {digest}: expected a bundle of {size_bytes} bytes, got {got}"


def _orphan(
    database: Database, objects: Objects, found: StoredObject, fix_from_s: float | None
) -> Orphan:
    age_s = max(0.0, time.time() - found.stored_at.timestamp())
    is_removed = False
    if fix_from_s is not None and age_s >= fix_from_s:
        with database.writing() as session:
            if not session.scalar(select(exists().where(VersionRow.digest == found.digest))):
                objects.delete(found.digest)
                is_removed = True
    return Orphan(found.digest, found.size_bytes, age_s, is_removed)


def _unfinished(objects: Objects, fix_from_s: float | None) -> Iterator[Orphan]:
    for path in objects.unfinished():
        with suppress(FileNotFoundError):
            found = path.stat()
            age_s = max(0.0, time.time() - found.st_mtime)
            is_removed = fix_from_s is not None and age_s >= fix_from_s
            if is_removed:
                path.unlink()
            yield Orphan(path.name, found.st_size, age_s, is_removed)


def _is_named(database: Database, digest: str) -> bool:
    with database.reading() as session:
        return bool(session.scalar(select(exists().where(VersionRow.digest == digest))))
