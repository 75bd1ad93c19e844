"""Facts that requests ask for again and again, kept while nothing in the database changes.

Every transaction that writes raises one number (`Database.changes`). A thread looks at it a few
times a second; where it grew, everything that is kept is forgotten and read anew. So requests cost
no query, and what another server changed is seen after at most one look, or at once where that
server tells. While the database does not answer, what was read last is still given out; once it
answers again, all is read anew.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, TypeVar, cast

import structlog
from cachetools import LRUCache

from dubito.errors import DubitoError, UnavailableError

T = TypeVar("T")

_MAX_FACTS = 256
_SILENT_S = 2.0  # without a look that ended, the database is not waited for
_log = structlog.get_logger(__name__)


class Following:
    """Facts that were read, by key.

    It keeps nothing before it is started: a short-lived process reads through.

    Args:
        changes: the number that grows with every change.
        interval_s: time between two looks at it.
    """

    def __init__(self, changes: Callable[[], int], interval_s: float) -> None:
        self._changes = changes
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._facts: LRUCache[Hashable, object] = LRUCache(_MAX_FACTS)
        self._past: LRUCache[Hashable, object] = LRUCache(_MAX_FACTS)  # as read before a change
        self._reads: LRUCache[Hashable, Callable[[], Any]] = LRUCache(_MAX_FACTS)
        self._generation = 0
        self._gave_past = False
        self._reached_s = time.monotonic()
        self._listeners: list[Callable[[], None]] = []
        self._tellers: list[Callable[[], None]] = []
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Follow the changes in a thread.

        Raises:
            UnavailableError: the database does not answer.
        """
        seen = self._changes()
        self._reached_s = time.monotonic()
        self._thread = threading.Thread(
            target=self._follow, args=(seen,), name="dubito-follower", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.look()

    def listen(self, listener: Callable[[], None]) -> None:
        """Have a function called after every change; it must be quick."""
        self._listeners.append(listener)

    def tell_by(self, teller: Callable[[], None]) -> None:
        """Have a function tell other servers of every change that is made here.

        It is called in the thread that made the change, before that is acknowledged.
        """
        self._tellers.append(teller)

    def get(self, key: Hashable, read: Callable[[], T]) -> T:
        """The fact of a key, read where it is not kept.

        Args:
            key: names the fact.
            read: reads it from the database.

        Raises:
            UnavailableError: the database does not answer, and the fact was never read.
        """
        with self._lock:
            if key in self._facts:
                return cast(T, self._facts[key])
            generation = self._generation
            if key in self._past and not self.is_reached:
                return cast(T, self._of_past(key))
        try:
            fact = read()
        except UnavailableError:
            with self._lock:
                if key in self._past:
                    return cast(T, self._of_past(key))
            raise
        except DubitoError:  # it is there no more
            with self._lock:
                self._past.pop(key, None)
                self._reads.pop(key, None)
            raise
        with self._lock:
            if self._thread is not None and generation == self._generation:
                self._facts[key] = fact
                self._reads[key] = read
        return fact

    @property
    def is_reached(self) -> bool:
        """Whether the database answered lately; without a thread that looks it is asked anyhow."""
        return (
            self._thread is None
            or time.monotonic() - self._reached_s < self._interval_s + _SILENT_S
        )

    def known(self, key: Hashable) -> object | None:
        """The fact of a key where it is kept; None where it would have to be read."""
        with self._lock:
            return self._facts.get(key)

    def forget(self) -> None:
        """Look, and tell other servers; called after every change that is made here."""
        self.look()
        for teller in self._tellers:
            teller()

    def look(self) -> None:
        """Forget all facts, and call the listeners: something was changed, here or elsewhere."""
        with self._lock:
            self._generation += 1
            self._past.update(self._facts)
            self._facts.clear()
        for listener in self._listeners:
            listener()

    def _of_past(self, key: Hashable) -> object:
        self._gave_past = True  # so that all is read anew as soon as it can be
        return self._past[key]

    def _follow(self, seen: int) -> None:
        was_reached = True
        while not self._ends.wait(self._interval_s):
            try:
                number = self._changes()
            except DubitoError as error:
                if was_reached:
                    _log.warning("changes of other servers are not seen", reason=str(error))
                was_reached = False
                self._reached_s = -math.inf
                continue
            if not was_reached:
                _log.info("changes of other servers are seen again")
            was_reached = True
            self._reached_s = time.monotonic()
            if number != seen or self._gave_past:
                seen, self._gave_past = number, False
                self.look()
                self._read_anew()

    def _read_anew(self) -> None:
        """Read what was kept, so that it is there should the database be silent next."""
        with self._lock:
            reads = list(self._reads.items())
        for key, read in reads:
            with suppress(DubitoError):
                self.get(key, read)
