"""Stored pools, and long work with its parts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite's integers are big


def upgrade() -> None:
    """Make the tables `pools`, `jobs` and `job_parts`."""
    op.create_table(
        "pools",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("size_bytes", _BIG, nullable=False),
        sa.Column("format", sa.String(16), nullable=False),
        sa.Column("num_rows", _BIG, nullable=False),
        sa.Column("columns", sa.JSON(), nullable=False),
        sa.Column("source", sa.String(1000), nullable=True),
        sa.Column("uploader", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pools"),
        sa.UniqueConstraint("name", name="uq_pools_name"),
    )
    op.create_index("ix_pools_digest", "pools", ["digest"])
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("pool", sa.String(64), nullable=False),
        sa.Column("pool_digest", sa.String(64), nullable=False),
        sa.Column("order", sa.JSON(), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=True),
        sa.Column("total", _BIG, nullable=False),
        sa.Column("done", _BIG, nullable=False),
        sa.Column("rate", sa.Double(), nullable=True),
        sa.Column("owner", sa.String(64), nullable=True),
        sa.Column("beat", _BIG, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("reason", sa.String(1000), nullable=True),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_state", "jobs", ["state"])
    op.create_table(
        "job_parts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("start", _BIG, nullable=False),
        sa.Column("stop", _BIG, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_job_parts"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_job_parts_job_id_jobs", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("job_id", "start", name="uq_job_parts_job_id"),
    )


def downgrade() -> None:
    """Drop what `upgrade` made."""
    op.drop_table("job_parts")
    op.drop_table("jobs")
    op.drop_table("pools")
