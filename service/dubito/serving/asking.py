"""What may be asked of the networks: checked at once, then a task of the device's worker.

Flow: order → resolved → rows checked → a place in the queue, large enough → the worker runs the
networks → figures, with the calibration → reply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, TypedDict, Unpack, overload

from dubito.acquisition import ArrayPool
from dubito.answered import CalibrateReply, EvaluateReply, PredictReply, SelectReply
from dubito.asked import (
    CalibrateOrder,
    EvaluateOrder,
    PredictOrder,
    SelectOrder,
    TableOptions,
)
from dubito.calibration.cache import Calibrations
from dubito.columns import Column
from dubito.engine.network import num_values
from dubito.models.library import Library
from dubito.monitoring.monitor import Monitoring
from dubito.monitoring.recorder import Observation
from dubito.preprocess import FILE, is_archive
from dubito.registry import Registry
from dubito.registry.monitoring import CalibrationName
from dubito.serving.bounds import Bounds, check_values
from dubito.serving.labelled import (
    calibrate,
    check_evaluated,
    check_sampling,
    evaluate,
    terms_of,
)
from dubito.serving.outputs import METHOD_USED, Computed, Outputs, check_outputs
from dubito.serving.resolve import AnyOrder, Resolved, Resolver
from dubito.serving.rows import ReadRows
from dubito.serving.selecting import begin
from dubito.serving.turns.rates import Kind
from dubito.serving.worker import Check, Job, Joint, Reservation, Urgency, Worker
from dubito.settings import Settings
from dubito.telemetry import Telemetry

Plain: TypeAlias = Callable[[Check], Any]
Task: TypeAlias = Plain | Joint[Any, Any]
PlainMeasured: TypeAlias = tuple[Plain, Kind]
Measured: TypeAlias = tuple[Task, Kind]
"""A task, and what it is for those who measure how long it takes."""


class Queued(TypedDict, total=False):
    """How an order waits.

    `reservation` is a place that the caller holds; it is given back in every case. `deadline_s` is
    the time on the clock of `time.monotonic` after which the order is not run.
    """

    reservation: Reservation | None
    deadline_s: float | None


@dataclass(frozen=True)
class Asking:
    """Queues what is asked.

    Args:
        registry: where calibrations are kept.
        library: the models.
        calibrations: those that were read.
        monitoring: keeps what is answered under a calibration.
        worker: owns the device.
        telemetry: is told what was computed.
        settings: the bounds.
    """

    registry: Registry
    library: Library
    calibrations: Calibrations
    monitoring: Monitoring
    worker: Worker
    telemetry: Telemetry
    settings: Settings

    @overload
    def __call__(self, order: PredictOrder, **queued: Unpack[Queued]) -> Job[PredictReply]: ...
    @overload
    def __call__(self, order: CalibrateOrder, **queued: Unpack[Queued]) -> Job[CalibrateReply]: ...
    @overload
    def __call__(self, order: EvaluateOrder, **queued: Unpack[Queued]) -> Job[EvaluateReply]: ...
    @overload
    def __call__(self, order: SelectOrder, **queued: Unpack[Queued]) -> Job[SelectReply]: ...

    def __call__(self, order: AnyOrder, **queued: Unpack[Queued]) -> Job[Any]:
        """Check an order and queue it.

        A calibration is stored, and active unless its fit is worse than none; no other order
        changes anything.

        Raises:
            DubitoError: of the class that names the reason.
        """
        return self._queue(order, partial(self._task, order), queued)

    def at_once(self, order: PredictOrder, **queued: Unpack[Queued]) -> Job[PredictReply] | None:
        """Check a prediction and queue it, where that takes neither a thread nor any time.

        Returns:
            None where something has to be read or loaded first, or a shape to be found out; the
            place is then still held.

        Raises:
            DubitoError: as above.
        """
        asked = self._resolver.at_hand(order)
        if asked is None or asked.network.manifest.channel_axis is not None:
            return None
        if asked.network.manifest.preprocess is not None:  # which takes its time
            return None
        if asked.calibration is not None and self.calibrations.known(asked.calibration) is None:
            return None
        return self._queue(order, partial(self._predict, order, asked), queued)

    def _queue(
        self, order: AnyOrder, task: Callable[[Reservation], Measured], queued: Queued
    ) -> Job[Any]:
        """Queue the task that fills a place; whatever happens, the place is given back."""
        reservation = queued.get("reservation") or self.worker.reserve(1)
        is_prediction = isinstance(order, PredictOrder)
        try:
            made, kind = task(reservation)
            return self.worker.submit(
                reservation,
                made,
                deadline_s=queued.get("deadline_s"),
                urgency=Urgency.PREDICTIONS if is_prediction else Urgency.LABELLED,
                model=order.model,
                kind=kind,
            )
        except BaseException:  # else the worker gives it back
            reservation.release()
            raise

    def _task(self, order: AnyOrder, reservation: Reservation) -> Measured:
        match order:
            case PredictOrder():
                return self._predict(order, self._resolver.resolve(order), reservation)
            case CalibrateOrder():
                return self._timed(self._calibrate(order, reservation), "calibrate")
            case EvaluateOrder():
                return self._timed(self._evaluate(order, reservation), "evaluate")
            case SelectOrder():
                return self._timed(self._select(order, reservation), "select")

    def _timed(self, measured: PlainMeasured, action: str) -> Measured:
        task, kind = measured
        return self.telemetry.timed(task, action), kind

    def _predict(self, order: PredictOrder, asked: Resolved, reservation: Reservation) -> Measured:
        network = asked.network
        check_outputs(order.outputs, network.manifest, asked.sampling)
        fact, version = asked.calibration, asked.version
        calibration = None if fact is None else self.calibrations.of(fact)
        seen = None if calibration is None else calibration.seen
        read = self._bounds.read(network, order.inputs, order, _ids(order), seen)
        inputs, rows = read.inputs, read.num_rows
        choice = None
        if order.method == "auto":
            asked, choice = self._resolver.chosen(order, asked, rows)
        sampling = asked.sampling
        values, limit = num_values(network, sampling, rows, inputs), self.settings.max_sample_values
        if order.outputs and "samples" in order.outputs:
            check_values(values, limit)
        reservation.resize(rows * asked.passes)

        queued = self.telemetry.asked()
        outputs = Outputs.begin(
            order,
            network,
            sampling,
            calibration,
            may_keep_samples=values <= limit,
        )

        whose: dict[str, Column] = {}
        if choice is not None:
            whose[METHOD_USED] = [str(sampling.method)] * rows
        of_choice = () if choice is None or choice.warning is None else (choice.warning,)

        def finish(computed: Computed) -> PredictReply:
            built = outputs.build(inputs, computed)
            if built.varies is not None:
                self.library.catalogue.note_variation(version.digest, built.varies)
            if fact is not None and built.calibration is not None and built.observed is not None:
                name = CalibrationName(version.model, version.number, fact.number)
                request_id, kept = order.request_id or "", built.calibration
                self.monitoring.observe(Observation(name, kept, request_id, built.observed))
            self.telemetry.replied(version.model, rows, built.outputs, queued)
            return PredictReply(
                model=version.model,
                version=version.number,
                members=asked.numbers,
                sampling=sampling,
                calibration=None if fact is None or built.calibration is None else fact.number,
                warnings=(*read.warnings, *of_choice, *built.warnings),
                outputs={**built.outputs, **whose},
                agreement=None if choice is None else choice.told,
                classes=network.manifest.classes,
                ids=_ids_of(order, read),
            )

        row_values = sum(tensor.shape[1:].numel() for tensor in inputs.values())
        kept = outputs.keeps_samples, outputs.takes_features
        kind = asked.kind("predict", *kept, row_values.bit_length())
        compute = self.telemetry.batches(outputs.compute, asked.passes)
        if sampling.masks != "shared":  # masks that depend on the row's place in its request
            return (lambda check: finish(compute(inputs, check))), kind
        most_rows = self.settings.max_batch_rows
        if outputs.keeps_samples:
            most_rows = min(most_rows, limit * rows // values)
        return Joint(outputs.kind(inputs), inputs, most_rows, compute, finish), kind

    def _calibrate(self, order: CalibrateOrder, reservation: Reservation) -> PlainMeasured:
        asked = self._resolver.resolve(order, check_sampling)
        network, sampling, version = asked.network, asked.sampling, asked.version
        terms = terms_of(order, sampling, network.manifest)
        rows = self._bounds.read_labelled(order, asked, reservation)
        limit = self.settings.max_calibration_values

        def task(check: Check) -> CalibrateReply:
            record = calibrate(network, rows, terms, check, limit)
            check()
            fact = self.registry.add_calibration(
                version.model,
                str(version.number),
                record.to_json(),
                is_active=record.is_worth_using,
                actor=order.actor,
            )
            number = version.number
            return CalibrateReply(version.model, number, fact.number, record, rows.warnings)

        return task, asked.kind("calibrate")

    def _evaluate(self, order: EvaluateOrder, reservation: Reservation) -> PlainMeasured:
        asked = self._resolver.resolve(order, check_evaluated)
        network, sampling, fact = asked.network, asked.sampling, asked.calibration
        rows = self._bounds.read_labelled(order, asked, reservation)
        limit = self.settings.max_calibration_values

        def task(check: Check) -> EvaluateReply:
            calibration = None if fact is None else self.calibrations.of(fact)
            judged = evaluate(network, rows, order, sampling, calibration, check, limit)
            return EvaluateReply(
                model=asked.version.model,
                version=asked.version.number,
                members=asked.numbers,
                sampling=sampling,
                calibration=fact.number if fact is not None and judged.is_calibrated else None,
                num_rows=len(rows.truths),
                coverage=judged.coverage,
                evaluation=judged.evaluation,
                raw=judged.raw,
                warnings=(*rows.warnings, *judged.warnings),
            )

        return task, asked.kind("evaluate")

    def _select(self, order: SelectOrder, reservation: Reservation) -> PlainMeasured:
        asked = self._resolver.resolve(order)
        network, limit = asked.network, self.settings.max_calibration_values
        read = self._bounds.read(network, order.inputs, order, _ids(order))
        if order.targets is not None and network.manifest.preprocess is not None:
            order = replace(order, targets=self._bounds.read(network, order.targets, order).inputs)
        search = begin(order, network, asked.sampling, read.num_rows, limit)
        reservation.resize(max(1, search.work) * asked.passes)
        ids = _ids_of(order, read)

        def task(check: Check) -> SelectReply:
            choice = search.run(ArrayPool(read.inputs), check)
            version, sampling = asked.version, search.sampling
            chosen = None if ids is None else [ids[index] for index in choice.indices]
            return SelectReply(
                version.model, version.number, asked.numbers, sampling, choice, chosen
            )

        return task, asked.kind("select", order.strategy)

    @property
    def _bounds(self) -> Bounds:
        return Bounds(self.settings)

    @property
    def _resolver(self) -> Resolver:
        return Resolver(self.library, self.settings.max_num_samples)


def _ids(order: TableOptions) -> tuple[str, ...]:
    """The column of ids, where one is asked for; that of an archive without asking."""
    if order.id_column is not None:
        return (order.id_column,)
    inputs = order.inputs if isinstance(order, PredictOrder | SelectOrder) else None
    return (FILE,) if is_archive(inputs) else ()


def _ids_of(order: TableOptions, read: ReadRows) -> Sequence[object] | None:
    return next((read.beside[name] for name in _ids(order)), None)
