"""Whether the registry is whole: every row has what it names, and what nobody names is told.

Objects are listed before rows are read: an upload puts its object first, so one that is on its way
is not taken for an orphan because its row came later. An orphan is removed under the write lock,
under which an upload would put it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Exists, exists, select

from dubito.errors import DubitoError, UnavailableError
from dubito.registry.database import Database
from dubito.registry.names import DEFAULT_ALIAS
from dubito.registry.objects import Objects, StoredObject
from dubito.registry.orphans import drop_unnamed
from dubito.registry.rows import WHOLE
from dubito.registry.tables import JobRow, ModelRow, PoolRow, VersionRow

ORPHAN_AGE_S = 3600.0


@dataclass(frozen=True)
class Orphan:
    """An object, or a half-written file, that no row names; an upload may have been killed.

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
        num_models, num_versions, num_pools, num_results, num_objects: how much was looked at;
            results are those of finished jobs, objects those of bundles and pools.
        problems: what is not whole, a line each.
        orphans: what takes room for nothing; no problem.
    """

    num_models: int
    num_versions: int
    num_pools: int
    num_results: int
    num_objects: int
    problems: tuple[str, ...]
    orphans: tuple[Orphan, ...]


def check(
    database: Database, objects: Objects, *, fix: bool = False, min_age_s: float = ORPHAN_AGE_S
) -> CheckReport:
    """Look at every row and read every object; also while servers run.

    Args:
        database: the rows.
        objects: the bundles; pools and results of jobs lie beside them.
        fix: remove orphans.
        min_age_s: of the orphans that are removed; younger ones may be uploads on their way.

    Raises:
        UnavailableError: the database or the object store does not answer.
    """
    kinds = (
        _Kind(objects, lambda digest: exists().where(VersionRow.digest == digest)),
        _Kind(objects.beside("pools"), lambda digest: exists().where(PoolRow.digest == digest)),
    )
    stored = [tuple(kind.objects.stored()) for kind in kinds]
    rows = _read(database)
    problems = list(rows.problems)
    orphans: list[Orphan] = []
    fix_from_s = min_age_s if fix else None
    for kind, named, found in zip(kinds, (rows.bundles, rows.pools), stored, strict=True):
        for digest, what in named.items():
            problems += _object_problems(database, kind.objects, digest, what, kind.naming(digest))
        orphans += [
            _orphan(database, kind, one, fix_from_s) for one in found if one.digest not in named
        ]
        orphans += _unfinished(kind.objects, fix_from_s)
    for job, digest in rows.results.items():
        place, naming = objects.beside(f"jobs/{job}"), exists().where(JobRow.id == job)
        problems += _object_problems(database, place, digest, f"the result of {job}", naming)
    num_objects = sum(map(len, stored))
    return CheckReport(
        rows.num_models,
        rows.num_versions,
        rows.num_pools,
        len(rows.results),
        num_objects,
        tuple(problems),
        tuple(orphans),
    )


@dataclass(frozen=True)
class _Kind:
    """Objects of one kind, and whether a row names a digest."""

    objects: Objects
    naming: Callable[[str], Exists]


@dataclass(frozen=True)
class _Rows:
    """What rows name: digests of bundles and pools with what they are, results by job."""

    num_models: int
    num_versions: int
    num_pools: int
    problems: tuple[str, ...]
    bundles: Mapping[str, str]
    pools: Mapping[str, str]
    results: Mapping[str, str]


def _read(database: Database) -> _Rows:
    problems: list[str] = []
    bundles: dict[str, str] = {}
    with database.reading() as session:
        models = session.scalars(select(ModelRow).order_by(ModelRow.name).options(*WHOLE)).all()
        for model in models:
            problems += _model_problems(model)
            for version in model.versions:
                bundles[version.digest] = f"a bundle of {version.size_bytes} bytes"
        pools = session.scalars(select(PoolRow).order_by(PoolRow.name)).all()
        jobs = session.scalars(select(JobRow).order_by(JobRow.id)).all()
        return _Rows(
            len(models),
            sum(len(model.versions) for model in models),
            len(pools),
            tuple(problems),
            bundles,
            {pool.digest: f"pool `{pool.name}` of {pool.size_bytes} bytes" for pool in pools},
            {job.id: str(job.result["digest"]) for job in jobs if job.result is not None},
        )


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
    database: Database, objects: Objects, digest: str, what: str, naming: Exists
) -> Iterator[str]:
    try:
        actual = objects.actual_digest(digest)
    except UnavailableError:
        raise
    except DubitoError:
        actual = None
    if actual == digest or not _is_true(database, naming):  # deleted while it was looked at
        return
    got = "none" if actual is None else f"one of digest {actual}"
    yield f"object {digest}: expected {what}, got {got}"


def _orphan(
    database: Database, kind: _Kind, found: StoredObject, fix_from_s: float | None
) -> Orphan:
    age_s = max(0.0, time.time() - found.stored_at.timestamp())
    is_removed = False
    if fix_from_s is not None and age_s >= fix_from_s:
        naming = kind.naming(found.digest)
        is_removed = drop_unnamed(database, kind.objects, found.digest, naming)
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


def _is_true(database: Database, naming: Exists) -> bool:
    with database.reading() as session:
        return bool(session.scalar(select(naming)))
