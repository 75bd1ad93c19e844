"""Fits of a version, and the result of the job that made one."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import Field

from dubito.api.pages.base import Document, JsonPage
from dubito.registry import FitFact


class FitEntry(JsonPage):
    """A fit among those of its version."""

    fit: int = Field(description="Number of the fit.")
    method: str = Field(description="Method that it is for.")
    num_rows: int = Field(description="Number of rows that it was fitted to.")
    num_training_rows: int | None = Field(
        description="Number of rows that the network was trained on, as it was given."
    )
    report: Document = Field(
        description="What was found: of `laplace` such as `prior_precision`, of `distilled` its "
        "`certificate` of agreement with the passes."
    )
    warnings: list[str] = Field(description="What the caller should know.")
    created_at: datetime = Field(description="When it was made.")

    @classmethod
    def of_fit(cls, fact: FitFact) -> Self:
        """The entry of a fit."""
        return cls.of(fact, fit=fact.number, **fact.document)


class FitsPage(JsonPage):
    """All fits of a version."""

    model: str = Field(description="Name of the model.")
    version: int = Field(description="Number of the version.")
    active: dict[str, int] = Field(description="The active fit of each method that has one.")
    fits: list[FitEntry] = Field(description="Fits by number.")


class MadeFitPage(JsonPage):
    """The result of a job that fitted a further method."""

    model: str = Field(description="Name of the model.")
    version: int = Field(description="Number of the version.")
    fit: int = Field(description="Number of the fit.")
    method: str = Field(description="Method that it is for.")
    num_rows: int = Field(description="Number of rows that it was fitted to.")
    num_training_rows: int | None = Field(
        description="Number of rows that the network was trained on, as it was given."
    )
    report: Document = Field(
        description="What was found: of `laplace` such as `prior_precision`, of `distilled` its "
        "`certificate` of agreement with the passes."
    )
    warnings: list[str] = Field(description="What the caller should know.")
