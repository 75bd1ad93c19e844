"""Fits of further methods, and which of them are active."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column to `versions`, and the table `fits`."""
    op.add_column("versions", sa.Column("active_fits", sa.JSON(), nullable=True))
    op.create_table(
        "fits",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("method", sa.String(16), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("job", sa.String(32), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_fits"),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name="fk_fits_version_id_versions", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("version_id", "number", name="uq_fits_version_id"),
        sa.UniqueConstraint("job", name="uq_fits_job"),
    )
    op.create_index("ix_fits_digest", "fits", ["digest"])


def downgrade() -> None:
    """Drop what `upgrade` made."""
    op.drop_table("fits")
    op.drop_column("versions", "active_fits")
