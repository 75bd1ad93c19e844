"""Fits: what a further method learns of rows, by a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Unpack

import httpx

from dubito_client.bodies import Rows, Value, body_of, posted, told
from dubito_client.calls import Call, Document, model_path, page, path_of
from dubito_client.fields import FitFields


@dataclass(frozen=True, kw_only=True)
class StoredFit:
    """A fit of a version; `report` says what was found, such as `certificate`."""

    fit: int
    method: str
    num_rows: int
    num_training_rows: int | None
    report: Document
    warnings: list[str]
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class VersionFits:
    """All fits of a version, and the active one of each method that has one."""

    model: str
    version: int
    active: Mapping[str, int]
    fits: list[StoredFit] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class MadeFit:
    """What a job of `fit` made."""

    model: str
    version: int
    fit: int
    method: str
    num_rows: int
    num_training_rows: int | None
    report: Document
    warnings: list[str]


def fit(
    model: str,
    inputs: Rows,
    labels: Value | None = None,
    *,
    targets: Value | None = None,
    method: str = "laplace",
    version: int | str | None = None,
    **fields: Unpack[FitFields],
) -> Call[str]:
    """Fit a further method to rows, by a job; returns its identifier.

    Args:
        model: its name.
        inputs: rows, a thousand or so.
        labels: of a classification, for `prior="held_out"` or a certificate; none are needed else.
        targets: of a regression, true values of rows that training has not seen.
        method: that is fitted.
        version: number or alias; None: the alias `default`.
        fields: of the API, such as `num_training_rows=60_000`.
    """
    rows = {"inputs": inputs, "labels": labels, "targets": targets}
    path, body = model_path(model, version, "fit"), body_of(rows, {**fields, "method": method})
    return posted(path, body, _job, is_repeatable=False)


def fit_pool(
    model: str,
    pool: str,
    labels: Sequence[int | str] | None = None,
    *,
    targets: Sequence[object] | None = None,
    method: str = "laplace",
    version: int | str | None = None,
    **fields: Unpack[FitFields],
) -> Call[str]:
    """Fit a further method to a stored pool, by a job; returns its identifier. As `fit` else."""
    truths = {"labels": labels, "targets": targets}
    content = {**fields, **truths, "method": method, "pool": pool}
    known = {name: value for name, value in content.items() if value is not None}
    return told("POST", model_path(model, version, "fit"), known, _job, is_repeatable=False)


def job_fit(job: str) -> Call[MadeFit]:
    """What a job of `fit` or `fit_pool` made."""
    return Call(method="GET", path=path_of("jobs", job, "result"), read=page(MadeFit))


def fits(model: str, *, version: int | str | None = None) -> Call[VersionFits]:
    """All fits of a version, and which are active."""
    path = model_path(model, version, "fits")
    return Call(method="GET", path=path, read=page(VersionFits))


def activate_fits(
    model: str, active: Mapping[str, int | None], *, version: int | str | None = None
) -> Call[VersionFits]:
    """Go back to other fits by method and number, or to none; returns all."""
    path = model_path(model, version, "fits")
    return told("PUT", path, {"active": dict(active)}, page(VersionFits))


def _job(response: httpx.Response) -> str:
    return str(response.json()["job"])
