"""Who uploaded what, retirement, the log of changes, and the number that tells of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite's integers are big


def upgrade() -> None:
    """Add columns to `versions`, and the tables `changes` and `audit`.

    No table is made anew: SQLite would delete what refers to it.
    """
    op.add_column(
        "versions",
        sa.Column("uploader", sa.String(64), nullable=False, server_default="anonymous"),
    )
    op.add_column("versions", sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("versions", sa.Column("retired_reason", sa.String(500), nullable=True))
    if op.get_bind().dialect.name != "sqlite":
        op.alter_column("versions", "size_bytes", type_=sa.BigInteger())
    changes = op.create_table(
        "changes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("number", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_changes"),
    )
    op.bulk_insert(changes, [{"id": 1, "number": 0}])
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_model", "audit", ["model"])


def downgrade() -> None:
    """Drop what `upgrade` made."""
    op.drop_table("audit")
    op.drop_table("changes")
    for column in ("retired_reason", "retired_at", "uploader"):
        op.drop_column("versions", column)
