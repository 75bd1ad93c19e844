"""Whether the registry is whole: every record has what it names, and what nobody names is told.

Objects are listed before records are read: an upload puts its object first, so one that is on its
way is not taken for an orphan because its record came later. An orphan is removed under the write
lock, under which an upload would put it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Exists, exists, select

from dubito.errors import DubitoError, UnavailableError
from dubito.names import DEFAULT_ALIAS
from dubito.registry.database import Database
from dubito.registry.database.records import all_models
from dubito.registry.database.tables import JobRecord, ModelRecord, PoolRecord, VersionRecord
from dubito.registry.fits import naming as naming_fit
from dubito.registry.objects import Objects, StoredObject
from dubito.registry.orphans import drop_unnamed

ORPHAN_AGE_S = 3600.0


@dataclass(frozen=True)
class Orphan:
    """An object, or a half-written file, that no record names; an upload may have been killed.

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
    """The outcome of a check.

    Args:
        num_models, num_versions, num_pools, num_results, num_objects: how much was looked at;
            results are those of finished jobs, objects those of bundles, pools and fits.
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
    """Look at every record and read every object; also while servers run.

    Args:
        database: the records.
        objects: the bundles; pools, fits and results of jobs lie beside them.
        fix: remove orphans.
        min_age_s: of the orphans that are removed; younger ones may be uploads on their way.

    Raises:
        UnavailableError: the database or the object store does not answer.
    """
    kinds = (
        _Kind(objects, lambda digest: exists().where(VersionRecord.digest == digest)),
        _Kind(objects.beside("pools"), lambda digest: exists().where(PoolRecord.digest == digest)),
        _Kind(objects.beside("fits"), naming_fit),
    )
    stored = [tuple(kind.objects.stored()) for kind in kinds]
    records = named_objects(database)
    problems = list(records.problems)
    orphans: list[Orphan] = []
    fix_from_s = min_age_s if fix else None
    for kind, named, listed in zip(kinds, records.kinds, stored, strict=True):
        for digest, what in named.items():
            problems += _object_problems(database, kind.objects, digest, what, kind.naming(digest))
        orphans += [
            _orphan(database, kind, item, fix_from_s) for item in listed if item.digest not in named
        ]
        orphans += _unfinished(kind.objects, fix_from_s)
    for job, digest in records.results.items():
        results, naming = objects.beside(f"jobs/{job}"), exists().where(JobRecord.id == job)
        problems += _object_problems(database, results, digest, f"the result of {job}", naming)
    num_objects = sum(map(len, stored))
    return CheckReport(
        records.num_models,
        records.num_versions,
        records.num_pools,
        len(records.results),
        num_objects,
        tuple(problems),
        tuple(orphans),
    )


@dataclass(frozen=True)
class _Kind:
    """Objects of one kind, and whether a record names a digest."""

    objects: Objects
    naming: Callable[[str], Exists]


@dataclass(frozen=True)
class NamedObjects:
    """The digests that records name: of bundles, pools, fits, described, and of results by job."""

    num_models: int
    num_versions: int
    num_pools: int
    problems: tuple[str, ...]
    bundles: Mapping[str, str]
    pools: Mapping[str, str]
    results: Mapping[str, str]
    fits: Mapping[str, str]

    @property
    def kinds(self) -> tuple[Mapping[str, str], ...]:
        """Those whose objects lie together: of bundles, pools and fits."""
        return self.bundles, self.pools, self.fits


def named_objects(database: Database) -> NamedObjects:
    """What the records name, and what is wrong with them."""
    problems: list[str] = []
    bundles: dict[str, str] = {}
    fits: dict[str, str] = {}
    with database.reading() as session:
        models = all_models(session)
        for model in models:
            problems += _model_problems(model)
            for version in model.versions:
                bundles[version.digest] = f"a bundle of {version.size_bytes} bytes"
                for fit in version.fits:
                    fits[fit.digest] = f"the numbers of a fit of `{fit.method}`"
        pools = session.scalars(select(PoolRecord).order_by(PoolRecord.name)).all()
        jobs = session.scalars(select(JobRecord).order_by(JobRecord.id)).all()
        return NamedObjects(
            len(models),
            sum(len(model.versions) for model in models),
            len(pools),
            tuple(problems),
            bundles,
            {pool.digest: f"pool `{pool.name}` of {pool.size_bytes} bytes" for pool in pools},
            {job.id: str(job.result["digest"]) for job in jobs if job.result is not None},
            fits,
        )


def _model_problems(model: ModelRecord) -> Iterator[str]:
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
        calibrations = [calibration.number for calibration in version.calibrations]
        shown = f"version {version.number} of `{model.name}`"
        if calibrations != list(range(1, len(calibrations) + 1)):
            yield f"{shown}: expected calibrations from 1 without gaps, got {calibrations}"
        if (
            version.active_calibration is not None
            and version.active_calibration not in calibrations
        ):
            yield f"{shown}: calibration {version.active_calibration} is active and not there"
        yield from _fit_problems(version, shown)


def _fit_problems(version: VersionRecord, shown: str) -> Iterator[str]:
    fits = {fit.number: fit.method for fit in version.fits}
    if list(fits) != list(range(1, len(fits) + 1)):
        yield f"{shown}: expected fits from 1 without gaps, got {list(fits)}"
    for method, number in (version.active_fits or {}).items():
        if fits.get(number) != method:
            yield f"{shown}: fit {number} of `{method}` is active and not there"


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
    database: Database, kind: _Kind, stored: StoredObject, fix_from_s: float | None
) -> Orphan:
    age_s = max(0.0, time.time() - stored.stored_at.timestamp())
    is_removed = False
    if fix_from_s is not None and age_s >= fix_from_s:
        naming = kind.naming(stored.digest)
        is_removed = drop_unnamed(database, kind.objects, stored.digest, naming)
    return Orphan(stored.digest, stored.size_bytes, age_s, is_removed)


def _unfinished(objects: Objects, fix_from_s: float | None) -> Iterator[Orphan]:
    for path in objects.unfinished():
        with suppress(FileNotFoundError):
            status = path.stat()
            age_s = max(0.0, time.time() - status.st_mtime)
            is_removed = fix_from_s is not None and age_s >= fix_from_s
            if is_removed:
                path.unlink()
            yield Orphan(path.name, status.st_size, age_s, is_removed)


def _is_true(database: Database, naming: Exists) -> bool:
    with database.reading() as session:
        return bool(session.scalar(select(naming)))
