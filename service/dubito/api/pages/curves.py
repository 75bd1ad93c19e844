"""The curves of a report, from which its pictures are drawn."""

from __future__ import annotations

from pydantic import Field

from dubito.api.pages.base import JsonPage


class LineEntry(JsonPage):
    """A curve by its points."""

    x: list[float] = Field(description="Where the points are, ascending.")
    y: list[float] = Field(description="The value at each point.")


class BinEntry(JsonPage):
    """A reliability bin: the rows whose confidence lies in [lower, upper), or [lower, 1]."""

    lower: float = Field(description="Lower end of the bin.")
    upper: float = Field(description="Upper end of the bin.")
    count: int = Field(description="Number of rows in the bin.")
    confidence: float | None = Field(description="Mean largest probability, or null if empty.")
    accuracy: float | None = Field(description="Share of right labels, or null if empty.")


class ScoreCountsEntry(JsonPage):
    """How many rows have an out-of-distribution score in each bin, the outer ones without end."""

    name: str = Field(description="Name of the score.")
    edges: list[float] = Field(description="Edges of the bins.")
    is_log: bool = Field(description="Whether the edges grow by equal factors.")
    counts: list[int] = Field(description="Number of labelled rows per bin.")
    ood_counts: list[int] | None = Field(
        description="Number of out-of-distribution rows per bin, or null if none were sent."
    )
    threshold: float | None = Field(description="Rows above it are flagged.")


class CurvesEntry(JsonPage):
    """The curves of one report; those of another task are null or empty."""

    scores: ScoreCountsEntry | None = Field(description="Out-of-distribution scores.")
    bins: list[BinEntry] = Field(description="Reliability bins of equal width.")
    adaptive_bins: list[BinEntry] = Field(description="Reliability bins of equally many rows.")
    risk_coverage: LineEntry | None = Field(
        description="Error rate (y) of the share of rows (x) that are most confident."
    )
    coverage: LineEntry | None = Field(
        description="Share of targets (y) inside the central interval at a level (x); of "
        "quantiles, at or below the one of that level."
    )
    pit: list[int] = Field(description="Rows per 20 equal bins of the predictive distribution.")
    sparsification: LineEntry | None = Field(
        description="RMSE over that of all rows (y) once the share of rows (x) that have the "
        "largest variance is left out."
    )
    oracle: LineEntry | None = Field(
        description="The same, once those that have the largest error are left out."
    )
