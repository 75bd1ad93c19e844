"""The registry: numbers, aliases, calibrations, deletion, refusal, under concurrency."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import event, text

from dubito.errors import (
    BundleRefusedError,
    ConflictError,
    InputError,
    NotFoundError,
    PreconditionFailedError,
)
from dubito.registry import Registry
from dubito.registry.database import Database
from dubito.registry.noting import Change
from dubito.registry.objects import Objects

from .conftest import Bundles


def _open(url: str, folder: Path) -> Registry:
    return Registry(Database(url), Objects.local(folder / "objects"))


@pytest.fixture
def registry(database_url: str, tmp_path: Path) -> Iterator[Registry]:
    opened = _open(database_url, tmp_path)
    yield opened
    opened.close()


def _objects(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "objects").rglob("*") if path.is_file())


def test_the_first_version_makes_the_model_and_its_alias_default(
    registry: Registry, bundles: Bundles, tmp_path: Path
) -> None:
    fact = registry.register("digits", bundles("first"), defaults={"num_samples": 32})
    digest = hashlib.sha256(bundles("first").read_bytes()).hexdigest()
    assert (fact.model, fact.number, fact.aliases) == ("digits", 1, ("default",))
    assert fact.digest == digest
    assert fact.defaults == {"num_samples": 32}
    assert fact.created_at.tzinfo is not None
    assert registry.version("digits") == registry.version("digits", "1") == fact
    assert _objects(tmp_path) == [digest]
    assert registry.bundle(digest) == bundles("first").read_bytes()


def test_a_bundle_may_come_as_bytes(registry: Registry, bundles: Bundles) -> None:
    fact = registry.register("digits", bundles("first").read_bytes())
    assert registry.bundle(fact.digest) == bundles("first").read_bytes()


def test_a_number_is_never_given_twice_even_after_a_deletion(
    registry: Registry, bundles: Bundles
) -> None:
    registry.register("digits", bundles("first"))
    registry.register("digits", bundles("second"))
    registry.delete_version("digits", "2")
    assert registry.register("digits", bundles("second")).number == 3
    assert [version.number for version in registry.model("digits").versions] == [1, 3]


def test_many_uploads_at_once_get_numbers_of_their_own(
    registry: Registry, bundles: Bundles
) -> None:
    bundle = bundles("first").read_bytes()
    with ThreadPoolExecutor(8) as pool:
        facts = list(pool.map(lambda _: registry.register("digits", bundle), range(16)))
    assert sorted(fact.number for fact in facts) == list(range(1, 17))
    assert [alias.version for alias in registry.model("digits").aliases] == [1]


def test_two_processes_worth_of_registries_share_one_directory(
    registry: Registry, bundles: Bundles, database_url: str, tmp_path: Path
) -> None:
    other = _open(database_url, tmp_path)
    registry.register("digits", bundles("first"))
    assert other.register("digits", bundles("second")).number == 2
    other.close()
    assert len(registry.models()[0].versions) == 2


@pytest.mark.parametrize("name", ["", "Digits", "1st", "../up", "a/b", "a" * 65, "a\n"])
def test_a_name_off_the_pattern_is_refused(registry: Registry, bundles: Bundles, name: str) -> None:
    with pytest.raises(InputError, match="expected"):
        registry.register(name, bundles("first"))
    assert registry.models() == ()


def test_a_bad_bundle_leaves_nothing_behind(
    registry: Registry, bundles: Bundles, tmp_path: Path
) -> None:
    with pytest.raises(BundleRefusedError):
        registry.register("digits", bundles("first").read_bytes()[:-100])
    assert registry.models() == ()
    assert _objects(tmp_path) == []


def test_what_the_proof_raises_leaves_nothing_behind(
    registry: Registry, bundles: Bundles, tmp_path: Path
) -> None:
    def refuse(_: object) -> None:
        raise BundleRefusedError("does not run here")

    with pytest.raises(BundleRefusedError, match="does not run here"):
        registry.register("digits", bundles("first"), prove=refuse)
    assert _objects(tmp_path) == []


def test_an_alias_moves_and_counts_its_moves(registry: Registry, bundles: Bundles) -> None:
    registry.register("digits", bundles("first"))
    registry.register("digits", bundles("second"))
    assert registry.set_alias("digits", "best", 1).revision == 1
    moved = registry.set_alias("digits", "best", 2, if_match=frozenset({1}))
    assert (moved.version, moved.revision) == (2, 2)
    assert registry.version("digits", "best").number == 2


def test_a_stale_revision_moves_nothing(registry: Registry, bundles: Bundles) -> None:
    registry.register("digits", bundles("first"))
    registry.register("digits", bundles("second"))
    registry.set_alias("digits", "default", 2)
    with pytest.raises(PreconditionFailedError, match='got "2"'):
        registry.set_alias("digits", "default", 1, if_match=frozenset({1}))
    with pytest.raises(PreconditionFailedError, match="no such alias"):
        registry.set_alias("digits", "fresh", 1, if_match=frozenset({1}))
    assert registry.version("digits").number == 2


def test_of_many_moves_from_one_revision_one_wins(registry: Registry, bundles: Bundles) -> None:
    registry.register("digits", bundles("first"))

    def move(_: int) -> bool:
        try:
            registry.set_alias("digits", "default", 1, if_match=frozenset({1}))
        except PreconditionFailedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(move, range(8))) == 1


def test_a_version_that_an_alias_names_is_kept(registry: Registry, bundles: Bundles) -> None:
    registry.register("digits", bundles("first"))
    with pytest.raises(ConflictError, match="`default`"):
        registry.delete_version("digits", "1")
    assert registry.version("digits").number == 1


def test_a_bundle_goes_with_the_last_version_that_has_it(
    registry: Registry, bundles: Bundles, tmp_path: Path
) -> None:
    registry.register("digits", bundles("first"))
    for _ in range(2):
        registry.register("digits", bundles("second"))
    registry.delete_version("digits", "2")
    assert len(_objects(tmp_path)) == 2
    registry.delete_version("digits", "3")
    assert _objects(tmp_path) == [registry.version("digits").digest]


def test_calibrations_are_numbered_kept_and_chosen(registry: Registry, bundles: Bundles) -> None:
    registry.register("digits", bundles("first"))
    assert registry.calibration("digits") is None
    document = {"temperature": 1.0000000000000002, "rows": [0.1, 1e-300]}
    assert registry.add_calibration("digits", "default", document).number == 1
    assert registry.add_calibration("digits", "1", {"temperature": 2.0}).number == 2
    assert registry.version("digits").active_calibration == 2
    registry.set_active_calibration("digits", "default", 1)
    active = registry.calibration("digits")
    assert active is not None
    assert active.document == document
    assert registry.set_active_calibration("digits", "default", None) is None
    assert registry.calibration("digits") is None
    with pytest.raises(NotFoundError, match="it has 1, 2"):
        registry.set_active_calibration("digits", "default", 3)


def test_calibrations_go_with_their_version(
    registry: Registry, bundles: Bundles, database_url: str
) -> None:
    registry.register("digits", bundles("first"))
    registry.register("digits", bundles("second"))
    registry.add_calibration("digits", "2", {"temperature": 2.0})
    registry.delete_version("digits", "2")
    database = Database(database_url)
    with database.reading() as session:
        assert session.scalar(text("SELECT count(*) FROM calibrations")) == 0
    database.close()


@pytest.mark.parametrize("reference", ["9", "nobody", "../1", "999999999999", "0", "-1"])
def test_an_unknown_version_is_not_found(
    registry: Registry, bundles: Bundles, reference: str
) -> None:
    registry.register("digits", bundles("first"))
    with pytest.raises(NotFoundError):
        registry.version("digits", reference)


def test_a_retired_version_gets_no_alias_until_it_is_restored(
    registry: Registry, bundles: Bundles
) -> None:
    registry.register("digits", bundles("first"))
    registry.register("digits", bundles("second"))
    with pytest.raises(ConflictError, match="`default`"):
        registry.retire("digits", "1", "worse")
    retired = registry.retire("digits", "2", "leaks the labels")
    assert retired.retired_at is not None
    assert registry.version("digits", "2").retired_reason == "leaks the labels"
    with pytest.raises(ConflictError, match="leaks the labels"):
        registry.set_alias("digits", "default", 2)
    assert registry.version("digits").number == 1
    assert registry.restore("digits", "2").retired_at is None
    assert registry.set_alias("digits", "default", 2).version == 2


def test_an_alias_is_deleted_unless_it_is_default(registry: Registry, bundles: Bundles) -> None:
    registry.register("digits", bundles("first"))
    registry.set_alias("digits", "best", 1)
    with pytest.raises(PreconditionFailedError):
        registry.delete_alias("digits", "best", if_match=frozenset({2}))
    registry.delete_alias("digits", "best", if_match=frozenset({1}))
    with pytest.raises(NotFoundError, match="no alias 'best'"):
        registry.delete_alias("digits", "best")
    with pytest.raises(ConflictError, match="move it instead"):
        registry.delete_alias("digits", "default")
    assert [alias.name for alias in registry.model("digits").aliases] == ["default"]


def test_listeners_are_told_of_every_change_once_it_is_written_down(
    registry: Registry, bundles: Bundles
) -> None:
    told: list[tuple[str, int, bool]] = []

    def listen(change: Change) -> None:
        told.append((change.action, change.version, change.digest == second))
        assert registry.audit(change.model)[0].version == change.version

    second = hashlib.sha256(bundles("second").read_bytes()).hexdigest()
    registry.listen(listen)
    for name in ("first", "second", "second"):
        registry.register("digits", bundles(name))
    registry.retire("digits", "2", "worse")
    with pytest.raises(ConflictError):
        registry.set_alias("digits", "best", 2)
    registry.delete_version("digits", "2")
    registry.delete_version("digits", "3")
    assert told == [
        ("upload", 1, False),
        ("upload", 2, True),
        ("upload", 3, True),
        ("retire", 2, True),
        ("delete", 2, True),  # another version has its bundle
        ("delete", 3, True),
        ("drop", 3, True),
    ]


def test_the_audit_says_who_changed_what_and_outlives_it(
    registry: Registry, bundles: Bundles
) -> None:
    assert registry.register("digits", bundles("first"), actor="ann").uploader == "ann"
    registry.register("digits", bundles("second"))
    registry.set_alias("digits", "best", 2, actor="bob")
    registry.set_alias("digits", "best", 1, actor="bob")
    registry.delete_alias("digits", "best", actor="bob")
    registry.add_calibration("digits", "2", {}, actor="cat")
    registry.set_active_calibration("digits", "2", None)
    registry.retire("digits", "2", "worse")
    registry.restore("digits", "2")
    registry.delete_version("digits", "2", actor="ann")
    with pytest.raises(NotFoundError):
        registry.set_alias("digits", "best", 2)
    registry.register("others", bundles("first"))
    changes = registry.audit("digits")[::-1]
    assert [(change.actor, change.action, change.version) for change in changes] == [
        ("ann", "upload", 1),
        ("anonymous", "upload", 2),
        ("bob", "alias", 2),
        ("bob", "alias", 1),
        ("bob", "alias-delete", 1),
        ("cat", "calibrate", 2),
        ("anonymous", "activate", 2),
        ("anonymous", "retire", 2),
        ("anonymous", "restore", 2),
        ("ann", "delete", 2),
    ]
    assert changes[3].details == {"alias": "best", "before": 2}
    assert all(before.at <= after.at for before, after in pairwise(changes))
    assert [change.model for change in registry.audit(limit=2)] == ["others", "digits"]


def test_a_model_of_many_versions_is_read_in_a_handful_of_queries(
    database_url: str, bundles: Bundles, tmp_path: Path
) -> None:
    database = Database(database_url)
    registry = Registry(database, Objects.local(tmp_path / "objects"))
    queries: list[str] = []

    def note(*arguments: object) -> None:
        queries.append(str(arguments[2]))

    def count() -> int:
        queries.clear()
        assert registry.models() == (registry.model("digits"),)
        return len(queries)

    event.listen(database.engine, "before_cursor_execute", note)
    for _ in range(2):
        registry.register("digits", bundles("first"))
        registry.add_calibration("digits", "1", {"rows": [0.1] * 1000})
    few = count()
    assert not any("document" in query for query in queries)
    for _ in range(8):
        registry.register("digits", bundles("first"))
    assert count() == few
    registry.close()
