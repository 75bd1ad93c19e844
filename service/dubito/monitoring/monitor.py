"""Monitoring of what is served: observe, take in true outcomes, and tell how things stand.

Flow: a reply under a calibration → recorder → drift test, and the database; a truth → what was
predicted → outcomes under the watch of their calibration → the state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from dubito.calibration.cache import Calibrations
from dubito.calibration.heads import Head, head_of
from dubito.errors import InputError, NotFoundError
from dubito.labels import Classes, LabelsAre
from dubito.models.library import Library
from dubito.monitoring.drifts import DriftFact, Drifts
from dubito.monitoring.observed import ObservedRows
from dubito.monitoring.observing import laws
from dubito.monitoring.outcomes import Figures, Outcome, Watch, figures
from dubito.monitoring.recorder import Counts, Observation, Recorder
from dubito.names import DEFAULT_ALIAS
from dubito.registry import CalibrationFact, Registry, VersionFact
from dubito.registry.monitoring import (
    Added,
    CalibrationName,
    Feedback,
    OutcomeFact,
    PredictionFact,
    State,
    check_reference,
)
from dubito.settings import Settings
from dubito_nn.manifest_reader import manifest_from_json

_FLUSH_S = 5.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Truth:
    """The true class (name or index) or the true number or numbers of one row."""

    row: int
    label: str | int | None = None
    target: float | Sequence[float] | None = None


@dataclass(frozen=True)
class FeedbackOrder:
    """True outcomes for an earlier prediction.

    Args:
        model: name of the model.
        request_id: of the reply.
        truths: by row.
        version: number or alias; `default`: whichever version answered.
        labels_are: what integers among the labels are; None: indices that are no other names.
    """

    model: str
    request_id: str
    truths: Sequence[Truth]
    version: str = "default"
    labels_are: LabelsAre | None = None


@dataclass(frozen=True)
class MonitoringPage:
    """How things stand with a version under its active calibration; all None without one."""

    version: VersionFact
    calibration: CalibrationFact | None
    drift: DriftFact | None
    watch: Watch | None
    num_outcomes: int
    figures: Figures | None
    counts: Counts

    @property
    def alarms(self) -> dict[str, str]:
        """The alarms that are up by name, each with the time since when."""
        since = {} if self.watch is None else dict(self.watch.alarms)
        if self.drift is not None and self.drift.alarm_since is not None:
            since["drift"] = self.drift.alarm_since.isoformat()
        return since


class Monitoring:
    """What is kept of predictions, their outcomes, and the alarms over both.

    Args:
        registry: where they are kept.
        library: the versions and their calibrations.
        calibrations: their records, read.
        settings: bounds.
    """

    def __init__(
        self, registry: Registry, library: Library, calibrations: Calibrations, settings: Settings
    ) -> None:
        self._journal = registry.journal
        self._library = library
        self._calibrations = calibrations
        self._window = settings.monitoring_window
        self._keep = max(self._window, 2 * settings.kept_predictions)
        self._is_on = settings.monitoring
        self._drifts = Drifts()
        self._settlers: list[Callable[[float], None]] = []
        self._recorder = Recorder(
            self._journal,
            self._drifts.feed,
            max_bytes=settings.monitoring_queue_bytes,
            max_rows=settings.kept_predictions,
        )

    def start(self) -> None:
        """Start to observe predictions, where the settings ask for it."""
        if self._is_on:
            self._recorder.start()

    def close(self) -> None:
        """Write the observations that wait, and end the recorder's thread."""
        self._recorder.close()

    def observe(self, observation: Observation) -> None:
        """Leave what was answered for the recorder; returns at once."""
        self._recorder.put(observation)

    def settle(self, within_s: float) -> None:
        """Wait until what was answered here so far is kept, or the time is over."""
        self._recorder.flush(within_s)

    def settle_by(self, settler: Callable[[float], None]) -> None:
        """Have a function wait until others kept what they answered: before truths, and a page."""
        self._settlers.append(settler)

    def feedback(self, order: FeedbackOrder) -> tuple[Added, ...]:
        """Store true outcomes; what is answered is on the disk.

        Raises:
            NotFoundError: no such model or version, or nothing is kept of the request.
            InputError: a row that the request did not have, or a truth of another kind.
            ConflictError: another truth is stored for a row.
        """
        _check_rows(order.truths)
        try:
            predictions = self._find(order)
        except NotFoundError:
            version = self._library.version(order.model, order.version or DEFAULT_ALIAS)
            _check_head(head_of(manifest_from_json(version.manifest)))  # whatever was kept
            raise
        feedbacks = [self._judge(prediction, order) for prediction in predictions]
        added = self._journal.add(feedbacks, keep=self._keep)
        for change in added:
            _warn_of_alarms(change)
        return added

    @property
    def counts(self) -> Counts:
        """Rows that wait to be written, were written, or were dropped."""
        return self._recorder.counts

    def page(self, model: str, reference: str, *, patience_s: float = _FLUSH_S) -> MonitoringPage:
        """How things stand with a version.

        Args:
            model: its name.
            reference: number or alias.
            patience_s: how long predictions that are not written yet are waited for.

        Raises:
            NotFoundError: no such model or version.
        """
        version = self._library.version(model, reference)
        fact = self._library.active_calibration(version)
        if fact is None:
            return MonitoringPage(version, None, None, None, 0, None, self._recorder.counts)
        if patience_s:
            self._settle_all(patience_s)
        name = CalibrationName(version.model, version.number, fact.number)
        watch = self._journal.monitoring(name, self._window)
        return MonitoringPage(
            version=version,
            calibration=fact,
            drift=self._drifts.fact(name),
            watch=None if watch.state is None else Watch.from_json(watch.state),
            num_outcomes=watch.num_outcomes,
            figures=figures([_outcome(outcome) for outcome in watch.last]),
            counts=self._recorder.counts,
        )

    def _find(self, order: FeedbackOrder) -> tuple[PredictionFact, ...]:
        """What is kept of a request, once all servers that are known kept what they answered."""
        self._settle_all(_FLUSH_S)
        return self._journal.find(order.model, check_reference(order.version), order.request_id)

    def _settle_all(self, within_s: float) -> None:
        for settle in (self.settle, *self._settlers):
            settle(within_s)

    def _judge(self, prediction: PredictionFact, order: FeedbackOrder) -> Feedback:
        name = prediction.calibration
        version = self._library.version(name.model, str(name.version))
        fact = self._library.calibration(version, name.number)
        calibration = self._calibrations.of(fact)
        _check_head(calibration.head)
        rows = ObservedRows.from_bytes(prediction.content)
        judge = _Judge(rows, Classes(_classes(version), order.labels_are), prediction)
        outcomes = [judge.outcome(truth) for truth in order.truths]

        def advance(state: State | None, new: Sequence[OutcomeFact], at: str) -> State:
            law, num_outputs = laws(calibration), len(new[0].is_covered)
            fresh = Watch.start(num_outputs, self._window)
            watch = fresh if state is None else Watch.from_json(state)
            for outcome in new:
                watch = watch.add(_outcome(outcome), at, law, self._window)
            return watch.to_json()

        return Feedback(prediction, outcomes, advance)


@dataclass(frozen=True, eq=False)
class _Judge:
    """Truths of one prediction, checked and held against it."""

    rows: ObservedRows
    classes: Classes
    prediction: PredictionFact

    def outcome(self, truth: Truth) -> OutcomeFact:
        if truth.row >= self.rows.num_rows:
            raise InputError(
                f"row {truth.row} of request {self.prediction.request_id!r}: expected one from 0 "
                f"to {self.rows.num_rows - 1}, since it had {self.rows.num_rows} rows: correct it"
            )
        is_classes = self.rows.is_member is not None
        wanted, unwanted = ("label", "target") if is_classes else ("target", "label")
        if getattr(truth, wanted) is None or getattr(truth, unwanted) is not None:
            task = "classification" if is_classes else "regression"
            raise InputError(
                f"row {truth.row}: the truth of a {task} expects `{wanted}` and no `{unwanted}`, "
                f"got others: send `{wanted}` alone"
            )
        if self.classes.labels_are is not None and not is_classes:
            raise InputError("`labels_are` belongs to labels, got targets: leave it out")
        if is_classes:
            label = self.classes.index(
                truth.label,
                f"row {truth.row}: `label` of version {self.prediction.calibration.version}",
                remedy="correct it, or name the version that answered in the path",
            )
            return _fact(truth.row, [float(label)], self.rows.class_outcome(truth.row, label))
        target_D = self._target(truth)
        return _fact(truth.row, target_D, self.rows.number_outcome(truth.row, target_D))

    def _target(self, truth: Truth) -> list[float]:
        target = truth.target
        values = list(target) if isinstance(target, Sequence) else [target]
        target_D = [float(value) for value in values if value is not None]
        if len(target_D) != self.rows.mean.shape[1] or not all(map(math.isfinite, target_D)):
            raise InputError(
                f"row {truth.row}: `target` expects {self.rows.mean.shape[1]} finite numbers, got "
                f"{len(target_D)}: send one per output"
            )
        return target_D


def _check_head(head: Head) -> None:
    if not head.takes_feedback:
        raise InputError(
            f"feedback expects one truth per row, got a {head.name} head, which has "
            f"{head.without_feedback}"
        )


def _check_rows(truths: Sequence[Truth]) -> None:
    seen: set[int] = set()
    for truth in truths:
        if truth.row in seen:
            raise InputError(
                f"`rows`: expected every row once, got row {truth.row} twice: leave one out"
            )
        seen.add(truth.row)


def _classes(version: VersionFact) -> tuple[str, ...]:
    named = version.manifest.get("classes")
    if isinstance(named, Sequence) and named:
        return tuple(str(name) for name in named)
    count = version.manifest.get("num_outputs")
    return tuple(str(index) for index in range(count if isinstance(count, int) else 0))


def _fact(row: int, truth: list[float], outcome: Outcome) -> OutcomeFact:
    return OutcomeFact(
        row=row,
        truth=truth,
        is_covered=outcome.is_covered,
        is_flagged=outcome.is_flagged,
        confidence=outcome.confidence,
        is_right=outcome.is_right,
    )


def _outcome(fact: OutcomeFact) -> Outcome:
    return Outcome(fact.is_covered, fact.is_flagged, fact.confidence, fact.is_right)


def _warn_of_alarms(added: Added) -> None:
    """Log an alarm once: when the feedback that raised it is stored."""
    name = added.calibration
    before = _alarms(added.before)
    for alarm in _alarms(added.after):
        if alarm not in before:
            _log.warning(
                "the outcomes are not those that the calibration promised",
                alarm=alarm,
                model=name.model,
                version=name.version,
                calibration=name.number,
            )


def _alarms(state: Mapping[str, object] | None) -> dict[str, str]:
    return {} if state is None else Watch.from_json(state).alarms
