"""Alembic's entry: run the migrations over the connection that `Database.migrate` hands in."""

from __future__ import annotations

from alembic import context

from dubito.registry.database.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
