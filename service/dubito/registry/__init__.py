"""What is known and kept: models, versions, aliases, calibrations, and the bundles themselves.

    facts.py       frozen dataclasses, the only things that leave this package
    tables.py      the relational tables
    database.py    connections, transactions, migrations
    objects.py     bundles by SHA-256 in an object store
    registry.py    the operations

It knows neither HTTP nor the engine.
"""

from dubito.registry.facts import AliasFact, CalibrationFact, ModelFact, VersionFact
from dubito.registry.registry import Registry

__all__ = ["AliasFact", "CalibrationFact", "ModelFact", "Registry", "VersionFact"]
