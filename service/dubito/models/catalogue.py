"""Engines that are loaded, by bundle and precision: on demand, each once, within bounds.

Threads that want the same engine while it loads wait for the one load. A load that fails leaves
its reason and nothing else, and the next request tries again. Where room is needed the least
lately used engine leaves, but never one that is pinned; requests that hold it finish with it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

import structlog
from cachetools import LRUCache

from dubito.engine import Engine
from dubito.errors import DubitoError, UnavailableError
from dubito.models.memory import give_back, weight_bytes
from dubito.registry import VersionFact

State = Literal["available", "loading", "loaded", "failed"]
_MAX_REASONS = 256  # of failed loads that are remembered
_RETRY_AFTER_S = 5.0
_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class _Entry:
    version: VersionFact
    size_bytes: int
    future: Future[Engine] = field(default_factory=Future)
    varies: bool | None = None
    kept: dict[Hashable, object] = field(default_factory=dict)

    @property
    def is_loaded(self) -> bool:
        return self.future.done() and self.future.exception() is None


class Catalogue:
    """The engines that are loaded on this server.

    Args:
        load: makes an engine, ready to answer, from a version.
        max_loaded: most engines kept.
        max_bytes: most bytes of their weights.
    """

    def __init__(
        self, load: Callable[[VersionFact], Engine], max_loaded: int, max_bytes: int
    ) -> None:
        self._load = load
        self._max_loaded = max_loaded
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._reasons: LRUCache[str, str] = LRUCache(_MAX_REASONS)
        self._pinned: frozenset[str] = frozenset()

    def get(self, version: VersionFact) -> Engine:
        """The engine of a version, loaded if it is not yet.

        Raises:
            BundleRefusedError: the bundle cannot be run here.
            UnavailableError: there is no room for it.
        """
        with self._changed:
            entry = self._entries.get(version.loaded_as)
            if entry is not None:
                self._entries.move_to_end(version.loaded_as)
            left = [] if entry is not None else self._make_room(version)
            is_ours = version.loaded_as not in self._entries
            if is_ours:
                self._entries[version.loaded_as] = _Entry(version, version.size_bytes)
                self._reasons.pop(version.loaded_as, None)
            entry = self._entries[version.loaded_as]
        if left:
            left.clear()
            give_back()
        if is_ours:
            self._fill(entry)
        return entry.future.result()

    def at_hand(self, version: VersionFact) -> Engine | None:
        """The engine of a version where it is loaded; None where it would have to be."""
        held = self.held(version)
        return None if held is None else held[0]

    def held(self, version: VersionFact) -> tuple[Engine, dict[Hashable, object]] | None:
        """Its engine, and a place for what is kept with it and leaves with it, where it is."""
        with self._changed:
            entry = self._entries.get(version.loaded_as)
            if entry is None or not entry.is_loaded:
                return None
            self._entries.move_to_end(version.loaded_as)
        return entry.future.result(), entry.kept

    def state(self, name: str) -> tuple[State, str | None]:
        """Where the engine of a bundle is, and why where a load failed."""
        with self._changed:
            entry = self._entries.get(name)
            if entry is not None:
                return ("loaded" if entry.is_loaded else "loading"), None
            reason = self._reasons.get(name)
            return ("available" if reason is None else "failed"), reason

    def is_loaded(self, name: str) -> bool:
        """Whether the engine of a bundle is ready to answer."""
        return self.state(name)[0] == "loaded"

    def loaded(self) -> tuple[VersionFact, ...]:
        """The versions whose engines are ready to answer, the most lately used last."""
        with self._changed:
            return tuple(entry.version for entry in self._entries.values() if entry.is_loaded)

    @property
    def held_bytes(self) -> int:
        """Bytes of the weights that are loaded, or being loaded."""
        with self._changed:
            return sum(entry.size_bytes for entry in self._entries.values())

    def pin(self, names: Collection[str]) -> None:
        """Name the engines that never leave for others."""
        with self._changed:
            self._pinned = frozenset(names)
            self._changed.notify_all()

    def is_pinned(self, name: str) -> bool:
        """Whether an engine never leaves for others."""
        with self._changed:
            return name in self._pinned

    def drop(self, name: str) -> None:
        """Forget an engine and why it failed; requests that hold it finish with it."""
        with self._changed:
            entry = self._entries.pop(name, None)
            self._reasons.pop(name, None)
            self._changed.notify_all()
        if entry is not None:
            del entry
            give_back()

    def note_variation(self, name: str, varies: bool) -> None:
        """Remember whether the samples of the last Monte Carlo prediction differed."""
        with self._changed:
            if name in self._entries:
                self._entries[name].varies = varies

    def varies(self, name: str) -> bool | None:
        """Whether the samples of the last prediction differed; None before the first one."""
        with self._changed:
            entry = self._entries.get(name)
            return None if entry is None else entry.varies

    def _fill(self, entry: _Entry) -> None:
        failure: DubitoError | None = None
        try:
            engine = self._load(entry.version)
        except Exception as error:
            failure = _failure(entry.version, error)
        except BaseException as error:  # such as Ctrl-C
            self._forget(entry, _failure(entry.version, error))
            raise
        if failure is not None:
            self._forget(entry, failure)
            give_back()
            return
        with self._changed:
            entry.size_bytes = weight_bytes(engine)
            entry.future.set_result(engine)
            left = self._shrink(keep=entry)
            self._changed.notify_all()
        if left:
            left.clear()
            give_back()

    def _forget(self, entry: _Entry, failure: DubitoError) -> None:
        with self._changed:
            if self._entries.get(entry.version.loaded_as) is entry:
                del self._entries[entry.version.loaded_as]
                self._reasons[entry.version.loaded_as] = failure.detail
            entry.future.set_exception(failure)
            self._changed.notify_all()

    def _shrink(self, keep: _Entry) -> list[_Entry]:
        """Let engines leave while they hold too much; sizes are known exactly once loaded."""
        left: list[_Entry] = []
        while sum(entry.size_bytes for entry in self._entries.values()) > self._max_bytes:
            candidates = (e for e in self._entries.values() if e is not keep and self._may_leave(e))
            entry = next(candidates, None)
            if entry is None:
                break
            left.append(self._entries.pop(entry.version.loaded_as))
        return left

    def _make_room(self, version: VersionFact) -> list[_Entry]:
        """Let engines leave until the version fits, or until another thread loads it.

        Returns:
            What left, so that it is freed outside the lock.

        Raises:
            UnavailableError: what is pinned leaves no room, or the version alone is too large.
        """
        left: list[_Entry] = []
        while version.loaded_as not in self._entries and not self._fits(version.size_bytes):
            entry = next(filter(self._may_leave, self._entries.values()), None)
            if entry is not None:
                left.append(self._entries.pop(entry.version.loaded_as))
            elif all(entry.is_loaded for entry in self._entries.values()):
                raise self._no_room(version)
            else:
                self._changed.wait()  # what loads now may leave when it is loaded
        return left

    def _fits(self, size_bytes: int) -> bool:
        held = sum(entry.size_bytes for entry in self._entries.values())
        return held + size_bytes <= self._max_bytes and len(self._entries) < self._max_loaded

    def _may_leave(self, entry: _Entry) -> bool:
        return entry.is_loaded and entry.version.loaded_as not in self._pinned

    def _no_room(self, version: VersionFact) -> UnavailableError:
        pinned = sum(entry.size_bytes for entry in self._entries.values())
        return UnavailableError(
            f"version {version.number} of `{version.model}`: expected room for "
            f"{version.size_bytes} bytes of weights among {self._max_bytes} and "
            f"{self._max_loaded} versions, got {pinned} bytes and {len(self._entries)} versions "
            "pinned: raise DUBITO_MAX_LOADED_BYTES or DUBITO_MAX_LOADED_VERSIONS, or pin less",
            retry_after_s=_RETRY_AFTER_S,
        )


def _failure(version: VersionFact, error: BaseException) -> DubitoError:
    """Why a load failed, free of the frames that hold what it had loaded so far."""
    if isinstance(error, DubitoError):
        failure = error
    else:
        _log.error("load failed", model=version.model, version=version.number, exc_info=error)
        failure = UnavailableError(
            f"version {version.number} of `{version.model}` could not be loaded "
            f"({type(error).__name__}): the log has the details",
            retry_after_s=_RETRY_AFTER_S,
        )
    failure.__traceback__ = failure.__cause__ = failure.__context__ = None
    return failure
