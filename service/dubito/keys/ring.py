"""From the header of a request to its caller, without a query.

Flow: keys are read → kept until something in the database changes, or cannot be read → the next
request reads them anew. A key is found by its SHA-256: how long the search takes tells of the hash,
from which nobody gets back to the key, and the last comparison takes the same time for all.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Mapping

from dubito.errors import UnauthorizedError
from dubito.keys.allowance import Allowance
from dubito.keys.caller import NOBODY, Caller, KeyScope
from dubito.names import SETTINGS_KEY
from dubito.registry.facts import KeyFact
from dubito.registry.following import Following
from dubito.registry.keys import KeyStore, digest_of
from dubito.settings import Settings

_MISSING = (
    "expected the header `Authorization: Bearer KEY` with a key of this server, got none or "
    "another one: ask whoever runs the server for a key"
)


class Keyring:
    """The keys that open this server.

    A key is asked for as soon as there is one, in the settings or in the database; also once all
    are revoked.

    Args:
        store: keys in the database.
        facts: tells of changes.
        settings: with the key that opens everything.
    """

    def __init__(self, store: KeyStore, facts: Following, settings: Settings) -> None:
        self._store, self._facts = store, facts
        key = settings.api_key
        self._always: dict[str, tuple[str, Caller]] = {}
        if key is not None:
            digest = digest_of(key.get_secret_value().encode())
            self._always[digest] = digest, Caller(SETTINGS_KEY, KeyScope.ADMIN)
        self._callers: Mapping[str, tuple[str, Caller]] = {}
        self._allowances: dict[str, Allowance] = {}
        self._is_locked = True
        self._lock = threading.Lock()
        self._changes, self._seen = 0, -1
        facts.listen(self._forget)

    @property
    def is_stale(self) -> bool:
        """Whether the keys are to be read before the next is looked for."""
        return self._seen != self._changes

    @property
    def is_locked(self) -> bool:
        """Whether there is any key, so that who has none is refused; the keys are not stale."""
        return self._is_locked

    def refresh(self) -> None:
        """Read the keys anew, where something has changed.

        Raises:
            UnavailableError: the database does not answer, and they were never read.
        """
        with self._lock:
            if not self.is_stale:
                return
            changes = self._changes
            facts = self._facts.get("keys", self._store.all)
            valid = [fact for fact in facts if fact.revoked_at is None]
            self._callers = {
                fact.digest: (fact.digest, self._caller(fact)) for fact in valid
            } | self._always
            self._is_locked = bool(facts or self._always)
            self._seen = changes

    def caller(self, header: bytes) -> Caller:
        """Who sends a header `Authorization`; the keys are not stale.

        Raises:
            UnauthorizedError: it has no key that is valid.
        """
        if not self._is_locked:
            return NOBODY
        scheme, _, sent = header.partition(b" ")
        digest = digest_of(sent.strip())
        kept, caller = self._callers.get(digest, ("", NOBODY))
        if not hmac.compare_digest(digest, kept) or scheme.lower() != b"bearer":
            raise UnauthorizedError(_MISSING)
        return caller

    def _caller(self, fact: KeyFact) -> Caller:
        models = None if fact.models is None else frozenset(fact.models)
        return Caller(fact.name, KeyScope.of(fact.scope), models, self._allowance(fact))

    def _allowance(self, fact: KeyFact) -> Allowance | None:
        """What a key has left, which outlives a reading."""
        if fact.rate is None and fact.concurrency is None:
            return None
        new = Allowance(fact.rate, fact.concurrency)
        return self._allowances.setdefault(fact.digest, new)

    def _forget(self) -> None:
        self._changes += 1
