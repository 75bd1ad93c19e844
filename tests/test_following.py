"""Facts that are kept while nothing changes, and forgotten when something does."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from dubito.errors import NotFoundError, UnavailableError
from dubito.registry.following import Following


class Source:
    """A number of changes that a test raises, and a fact that tells how often it was read."""

    def __init__(self) -> None:
        self.number = 0
        self.is_broken = False
        self.reads = 0
        self.looked = threading.Event()

    def changes(self) -> int:
        self.looked.set()
        if self.is_broken:
            raise UnavailableError("broken")
        return self.number

    def read(self) -> int:
        self.reads += 1
        return self.reads


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def following(source: Source) -> Iterator[Following]:
    made = Following(source.changes, interval_s=0.001)
    yield made
    made.close()


def test_before_it_is_started_every_fact_is_read(following: Following, source: Source) -> None:
    assert [following.get("a", source.read) for _ in range(2)] == [1, 2]


def test_a_fact_is_read_once_until_something_changes_here(
    following: Following, source: Source
) -> None:
    following.start()
    assert [following.get("a", source.read) for _ in range(2)] == [1, 1]
    assert following.get("b", source.read) == 2
    following.forget()
    assert following.get("a", source.read) == 3


def test_a_change_elsewhere_is_seen_and_told(following: Following, source: Source) -> None:
    told = threading.Event()
    following.listen(told.set)
    following.start()
    assert following.get("a", source.read) == 1
    source.number += 1
    assert told.wait(30)
    assert following.get("a", source.read) > 1  # it is read here, or was in the thread that looks


def test_a_fact_that_was_read_before_a_change_is_not_kept_after_it(
    following: Following, source: Source
) -> None:
    following.start()

    def read_slowly() -> int:
        following.forget()  # another thread changes something meanwhile
        return source.read()

    assert following.get("a", read_slowly) == 1
    assert following.get("a", source.read) == 2


def test_while_the_database_is_silent_what_was_read_last_is_given_out(
    following: Following, source: Source
) -> None:
    told = threading.Event()
    following.listen(told.set)
    following.start()
    assert following.get("a", source.read) == 1
    source.is_broken = True
    for _ in range(3):
        source.looked.clear()
        assert source.looked.wait(30)
    assert following.get("a", source.read) == 1
    source.number += 1
    source.is_broken = False
    assert told.wait(30)
    assert following.get("a", source.read) > 1  # it is read here, or was in the thread that looks


def test_what_is_asked_for_is_read_anew_after_a_change_before_it_is_asked_for_again(
    following: Following, source: Source
) -> None:
    following.start()
    assert following.get("a", source.read) == 1
    source.number += 1
    for _ in range(3):
        source.looked.clear()
        assert source.looked.wait(30)
    source.is_broken = True
    assert following.known("a") == 2


def test_a_change_before_the_database_is_silent_leaves_what_was_read_last(
    following: Following, source: Source
) -> None:
    """And all is read anew once it answers, though nothing was changed meanwhile."""
    following.start()
    assert following.get("a", source.read) == 1
    source.is_broken = True

    def silent() -> int:
        raise UnavailableError("broken")

    following.look()
    assert following.get("a", silent) == 1
    with pytest.raises(UnavailableError):
        following.get("never read", silent)
    told = threading.Event()
    following.listen(told.set)
    source.is_broken = False
    assert told.wait(30)
    assert following.get("a", source.read) > 1  # it is read here, or was in the thread that looks


def test_what_is_gone_is_given_out_no_more(following: Following, source: Source) -> None:
    following.start()
    assert following.get("a", source.read) == 1

    def gone() -> int:
        raise NotFoundError("gone")

    def silent() -> int:
        raise UnavailableError("broken")

    following.look()
    with pytest.raises(NotFoundError):
        following.get("a", gone)
    with pytest.raises(UnavailableError):
        following.get("a", silent)
