"""Predictions that are kept for feedback, their outcomes, and the watch over these."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite's integers are big


def upgrade() -> None:
    """Make the three tables; all their rows go with the calibration that they belong to."""
    op.create_table(
        "predictions",
        sa.Column("id", _BIG, nullable=False),
        sa.Column("calibration_id", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("num_rows", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_predictions"),
        _of_a_calibration("predictions"),
        sa.UniqueConstraint("request_id", "calibration_id", name="uq_predictions_request_id"),
    )
    op.create_index("ix_predictions_calibration_id", "predictions", ["calibration_id"])
    op.create_table(
        "outcomes",
        sa.Column("id", _BIG, nullable=False),
        sa.Column("calibration_id", sa.Integer(), nullable=False),
        sa.Column("place", _BIG, nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("truth", sa.JSON(), nullable=False),
        sa.Column("is_covered", sa.JSON(), nullable=False),
        sa.Column("is_flagged", sa.Boolean(), nullable=False),
        sa.Column("confidence", sa.Float(53), nullable=True),
        sa.Column("is_right", sa.Boolean(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outcomes"),
        _of_a_calibration("outcomes"),
        sa.UniqueConstraint("calibration_id", "place", name="uq_outcomes_calibration_id"),
        sa.UniqueConstraint("request_id", "calibration_id", "row", name="uq_outcomes_request_id"),
    )
    op.create_table(
        "watches",
        sa.Column("calibration_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("num_outcomes", _BIG, nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("calibration_id", name="pk_watches"),
        _of_a_calibration("watches"),
    )


def _of_a_calibration(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["calibration_id"],
        ["calibrations.id"],
        name=f"fk_{table}_calibration_id_calibrations",
        ondelete="CASCADE",
    )


def downgrade() -> None:
    """Drop the three tables."""
    for table in ("watches", "outcomes", "predictions"):
        op.drop_table(table)
