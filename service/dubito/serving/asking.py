"""What may be asked of the networks: checked at once, then a task of the device's worker.

Flow: order → resolved → rows checked → a place in the queue, large enough → the worker runs the
networks → figures, with the calibration → reply.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
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
from dubito.engine import Inputs
from dubito.models.library import Library
from dubito.monitoring.monitor import Monitoring
from dubito.preprocess import FILE, is_archive
from dubito.registry import Registry
from dubito.serving.bounds import Bounds
from dubito.serving.labelled import (
    calibrate,
    check_evaluated,
    check_sampling,
    evaluate,
    terms_of,
)
from dubito.serving.predicting import Measured, PlannedPrediction, PredictionParts
from dubito.serving.resolve import AnyOrder, Resolved, Resolver
from dubito.serving.rows import ReadRows
from dubito.serving.selecting import begin
from dubito.serving.turns.rates import Kind
from dubito.serving.worker import Check, Job, Reservation, Urgency, Worker
from dubito.settings import Settings
from dubito.telemetry import Telemetry

Plain: TypeAlias = Callable[[Check], Any]
PlainMeasured: TypeAlias = tuple[Plain, Kind]


_MOST_KEPT = 64  # ways to ask an engine


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

    def at_once(
        self, order: PredictOrder, key: Hashable = None, **queued: Unpack[Queued]
    ) -> Job[PredictReply] | None:
        """Check a prediction and queue it, where that takes neither a thread nor any time.

        Args:
            order: what is asked.
            key: that orders have in common which differ in their rows and their ids alone, of one
                model and one reference to a version; for `again`. None: nothing is kept.
            queued: how it waits.

        Returns:
            None where something has to be read or loaded first, or a shape to be found out; the
            place is then still held.

        Raises:
            DubitoError: as above.
        """
        asked = self._resolver.at_hand(order)
        if asked is None or not self._takes_no_time(asked):
            return None

        def task(reservation: Reservation) -> Measured:
            made = self._predict(order, asked, reservation)
            if key is not None and order.id_column is None:
                self._keep(key, self._planned(replace(order, inputs=()), asked))
            return made

        return self._queue(order, task, queued)

    def again(
        self,
        model: str,
        reference: str,
        key: Hashable,
        inputs: Inputs,
        request_id: str | None,
        **queued: Unpack[Queued],
    ) -> Job[PredictReply] | None:
        """Queue a prediction like one that was queued before.

        Args:
            model: its name.
            reference: its version, as orders name it.
            key: of `at_once`.
            inputs: the rows.
            request_id: of the prediction, where that of the order was given.
            queued: how it waits.

        Returns:
            None where there was none, or its order means something else by now; the place is then
            still held.

        Raises:
            DubitoError: as above.
        """
        held = self.library.at_hand(model, reference)
        planned = None if held is None else held.kept.get((reference, key))
        if held is None or not isinstance(planned, PlannedPrediction):
            return None
        if not planned.asked.is_of(held):
            return None
        network, order = planned.asked.network, planned.order

        def task(reservation: Reservation) -> Measured:
            return planned.task(self._bounds.read(network, inputs, order), request_id, reservation)

        return self._queue(order, task, queued)

    def _keep(self, key: Hashable, planned: PlannedPrediction) -> None:
        order = planned.order
        held = self.library.at_hand(order.model, order.version)
        if held is not None and planned.asked.is_of(held):
            if len(held.kept) >= _MOST_KEPT:
                held.kept.clear()
            held.kept[order.version, key] = planned

    def _takes_no_time(self, asked: Resolved) -> bool:
        """Whether nothing has to be read or found out for an order, nor rows to be made."""
        manifest, fact = asked.network.manifest, asked.calibration
        if manifest.channel_axis is not None or manifest.preprocess is not None:
            return False
        return fact is None or self.calibrations.known(fact) is not None

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
        planned = self._planned(order, asked)
        seen = None if planned.calibration is None else planned.calibration.seen
        read = self._bounds.read(asked.network, order.inputs, order, _ids(order), seen)
        choice = None
        if order.method == "auto":
            asked, choice = self._resolver.chosen(order, asked, read.num_rows)
            planned = self._planned(order, asked)
        ids = _ids_of(order, read)
        return planned.task(read, order.request_id, reservation, ids=ids, choice=choice)

    def _planned(self, order: PredictOrder, asked: Resolved) -> PlannedPrediction:
        fact = asked.calibration
        calibration = None if fact is None else self.calibrations.of(fact)
        parts = PredictionParts(self.library, self.monitoring, self.telemetry, self.settings)
        return PlannedPrediction(order, asked, calibration, parts)

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
