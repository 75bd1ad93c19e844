"""Keys: made once, kept as a hash, revoked for good.

A key is 32 random bytes, so that one plain hash is enough: there is nothing to guess. A name is
never given twice, since jobs, pools and the audit name who made them.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime

from sqlalchemy import exists, select

from dubito.errors import ConflictError, NotFoundError
from dubito.names import ANONYMOUS, RESERVED_ACTORS, check_name
from dubito.registry.database import Database
from dubito.registry.database.records import utc
from dubito.registry.database.tables import AuditRecord, KeyRecord
from dubito.registry.facts import KeyFact

_BYTES = 32
_PREFIX = "dubito_"  # by which scanners of code and logs know a key


class KeyStore:
    """Keys in the database.

    Args:
        database: their records.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        name: str,
        scope: str,
        *,
        models: tuple[str, ...] | None = None,
        rate: float | None = None,
        concurrency: int | None = None,
        actor: str = ANONYMOUS,
    ) -> str:
        """Make a key.

        Args:
            name: of the key.
            scope: what it opens.
            models: that it is for; None: all.
            rate: requests per second; None: no limit.
            concurrency: requests at once; None: no limit.
            actor: who makes it.

        Returns:
            The key itself, which cannot be read again.

        Raises:
            InputError: a name does not follow the pattern.
            ConflictError: the name is taken.
        """
        check_name("key", name)
        for model in models or ():
            check_name("model", model)
        key = _PREFIX + secrets.token_urlsafe(_BYTES)
        with self._database.writing() as session:
            is_taken = session.scalar(select(exists().where(KeyRecord.name == name)))
            if is_taken or name in RESERVED_ACTORS:
                raise ConflictError(
                    f"key `{name}`: expected a name that no key has or had, got one that is taken: "
                    "choose another"
                )
            session.add(
                KeyRecord(
                    name=name,
                    digest=digest_of(key.encode()),
                    scope=scope,
                    models=None if models is None else list(models),
                    rate=rate,
                    concurrency=concurrency,
                )
            )
            opens = {"scope": scope, "models": "all" if models is None else ", ".join(models)}
            session.add(_note(actor, "key-create", name, **opens))
        return key

    def all(self) -> tuple[KeyFact, ...]:
        """All keys by name, those that are revoked as well."""
        with self._database.reading() as session:
            return tuple(map(_fact, session.scalars(select(KeyRecord).order_by(KeyRecord.name))))

    def revoke(self, name: str, *, actor: str = ANONYMOUS) -> KeyFact:
        """Let a key open nothing any more; one that is revoked already is left as it is.

        Raises:
            NotFoundError: no key of that name.
        """
        with self._database.writing() as session:
            record = session.scalar(select(KeyRecord).where(KeyRecord.name == name))
            if record is None:
                raise NotFoundError(f"no key {name[:64]!r}: `dubito keys list` lists those made")
            if record.revoked_at is None:
                record.revoked_at = datetime.now(UTC)
                session.add(_note(actor, "key-revoke", name))
                session.flush()
            return _fact(record)


def digest_of(key: bytes) -> str:
    """The SHA-256 of a key in hexadecimal."""
    return hashlib.sha256(key).hexdigest()


def _note(actor: str, action: str, name: str, **details: object) -> AuditRecord:
    told: dict[str, object] = {"key": name, **details}
    return AuditRecord(actor=actor, action=action, model="", version=None, details=told)


def _fact(record: KeyRecord) -> KeyFact:
    return KeyFact(
        name=record.name,
        digest=record.digest,
        scope=record.scope,
        models=None if record.models is None else tuple(record.models),
        rate=record.rate,
        concurrency=record.concurrency,
        created_at=utc(record.created_at),
        revoked_at=None if record.revoked_at is None else utc(record.revoked_at),
    )
