"""Stored pools, jobs, and selections."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import Field

from dubito.api.pages.base import DrawnPage, JsonPage
from dubito.registry import JobFact, PoolFact


class ColumnEntry(JsonPage):
    """One array of a pool."""

    name: str = Field(description="Name of the network's input.")
    dtype: str = Field(description="Type of its numbers, as numpy calls it.")
    shape: list[int] = Field(description="Shape of one row.")


class PoolPage(JsonPage):
    """A stored pool of unlabelled rows."""

    pool: str = Field(description="Name of the pool.")
    num_rows: int = Field(description="Number of rows.")
    format: Literal["npy", "npz", "parquet", "csv", "ndjson", "arrows", "zip", "tar"] = Field(
        description="Format of what was stored."
    )
    columns: list[ColumnEntry] = Field(description="Arrays of the pool.")
    sha256: str = Field(description="SHA-256 of what was stored, in hexadecimal.")
    size_bytes: int = Field(description="Size of what was stored, in bytes.")
    address: str | None = Field(description="Where it was taken from; null where it was sent.")
    uploader: str = Field(description="Name of the key that it was stored with.")
    created_at: datetime = Field(description="When it was stored.")

    @classmethod
    def of_pool(cls, fact: PoolFact) -> Self:
        """The page of a pool."""
        columns = [ColumnEntry.of(column) for column in fact.columns]
        return cls.of(
            fact, pool=fact.name, sha256=fact.digest, address=fact.source, columns=columns
        )


class PoolsPage(JsonPage):
    """All pools."""

    pools: list[PoolPage] = Field(description="Pools by name.")


class PoolRowsPage(JsonPage):
    """Some rows of a pool."""

    pool: str = Field(description="Name of the pool.")
    indices: list[int] = Field(description="Rows of the pool, as they were asked for.")
    features: list[str] = Field(
        description="Names of the columns that a row's numbers were stored as; none for arrays."
    )
    rows: list[Any] | dict[str, list[Any]] = Field(
        description="The rows as nested lists, images as data URLs, or all by the name of an array "
        "or of a table's column."
    )


class AcceptedPage(JsonPage):
    """The answer to what became long work."""

    job: str = Field(description="Identifier of the job.")


class JobPage(JsonPage):
    """A job: what was asked, and how far it is."""

    job: str = Field(description="Identifier of the job.")
    kind: Literal["predict", "select", "fit"] = Field(description="What it does.")
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"] = Field(
        description="How it stands."
    )
    reason: str | None = Field(description="Why it failed.")
    model: str = Field(description="Name of the model.")
    version: int = Field(description="Number of the version.")
    pool: str = Field(description="Name of the pool; empty where the rows came with the order.")
    done: int = Field(description="Number of rows that are done.")
    total: int = Field(description="Number of rows in all.")
    rate_per_s: float | None = Field(description="Rows per second.")
    remaining_s: float | None = Field(description="Seconds until it is done, at the present rate.")
    warnings: list[str] = Field(description="What the caller should know.")
    actor: str = Field(description="Name of the key that asked for it.")
    created_at: datetime = Field(description="When it was accepted.")
    started_at: datetime | None = Field(description="When it first ran.")
    finished_at: datetime | None = Field(description="When it ended.")
    result: str | None = Field(description="Path of the result; null before there is one.")

    @classmethod
    def of_job(cls, fact: JobFact) -> Self:
        """The page of a job."""
        return cls.of(
            fact,
            job=fact.id,
            rate_per_s=None if fact.rate is None else round(fact.rate, 1),
            remaining_s=None if fact.remaining_s is None else round(fact.remaining_s, 1),
            result=None if fact.result is None else f"/v1/jobs/{fact.id}/result",
        )


class JobsPage(JsonPage):
    """The last jobs, the newest first."""

    jobs: list[JobPage] = Field(description="At most 1000 jobs.")


class SelectedPage(DrawnPage):
    """The rows to label next: of the result of a job, and of an answer at once."""

    strategy: str = Field(description="Name of the strategy.")
    candidates: int = Field(description="Number of rows that the strategy compared.")
    indices: list[int] = Field(description="Chosen rows of the pool, from 0, the best first.")
    scores: list[float | None] = Field(description="What the strategy gave each of them.")
    ids: list[str | int | float | bool | None] | None = Field(
        default=None,
        description="Cells of the `id_column` of the chosen rows, or names of their files.",
    )


class SelectPage(SelectedPage):
    """The rows to label next."""

    request_id: str = Field(description="Identifier of the request.")
