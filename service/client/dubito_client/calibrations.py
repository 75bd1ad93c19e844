"""Calibrations: fit on labelled rows, judge on others, look at what was fitted, go back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias, Unpack

import httpx

from dubito_client.bodies import Rows, Value, body_of, posted, told
from dubito_client.calls import Call, Document, model_path, of_json, page
from dubito_client.fields import CalibrateFields, EvaluateFields

Report: TypeAlias = Mapping[str, float | None]
Intervals: TypeAlias = Mapping[str, tuple[float, float] | None]


@dataclass(frozen=True, kw_only=True)
class Reports:
    """Figures on rows that no fit has seen, without and with the calibration."""

    before: Report
    after: Report
    intervals: Mapping[str, Intervals]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A calibration that was just fitted; `verdict` says why it is `active`, or why not."""

    model: str
    version: int
    calibration: int
    active: bool
    verdict: str | None
    num_rows: int
    splits: Mapping[str, int]
    report: Reports
    warnings: list[str]
    ood: Document
    policy: Document


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A calibration: all that was fitted, with what, and the curves of its report."""

    model: str
    version: int
    calibration: int
    verdict: str | None
    num_rows: int
    splits: Mapping[str, int]
    report: Reports
    warnings: list[str]
    ood: Document
    policy: Document
    created_at: datetime
    format_version: int
    task: str
    sampling: Document
    alpha: float
    coverage: float
    scaling: str
    temperature: float | None
    class_map: Document | None
    noise_variance: list[float] | None
    variance_scale: list[float] | None
    ood_reference: list[float] | None
    ood_fitted: Document | None
    conformal: Document
    set_rule: Document
    intervals: str
    positions: Document | None
    bins: list[Document]
    curves: Document = field(repr=False)
    quantile_levels: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How good a version is on labelled rows; `intervals` are those of the figures, at 95 %."""

    model: str
    version: int
    num_samples: int
    seed: int
    masks: str
    draw: str
    method: str
    tolerance: float | None
    calibration: int | None
    coverage: float | None
    num_rows: int
    splits: Mapping[str, int]
    report: Report
    intervals: Intervals
    warnings: list[str]
    curves: Document = field(repr=False)
    sites: str | list[int | str] = "all"
    precision: str = "float32"
    fit: int | None = None
    fallback: float | None = None
    members: list[int] = field(default_factory=list)


def calibrate(
    model: str,
    inputs: Rows,
    labels: Value | None = None,
    *,
    targets: Value | None = None,
    ood_inputs: Rows | None = None,
    version: int | str | None = None,
    **fields: Unpack[CalibrateFields],
) -> Call[Fitted]:
    """Fit on held-out rows, and make the result active unless it is worse than none.

    Args:
        model: its name.
        inputs: rows that training has not seen.
        labels: of a classification, class names or indices, one per row; of several labels or
            positions nested.
        targets: of a regression, true values, (B,) or (B, D).
        ood_inputs: out-of-distribution rows, for the report.
        version: number or alias; None: the alias `default`.
        fields: of the API, such as `coverage=0.95, scaling="vector"`.
    """
    rows = {"inputs": inputs, "labels": labels, "targets": targets, "ood_inputs": ood_inputs}
    path = model_path(model, version, "calibrate")
    return posted(path, body_of(rows, fields), page(Fitted), is_repeatable=False)


def evaluate(
    model: str,
    inputs: Rows,
    labels: Value | None = None,
    *,
    targets: Value | None = None,
    ood_inputs: Rows | None = None,
    version: int | str | None = None,
    **fields: Unpack[EvaluateFields],
) -> Call[Evaluation]:
    """Judge what is served on labelled rows; nothing is changed. Arguments as of `calibrate`."""
    rows = {"inputs": inputs, "labels": labels, "targets": targets, "ood_inputs": ood_inputs}
    path = model_path(model, version, "evaluate")
    return posted(path, body_of(rows, fields), page(Evaluation))


def calibration(model: str, *, version: int | str | None = None) -> Call[Calibration | None]:
    """The active calibration; None where there is none."""
    return Call(method="GET", path=model_path(model, version, "calibration"), read=_active)


def activate(
    model: str, calibration: int | None, *, version: int | str | None = None
) -> Call[Calibration | None]:
    """Go back to another calibration by its number, or to none; returns the active one."""
    path = model_path(model, version, "calibration")
    return told("PUT", path, {"active": calibration}, _active)


def _active(response: httpx.Response) -> Calibration | None:
    content = response.json()
    return None if content["calibration"] is None else of_json(Calibration, content)
