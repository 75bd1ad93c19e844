"""The database of the registry: its tables, their revision, connections and transactions.

tables.py       the relational tables
schema.py       their revision, and the way to it
migrations/     one file for every revision of the tables
connections.py  connections and transactions
records.py      from names to records, and from records to facts
"""

from dubito.registry.database.connections import Database

__all__ = ["Database"]
