"""Changes of versions: written down for the audit, and told to whoever listens.

Flow: a transaction → `note` within it → committed → the listeners are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy.orm import Session

from dubito.registry.database import Database
from dubito.registry.database.tables import AuditRecord, VersionRecord

_CHANGES = "dubito.changes"  # noted in a session


@dataclass(frozen=True)
class Change:
    """One change of a version.

    Args:
        action: as the audit names it, such as `alias`; `drop` where a bundle is gone.
        model: name of the model.
        version: number of the version.
        digest: of its bundle.
    """

    action: str
    model: str
    version: int
    digest: str


class Noting:
    """Transactions whose changes are told.

    Args:
        database: what is changed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: list[Callable[[Change], None]] = []

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Have a function called after every change; it must be quick."""
        self._listeners.append(listener)

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session as `Database.writing` gives it; what is noted in it is told at its end."""
        with self._database.writing() as session:
            yield session
            changes: list[Change] = session.info.get(_CHANGES, [])
        for change in changes:
            self.tell(change)

    def add(self, actor: str, action: str, model: str, version: int) -> None:
        """Write down what changes no record, such as that a version was loaded."""
        with self._database.noting() as session:
            named = {"model": model, "version": version, "details": {}}
            session.add(AuditRecord(actor=actor, action=action, **named))

    def tell(self, change: Change) -> None:
        """Call the listeners."""
        for listener in self._listeners:
            listener(change)


def note(
    session: Session, actor: str, action: str, version: VersionRecord, **details: object
) -> Change:
    """Write down a change of a version, and who made it."""
    change = Change(action, version.model.name, version.number, version.digest)
    session.add(
        AuditRecord(
            actor=actor,
            action=action,
            model=change.model,
            version=change.version,
            details=details,
        )
    )
    session.info.setdefault(_CHANGES, []).append(change)
    return change
