"""What is known and kept: models, versions, aliases, calibrations, and the bundles themselves.

    database/      tables, their revisions, connections and transactions
    objects/       bundles by SHA-256 in a folder or a bucket
    facts.py       frozen dataclasses, the only things that leave this package
    registry.py    the operations on models
    revisions.py   what a change of an alias expects of the present one
    noting.py      changes, for the audit and for who listens
    following.py   facts kept while nothing changes
    orphans.py     objects that no record names
    monitoring.py  predictions that wait for their truth, and outcomes
    pools.py       stored pools
    fits.py        what further methods learned of versions
    jobs.py        long work, and which server has it
    keys.py        keys, by their hashes
    check.py       whether it is all whole
    backup.py      copies of it all, and the way back

It knows neither HTTP nor the engine.
"""

from dubito.registry.facts import (
    AliasFact,
    AuditFact,
    CalibrationFact,
    ColumnFact,
    JobFact,
    KeyFact,
    ModelFact,
    PartFact,
    PoolFact,
    VersionFact,
)
from dubito.registry.fits import FitFact
from dubito.registry.registry import Registry

__all__ = [
    "AliasFact",
    "AuditFact",
    "CalibrationFact",
    "ColumnFact",
    "FitFact",
    "JobFact",
    "KeyFact",
    "ModelFact",
    "PartFact",
    "PoolFact",
    "Registry",
    "VersionFact",
]
