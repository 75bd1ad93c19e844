"""What can be asked beside the rows, by the names of the API; what is left out is the version's.

`docs/http.md` says what each field means. Vocabularies that grow with the server (`method`,
`scaling`, `strategy`, ...) are text: a server refuses what it does not know, and says what it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict


class SamplingFields(TypedDict, total=False):
    """How to sample."""

    num_samples: int | None
    seed: int | None
    masks: Literal["shared", "independent"] | None
    draw: Literal["stratified", "iid"] | None
    method: str | None
    members: Sequence[int | str] | None
    tolerance: float | None
    sites: Literal["all", "last"] | Sequence[int | str] | None
    fallback: float | None


class RowsFields(SamplingFields, total=False):
    """How rows are read, and how to sample."""

    preprocess: bool | None


class TableFields(RowsFields, total=False):
    """Of a table whose reply names its rows."""

    id_column: str | None


class TruthsFields(RowsFields, total=False):
    """Of a table that holds the truths."""

    label: str | Sequence[str] | None


class PredictFields(TableFields, total=False):
    """Of a prediction."""

    coverage: float | None
    calibration: Literal["active", "none"]
    outputs: Sequence[str] | None
    budget_ms: float | None


class CalibrateFields(TruthsFields, total=False):
    """Of a calibration."""

    alpha: float
    coverage: float
    noise_precision: float | None
    scaling: str | None
    sets: str | None
    per_class: bool | None
    empty_sets: bool | None
    intervals: str | None
    ood_score: str | None
    target_risk: float | None
    risk_confidence: float | None
    target_acceptance: float | None
    position_share: float | None
    labels_are: Literal["names", "indices"] | None


class EvaluateFields(TruthsFields, total=False):
    """Of an evaluation."""

    coverage: float | None
    calibration: Literal["active", "none"]
    labels_are: Literal["names", "indices"] | None


class FitFields(TypedDict, total=False):
    """Of a fit, beside its method."""

    num_samples: int | None
    seed: int | None
    num_training_rows: int | None
    prior: Literal["marginal_likelihood", "held_out"] | None
    prior_precision: float | None
    rank: int | None
    labels_are: Literal["names", "indices"] | None
    preprocess: bool | None


class SelectFields(TableFields, total=False):
    """Of a selection, beside its strategy and the number of rows."""

    exclude: Sequence[int]
    candidates: int
    per_class: int | None
    diversity: int | None
    maximize: bool
    incumbent: float | None
    beta: float | None
    xi: float
    noise_variance: float | None
