"""What the service answers: frozen, free of HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from dubito.acquisition import Choice
from dubito.calibration.record import Calibration
from dubito.columns import Column
from dubito.engine import Sampling
from dubito.engine.deviation import Deviation
from dubito.engine.summary import PlanSummary
from dubito.registry import CalibrationFact, VersionFact
from dubito.report import Evaluation


@dataclass(frozen=True)
class PredictReply:
    """Columns of a prediction, and what they were made with; `members` for an ensemble alone.

    `classes` names what the last axis of arrays stands for; None for a regression. `ids` are the
    cells of the column that was asked for, one for each row; None: none was. `agreement` is
    what was measured of the way that method `auto` chose; None: none was relied on.
    """

    model: str
    version: int
    members: tuple[int, ...] | None
    sampling: Sampling
    calibration: int | None
    warnings: tuple[str, ...]
    outputs: Mapping[str, Column]
    classes: tuple[str, ...] | None = None
    ids: Sequence[object] | None = None
    agreement: Mapping[str, object] | None = None

    def head(self) -> dict[str, object]:
        """The reply as plain values, but for its columns."""
        return {
            "model": self.model,
            "version": self.version,
            **sampling_fields(self.sampling, self.members),
            "calibration": self.calibration,
            "warnings": self.warnings,
            **({} if self.ids is None else {"ids": self.ids}),
            **({} if self.agreement is None else {"agreement": self.agreement}),
        }


@dataclass(frozen=True)
class CalibrateReply:
    """The number of the new calibration, its record, and what else the caller should know."""

    model: str
    version: int
    calibration: int
    record: Calibration
    warnings: tuple[str, ...] = ()


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

    def head(self) -> dict[str, object]:
        """The reply as plain values, but for its figures."""
        return {
            "model": self.model,
            "version": self.version,
            **sampling_fields(self.sampling, self.members),
            "calibration": self.calibration,
            "coverage": self.coverage,
            "num_rows": self.num_rows,
        }

    def figures(self) -> dict[str, object]:
        """The figures with their intervals and curves as plain values, and the warnings."""
        return {
            "report": self.evaluation.report,
            "intervals": self.evaluation.intervals,
            "curves": asdict(self.evaluation.curves),
            "warnings": self.warnings,
        }


@dataclass(frozen=True)
class SelectReply:
    """The chosen rows, and what they were chosen with; `members` for an ensemble alone.

    `ids` are their cells in the column that was asked for; None: none was.
    """

    model: str
    version: int
    members: tuple[int, ...] | None
    sampling: Sampling
    choice: Choice
    ids: Sequence[object] | None = None

    def head(self) -> dict[str, object]:
        """The reply as plain values."""
        drawn = sampling_fields(self.sampling, self.members)
        del drawn["tolerance"]
        return {
            "model": self.model,
            "version": self.version,
            **drawn,
            "strategy": self.choice.strategy,
            "candidates": self.choice.candidates,
            "indices": self.choice.indices,
            "scores": self.choice.scores,
            **({} if self.ids is None else {"ids": self.ids}),
        }


@dataclass(frozen=True)
class VersionPage:
    """All that is known of one version.

    Args:
        version: the version.
        state: `available`, `loading`, `loaded`, `failed` or `retired`, on this server.
        reason: why it failed, or why it is retired.
        calibration: the active one.
        plan: of its engine; None where it is not loaded.
        deviation: of its figures from those in float32; None there, or where it is not loaded.
    """

    version: VersionFact
    state: str
    reason: str | None
    calibration: CalibrationFact | None
    plan: PlanSummary | None = None
    deviation: Deviation | None = None


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
        precision: of its passes; None of a model that does not exist.
    """

    model: str
    version: int | None
    state: str
    reason: str | None
    is_pinned: bool
    varies: bool | None
    precision: str | None = None


@dataclass(frozen=True)
class HealthWorker:
    """Whether the worker of a device runs, and how long ago it beat."""

    device: str
    is_running: bool
    heartbeat_age_s: float


@dataclass(frozen=True)
class Health:
    """Whether the workers beat, the server drains, and what is loaded."""

    is_live: bool
    is_ready: bool
    is_draining: bool
    heartbeat_age_s: float
    lines: tuple[HealthLine, ...]
    workers: tuple[HealthWorker, ...]


def sampling_fields(sampling: Sampling, members: tuple[int, ...] | None) -> dict[str, object]:
    """Return the fields of a reply that say how it was drawn; `members` of an ensemble alone."""
    return {**({} if members is None else {"members": list(members)}), **sampling.to_json()}
