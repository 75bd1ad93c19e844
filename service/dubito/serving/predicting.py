"""Predictions: what those that differ in their rows alone have in common, and a task for each.

Flow: order, resolved → `PlannedPrediction`, which may serve many → rows, checked → a task of the
device's worker → figures, with the calibration → reply.

Dimensions: B rows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor

from dubito.answered import PredictReply
from dubito.asked import PredictOrder
from dubito.calibration.record import Calibration
from dubito.columns import Column
from dubito.engine.network import num_values
from dubito.engine.plans import shapes
from dubito.models.library import Library
from dubito.monitoring.monitor import Monitoring
from dubito.monitoring.recorder import Observation
from dubito.registry.monitoring import CalibrationName
from dubito.serving.bounds import check_values
from dubito.serving.outputs import METHOD_USED, Built, Computed, Outputs, check_outputs
from dubito.serving.resolve import Resolved
from dubito.serving.rows import ReadRows
from dubito.serving.turns.rates import Kind
from dubito.serving.ways import ChosenWay
from dubito.serving.worker import Check, Joint, Reservation
from dubito.settings import Settings
from dubito.telemetry import Telemetry

Measured: TypeAlias = tuple[Callable[[Check], Any] | Joint[Any, Any], Kind]
"""A task, and what it is for those who measure how long it takes."""

_MOST_SHAPES = 64  # of a network whose sizes are free


@dataclass(frozen=True)
class PredictionParts:
    """What every prediction is made with.

    Args:
        library: is told whether samples varied.
        monitoring: keeps what is answered under a calibration.
        telemetry: is told what was computed.
        settings: the bounds.
    """

    library: Library
    monitoring: Monitoring
    telemetry: Telemetry
    settings: Settings


@dataclass(frozen=True, eq=False)
class PlannedPrediction:
    """Predictions that differ in nothing but their rows, and the ids of their requests.

    Args:
        order: all of it but the rows, which are not looked at.
        asked: what it means.
        calibration: the active one, as it was read; None: raw figures.
        parts: what every prediction is made with.
    """

    order: PredictOrder
    asked: Resolved
    calibration: Calibration | None
    parts: PredictionParts
    _outputs: dict[bool, Outputs] = field(default_factory=dict)
    _of_shape: dict[Hashable, _OfShape] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse names of outputs that there are not."""
        check_outputs(self.order.outputs, self.asked.network.manifest, self.asked.sampling)

    def task(
        self,
        read: ReadRows,
        request_id: str | None,
        reservation: Reservation,
        *,
        ids: Sequence[object] | None = None,
        choice: ChosenWay | None = None,
    ) -> Measured:
        """What the worker does for some rows.

        Args:
            read: the rows.
            request_id: under which what is answered is observed.
            reservation: takes the place that they need.
            ids: cells of the column of ids.
            choice: of method `auto`.
        """
        asked, parts = self.asked, self.parts
        inputs, rows = read.inputs, read.num_rows
        of_shape = self._shaped(inputs)
        values, limit = rows * of_shape.row_values, parts.settings.max_sample_values
        if self.order.outputs and "samples" in self.order.outputs:
            check_values(values, limit)
        reservation.resize(rows * asked.passes)
        queued = parts.telemetry.asked()
        outputs = self._made(may_keep_samples=values <= limit)

        def finish(computed: Computed) -> PredictReply:
            built = outputs.build(inputs, computed)
            self._tell(built, request_id)
            parts.telemetry.replied(asked.version.model, rows, built.outputs, queued)
            return self._reply(built, read, ids, choice)

        likes, kind = of_shape.kinds(asked, outputs)
        compute = parts.telemetry.batches(outputs.compute, asked.passes)
        if asked.sampling.masks != "shared":  # masks depend on the row's place in its request
            return (lambda check: finish(compute(inputs, check))), kind
        most_rows = parts.settings.max_batch_rows
        if outputs.keeps_samples:
            most_rows = min(most_rows, limit // of_shape.row_values)
        return Joint(likes, inputs, most_rows, compute, finish), kind

    def _shaped(self, inputs: Mapping[str, Tensor]) -> _OfShape:
        shape = shapes(inputs)
        known = self._of_shape.get(shape)
        if known is None:
            if len(self._of_shape) >= _MOST_SHAPES:
                self._of_shape.clear()
            row_values = num_values(self.asked.network, self.asked.sampling, 1, inputs)
            numbers = sum(tensor.shape[1:].numel() for tensor in inputs.values())
            known = self._of_shape[shape] = _OfShape(shape, row_values, numbers.bit_length())
        return known

    def _made(self, *, may_keep_samples: bool) -> Outputs:
        known = self._outputs.get(may_keep_samples)
        if known is None:
            asked = self.asked
            known = self._outputs[may_keep_samples] = Outputs.begin(
                *(self.order, asked.network, asked.sampling, self.calibration),
                may_keep_samples=may_keep_samples,
            )
        return known

    def _tell(self, built: Built, request_id: str | None) -> None:
        """Tell the catalogue and monitoring of an answer."""
        version, fact, parts = self.asked.version, self.asked.calibration, self.parts
        if built.varies is not None:
            parts.library.catalogue.note_variation(version.loaded_as, built.varies)
        if fact is not None and built.calibration is not None and built.observed is not None:
            name = CalibrationName(version.model, version.number, fact.number)
            parts.monitoring.observe(
                Observation(name, built.calibration, request_id or "", built.observed)
            )

    def _reply(
        self,
        built: Built,
        read: ReadRows,
        ids: Sequence[object] | None,
        choice: ChosenWay | None,
    ) -> PredictReply:
        asked, fact = self.asked, self.asked.calibration
        outputs: Mapping[str, Column] = built.outputs
        if choice is not None:
            outputs = {**outputs, METHOD_USED: [str(asked.sampling.method)] * read.num_rows}
        of_choice = () if choice is None or choice.warning is None else (choice.warning,)
        return PredictReply(
            model=asked.version.model,
            version=asked.version.number,
            members=asked.numbers,
            sampling=asked.sampling,
            calibration=None if fact is None or built.calibration is None else fact.number,
            warnings=(*read.warnings, *of_choice, *built.warnings),
            outputs=outputs,
            agreement=None if choice is None else choice.told,
            classes=asked.network.manifest.classes,
            ids=ids,
        )


@dataclass(frozen=True, eq=False)
class _OfShape:
    """What is the same for all rows of a shape.

    Args:
        shape: of one row of every input.
        row_values: numbers that all passes over one row make.
        size: the power of 2 above the numbers of a row.
    """

    shape: tuple[object, ...]
    row_values: int
    size: int
    _kinds: dict[tuple[bool, bool], tuple[Hashable, Kind]] = field(default_factory=dict)

    def kinds(self, asked: Resolved, outputs: Outputs) -> tuple[Hashable, Kind]:
        """What tasks share whose rows may be computed together, and what they are measured as.

        Args:
            asked: what the order means.
            outputs: one of the two of a planned prediction.
        """
        kept = outputs.keeps_samples, outputs.takes_features
        known = self._kinds.get(kept)
        if known is None:
            kind = asked.kind("predict", *kept, self.size)
            known = self._kinds[kept] = outputs.kind(self.shape), kind
        return known
