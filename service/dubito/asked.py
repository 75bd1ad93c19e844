"""What is asked of the service, and what it answers: frozen, free of HTTP.

`None` in an order means: the version's default. Names that later builds will know are carried,
so that `sampling.py` can refuse them with a remedy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dubito.calibration.choices import IntervalsName, ScalingName, SetsName
from dubito.calibration.record import Calibration
from dubito.columns import Column
from dubito.engine import Inputs, Sampling
from dubito.labels import LabelsAre
from dubito.registry import CalibrationFact, VersionFact
from dubito.registry.names import ANONYMOUS
from dubito.report import Evaluation


@dataclass(frozen=True)
class SamplingOrder:
    """The sampling choices of a request.

    Args:
        num_samples: T, in passes.
        seed: seed of the masks.
        masks: `shared` or `independent`.
        draw: `stratified` or `iid`.
        method: `mc`, `point`, `moments` or `ensemble`.
        members: versions of an ensemble, by number or alias.
        tolerance: standard error at which a row stops, with T the most.
    """

    num_samples: int | None = None
    seed: int | None = None
    masks: str | None = None
    draw: str | None = None
    method: str | None = None
    members: Sequence[int | str] | None = None
    tolerance: float | None = None


@dataclass(frozen=True)
class PredictOrder:
    """Rows to predict.

    Args:
        model: name of the model.
        inputs: rows first.
        version: number or alias.
        sampling: choices that differ from the version's defaults.
        coverage: of sets and intervals, in (0, 1); None: the calibration's own.
        calibration: `active`, or `none` for the raw figures.
        outputs: names of the columns wanted; None: all but `samples`.
        request_id: under which what is answered is observed and kept; None: it is not.
    """

    model: str
    inputs: Inputs
    version: str = "default"
    sampling: SamplingOrder = SamplingOrder()
    coverage: float | None = None
    calibration: Literal["active", "none"] = "active"
    outputs: Sequence[str] | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class PredictReply:
    """Columns of a prediction, and what they were made with; `members` for an ensemble alone.

    `classes` names what the last axis of arrays stands for; None for a regression.
    """

    model: str
    version: int
    members: tuple[int, ...] | None
    sampling: Sampling
    calibration: int | None
    warnings: tuple[str, ...]
    outputs: Mapping[str, Column]
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class CalibrateOrder:
    """Held-out rows with their truths.

    Args:
        model: name of the model.
        inputs: rows first.
        version: number or alias.
        labels: class indices or class names, for a classification; of each label or position where
            a row has several.
        targets: numbers, (B,) or (B, D), for a regression.
        ood_inputs: rows known to be strange, for the report, and for the choice of a score.
        alpha: false-alarm rate of the flag, in (0, 1).
        coverage: of sets and intervals, in (0, 1).
        noise_precision: 1 / noise variance of a regression, per target unit squared; None: fitted.
        scaling: what is fitted to the logits of a classification; None: `temperature`.
        sets: which score orders the classes; None: `lac`.
        per_class: whether every class has a threshold of its own; None: no.
        intervals: what the intervals of a regression are built around; None: `normalised`.
        ood_score: name of the score of the flag, or `auto`; None: the default of the task.
        target_risk: most share of wrong ones among accepted rows, in (0, 1).
        risk_confidence: with which the risk is promised, in (0, 1); None: 0.95.
        target_acceptance: least share of rows that is accepted, in (0, 1).
        position_share: of a row's labels or positions, the least that its sets shall hold at once;
            None: all labels, 0.95 of the positions.
        labels_are: what integers among the labels are; None: indices that are no other names.
        sampling: choices that differ from the version's defaults.
        actor: who asks, for the audit.
    """

    model: str
    inputs: Inputs
    version: str = "default"
    labels: object = None
    targets: object = None
    ood_inputs: Inputs | None = None
    alpha: float = 0.05
    coverage: float = 0.9
    noise_precision: float | None = None
    scaling: ScalingName | None = None
    sets: SetsName | None = None
    per_class: bool | None = None
    intervals: IntervalsName | None = None
    ood_score: str | None = None
    target_risk: float | None = None
    risk_confidence: float | None = None
    target_acceptance: float | None = None
    position_share: float | None = None
    labels_are: LabelsAre | None = None
    sampling: SamplingOrder = SamplingOrder()
    actor: str = ANONYMOUS


@dataclass(frozen=True)
class CalibrateReply:
    """The number of the new calibration, and its record."""

    model: str
    version: int
    calibration: int
    record: Calibration


@dataclass(frozen=True)
class EvaluateOrder:
    """Labelled rows to judge a version by.

    Args:
        model: name of the model.
        inputs: rows first.
        version: number or alias.
        labels: class indices or class names, for a classification.
        targets: numbers, (B,) or (B, D), for a regression.
        ood_inputs: rows known to be strange.
        coverage: of sets and intervals, in (0, 1); None: the calibration's own.
        calibration: `active`, or `none` for the raw figures.
        labels_are: what integers among the labels are; None: indices that are no other names.
        sampling: choices that differ from the version's defaults.
        compare: whether to judge the raw figures beside the calibrated ones.
    """

    model: str
    inputs: Inputs
    version: str = "default"
    labels: object = None
    targets: object = None
    ood_inputs: Inputs | None = None
    coverage: float | None = None
    calibration: Literal["active", "none"] = "active"
    labels_are: LabelsAre | None = None
    sampling: SamplingOrder = SamplingOrder()
    compare: bool = False


@dataclass(frozen=True)
class EvaluateReply:
    """A report on labelled rows, and what it was made with.

    Args:
        model: name of the model.
        version: number of the version.
        members: of an ensemble alone.
        sampling: what was drawn.
        calibration: number of the one that was applied.
        num_rows: labelled rows.
        coverage: of the sets and intervals; None where there are none.
        evaluation: figures, intervals and curves.
        raw: the same without the calibration, where that was asked.
        warnings: what the caller should know.
    """

    model: str
    version: int
    members: tuple[int, ...] | None
    sampling: Sampling
    calibration: int | None
    num_rows: int
    coverage: float | None
    evaluation: Evaluation
    raw: Evaluation | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class VersionPage:
    """All that is known of one version.

    Args:
        version: the version.
        state: `available`, `loading`, `loaded`, `failed` or `retired`, on this server.
        reason: why it failed, or why it is retired.
        calibration: the active one.
    """

    version: VersionFact
    state: str
    reason: str | None
    calibration: CalibrationFact | None


@dataclass(frozen=True)
class HealthLine:
    """A version that is loaded, or a pinned model whether it is or not.

    Args:
        model: name of the model.
        version: number; None where a pinned model does not exist.
        state: `available`, `loading`, `loaded`, `failed` or `missing`.
        reason: why it failed or is missing.
        is_pinned: whether the server is not ready without it.
        varies: whether the samples of its last Monte Carlo prediction differed; None before.
    """

    model: str
    version: int | None
    state: str
    reason: str | None
    is_pinned: bool
    varies: bool | None


@dataclass(frozen=True)
class Health:
    """Whether the device worker beats, drains, and what is loaded."""

    is_live: bool
    is_ready: bool
    is_draining: bool
    heartbeat_age_s: float
    lines: tuple[HealthLine, ...]
