"""True outcomes of earlier predictions, and how things stand under them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dubito_client.bodies import told
from dubito_client.calls import Call, model_path, page, pages
from dubito_client.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Outcomes that were stored under one calibration: those that were new, and those known."""

    version: int
    calibration: int
    new: int
    known: int


@dataclass(frozen=True, kw_only=True)
class Drift:
    """The drift test of the server that answered, which bets against the scores of the flag."""

    score: str
    since: datetime
    rows: int
    rows_repeated: int
    rows_not_finite: int
    martingale: float
    largest: float
    level: float
    alarm_since: datetime | None
    alarm_after_rows: int | None


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share of outcomes, with its exact interval at a confidence of 0.95."""

    observed: float
    lower: float
    upper: float


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What the last outcomes say of the promises of the calibration."""

    rows: int
    window: int
    promised_coverage: float
    coverage: list[Rate]
    promised_flag_rate: float
    flag_rate: Rate | None
    accuracy: float | None
    ece: float | None
    windows_judged: int


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """How things stand with a version; `alarms` are those that are up, and since when."""

    model: str
    version: int
    calibration: int | None
    alarms: Mapping[str, str]
    drift: Drift | None
    outcomes: Outcomes | None
    predictions: Mapping[str, int]


def feedback(
    model: str,
    request_id: str,
    labels: Sequence[int | str] | NDArray[np.generic] | None = None,
    *,
    targets: Sequence[object] | NDArray[np.generic] | None = None,
    rows: Sequence[int] | NDArray[np.integer] | None = None,
    version: int | str | None = None,
    labels_are: Literal["names", "indices"] | None = None,
) -> Call[list[Stored]]:
    """Store the true outcomes of an earlier prediction.

    Args:
        model: its name.
        request_id: of the prediction.
        labels: class names or indices, one per row.
        targets: of a regression, one value or one list of values per row.
        rows: the rows of the request that these are of; None: from the first on.
        version: number or alias; None: all versions that answered the request.
        labels_are: whether integers are class `names` or `indices`.

    Raises:
        InputError: labels and targets, or neither, or not as many as rows.
    """
    if (labels is None) == (targets is None):
        raise InputError("feedback: expected labels or targets: give one of them")
    name, values = ("label", labels) if targets is None else ("target", targets)
    truths = _plain(values)
    places = list(range(len(truths))) if rows is None else _plain(rows)
    if len(places) != len(truths):
        raise InputError(
            f"feedback: expected one truth per row, got {len(truths)} for {len(places)} rows: "
            "give as many"
        )
    entries = [{"row": row, name: truth} for row, truth in zip(places, truths, strict=True)]
    content: dict[str, object] = {"request_id": request_id, "rows": entries}
    if labels_are is not None:
        content["labels_are"] = labels_are
    return told("POST", model_path(model, version, "feedback"), content, pages(Stored, "stored"))


def monitoring(model: str, *, version: int | str | None = None) -> Call[Monitoring]:
    """Whether a version is still calibrated, and its inputs still look as they did."""
    path = model_path(model, version, "monitoring")
    return Call(method="GET", path=path, read=page(Monitoring))


def _plain(values: object) -> list[object]:
    """Python's own values of an array, or of a list that may hold numpy's."""
    plain = values.tolist() if hasattr(values, "tolist") else values
    assert isinstance(plain, Sequence)
    return [
        entry.tolist() if isinstance(entry, np.ndarray | np.generic) else entry for entry in plain
    ]
