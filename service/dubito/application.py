"""The facade: everything that routes and the command line do, free of HTTP.

Flow of a prediction: order → sampling and bounds → version → engine → inputs checked → a place in
the queue → the worker runs the engine → columns with the calibration → reply.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from dubito.acquisition import ArrayPool
from dubito.asked import (
    CalibrateOrder,
    CalibrateReply,
    EvaluateOrder,
    EvaluateReply,
    Health,
    PredictOrder,
    PredictReply,
)
from dubito.calibration.cache import Calibrations
from dubito.engine import Sampling
from dubito.engine.network import Network, num_values
from dubito.jobs import Desk, Runner
from dubito.models.library import Library
from dubito.models.members import (
    find_members,
    predictor,
)
from dubito.models.opening import open_database, open_objects
from dubito.models.pins import Pins
from dubito.monitoring.monitor import Monitoring
from dubito.monitoring.recorder import Observation
from dubito.pools import Shelf
from dubito.registry import CalibrationFact, Registry, VersionFact
from dubito.registry.jobs import JobStore
from dubito.registry.monitoring import CalibrationName
from dubito.registry.pools import PoolStore
from dubito.serving.bounds import Bounds, check_share, check_values
from dubito.serving.budget import Budget
from dubito.serving.labelled import (
    calibrate,
    check_evaluated,
    check_sampling,
    evaluate,
    terms_of,
)
from dubito.serving.outputs import build_outputs, check_outputs
from dubito.serving.sampling import merge_sampling
from dubito.serving.selecting import SelectOrder, SelectReply, begin
from dubito.serving.worker import Check, Job, Reservation, Worker
from dubito.settings import Settings


@dataclass(frozen=True)
class _Head:
    """What a prediction was made with."""

    version: VersionFact
    members: tuple[int, ...] | None
    sampling: Sampling
    fact: CalibrationFact | None


class Application:
    """The library of models and the device worker behind one door.

    Args:
        settings: where the state lies, and the bounds.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        database, objects = open_database(settings), open_objects(settings)
        self._registry = Registry(database, objects)
        self._library = Library(self._registry, settings)
        self._calibrations = Calibrations()
        self._monitoring = Monitoring(self._registry, self._library, self._calibrations, settings)
        self._pins = Pins(self._library, settings.pinned_models)
        self._worker = Worker(settings.max_queued_work)
        self._bounds = Bounds(settings)
        self._bodies = Budget("bytes of bodies", settings.max_pending_bytes)
        self.pools = Shelf(PoolStore(database, objects), settings)
        self.jobs = Desk(JobStore(database), objects, self._library, self.pools, settings)
        self.runner = Runner(self.jobs, self._library, self.pools, self._worker, settings)

    def start(self) -> None:
        """Start the device worker."""
        self._worker.start()

    def serve(self) -> None:
        """Start as a server: follow what others change, and keep loaded what is pinned."""
        self._library.facts.start()
        self._monitoring.start()
        self.start()
        self._pins.start()
        self.runner.start()

    def close(self) -> None:
        """Finish what waits, leave the jobs for later, then close everything."""
        self.runner.close()
        self._worker.close(self._settings.drain_timeout_ms / 1000)
        self._monitoring.close()
        self._pins.close()
        self._library.facts.close()
        self._registry.close()

    @contextmanager
    def running(self) -> Iterator[Application]:
        """Started on entry, closed on exit."""
        self.start()
        try:
            yield self
        finally:
            self.close()

    @property
    def library(self) -> Library:
        """The models, and which of them are loaded."""
        return self._library

    @property
    def monitoring(self) -> Monitoring:
        """What is kept of predictions, their outcomes, and the alarms."""
        return self._monitoring

    @property
    def worker(self) -> Worker:
        """The thread that owns the device."""
        return self._worker

    def reserve(self) -> Reservation:
        """A first place in the queue, before a body is read; it grows when its size is known.

        Raises:
            QueueFullError: nothing is free.
            UnavailableError: the server drains.
        """
        return self._worker.reserve(1)

    @contextmanager
    def admitted(self, body_bytes: int) -> Iterator[Reservation]:
        """A place for a request, and room for its body, both given back at the end.

        Args:
            body_bytes: length of the body, or the limit where it does not say.

        Raises:
            QueueFullError: nothing is free.
            UnavailableError: the server drains.
        """
        place = self.reserve()
        try:
            with self._bodies.holding(body_bytes):
                yield place
        finally:
            place.release()

    def predict(
        self,
        order: PredictOrder,
        *,
        reservation: Reservation | None = None,
        deadline_s: float | None = None,
    ) -> Job[PredictReply]:
        """Check a prediction and queue it.

        Args:
            order: what is asked.
            reservation: a place that the caller holds; it is given back in every case.
            deadline_s: time on the clock of `time.monotonic` after which it is not run.

        Raises:
            DubitoError: of the class that names the reason.
        """
        with self._place(reservation) as place:
            version = self._library.version(order.model, order.version)
            sampling = self._sampling(order, version)
            check_share("coverage", order.coverage)
            members = find_members(self._library, order.model, order.sampling.members)
            engine = predictor(self._library, version, members)
            check_outputs(order.outputs, engine.manifest, sampling)
            inputs, rows = self._bounds.read(engine, order.inputs)
            if order.outputs and "samples" in order.outputs:
                limit = self._settings.max_sample_values
                check_values(num_values(engine, sampling, rows, inputs), limit)
            place.resize(rows * sampling.passes * len(engine.members))
            is_raw = order.calibration == "none"
            fact = None if is_raw else self._library.active_calibration(version)
            head = _Head(version, tuple(one.number for one in members) or None, sampling, fact)

            def task(check: Check) -> PredictReply:
                return self._run_predict(order, head, engine, inputs, check)

            return self._worker.submit(place, task, deadline_s=deadline_s)

    def calibrate(
        self,
        order: CalibrateOrder,
        *,
        reservation: Reservation | None = None,
        deadline_s: float | None = None,
    ) -> Job[CalibrateReply]:
        """Check labelled rows and queue the fit; it is stored, and active unless worse than none.

        Args:
            order: what is asked.
            reservation: a place that the caller holds; it is given back in every case.
            deadline_s: time on the clock of `time.monotonic` after which it is not run.

        Raises:
            DubitoError: of the class that names the reason.
        """
        with self._place(reservation) as place:
            version = self._library.version(order.model, order.version)
            sampling = self._sampling(order, version)
            check_sampling(sampling)
            check_share("alpha", order.alpha)
            check_share("coverage", order.coverage)
            engine = self._library.engine(version)
            terms = terms_of(order, sampling, engine.manifest)
            rows = self._bounds.read_labelled(order, engine, sampling, place)

            def task(check: Check) -> CalibrateReply:
                limit = self._settings.max_calibration_values
                record = calibrate(engine, rows, terms, check, limit)
                check()
                fact = self._library.add_calibration(version, record, actor=order.actor)
                return CalibrateReply(version.model, version.number, fact.number, record)

            return self._worker.submit(place, task, deadline_s=deadline_s)

    def evaluate(
        self,
        order: EvaluateOrder,
        *,
        reservation: Reservation | None = None,
        deadline_s: float | None = None,
    ) -> Job[EvaluateReply]:
        """Check labelled rows and queue their report; nothing is changed.

        Args:
            order: what is asked.
            reservation: a place that the caller holds; it is given back in every case.
            deadline_s: time on the clock of `time.monotonic` after which it is not run.

        Raises:
            DubitoError: of the class that names the reason.
        """
        with self._place(reservation) as place:
            version = self._library.version(order.model, order.version)
            sampling = self._sampling(order, version)
            check_evaluated(sampling)
            check_share("coverage", order.coverage)
            members = find_members(self._library, order.model, order.sampling.members)
            engine = predictor(self._library, version, members)
            rows = self._bounds.read_labelled(order, engine, sampling, place)
            is_raw = order.calibration == "none"
            fact = None if is_raw else self._library.active_calibration(version)

            def task(check: Check) -> EvaluateReply:
                calibration = None if fact is None else self._calibrations.of(fact)
                limit = self._settings.max_calibration_values
                judged = evaluate(engine, rows, order, sampling, calibration, check, limit)
                return EvaluateReply(
                    model=version.model,
                    version=version.number,
                    members=tuple(one.number for one in members) or None,
                    sampling=sampling,
                    calibration=fact.number if fact is not None and judged.is_calibrated else None,
                    num_rows=len(rows.truths),
                    coverage=judged.coverage,
                    evaluation=judged.evaluation,
                    raw=judged.raw,
                    warnings=judged.warnings,
                )

            return self._worker.submit(place, task, deadline_s=deadline_s)

    def select(
        self,
        order: SelectOrder,
        *,
        reservation: Reservation | None = None,
        deadline_s: float | None = None,
    ) -> Job[SelectReply]:
        """Check what is to be chosen from a pool, and queue the search.

        Args:
            order: what is asked.
            reservation: a place that the caller holds; it is given back in every case.
            deadline_s: time on the clock of `time.monotonic` after which it is not run.

        Raises:
            DubitoError: of the class that names the reason.
        """
        with self._place(reservation) as place:
            version = self._library.version(order.model, order.version)
            sampling = self._sampling(order, version)
            members = find_members(self._library, order.model, order.sampling.members)
            engine = predictor(self._library, version, members)
            inputs, rows = self._bounds.read(engine, order.inputs)
            search = begin(order, engine, sampling, rows, self._settings.max_calibration_values)
            place.resize(max(1, search.work) * sampling.passes * len(engine.members))
            numbers = tuple(one.number for one in members) or None

            def task(check: Check) -> SelectReply:
                choice = search.run(ArrayPool(inputs), check)
                return SelectReply(version.model, version.number, numbers, search.sampling, choice)

            return self._worker.submit(place, task, deadline_s=deadline_s)

    def is_live(self) -> bool:
        """Whether the device worker beats."""
        limit_s = self._settings.heartbeat_limit_ms / 1000
        return self._worker.is_running and self._worker.heartbeat_age_s < limit_s

    def health(self) -> Health:
        """The state of the worker and of every loaded version."""
        is_live, is_draining = self.is_live(), self._worker.is_draining
        return Health(
            is_live=is_live,
            is_ready=is_live and not is_draining and self._pins.are_loaded,
            is_draining=is_draining,
            heartbeat_age_s=self._worker.heartbeat_age_s,
            lines=self._pins.lines(),
        )

    def _run_predict(
        self,
        order: PredictOrder,
        head: _Head,
        engine: Network,
        inputs: dict[str, Tensor],
        check: Check,
    ) -> PredictReply:
        version, sampling, fact = head.version, head.sampling, head.fact
        calibration = None if fact is None else self._calibrations.of(fact)
        values = num_values(engine, sampling, len(next(iter(inputs.values()))), inputs)
        built = build_outputs(
            order,
            engine,
            inputs,
            sampling,
            calibration,
            check,
            may_keep_samples=values <= self._settings.max_sample_values,
        )
        if built.varies is not None:
            self._library.catalogue.note_variation(version.digest, built.varies)
        if fact is not None and calibration is not None and built.kept is not None:
            name = CalibrationName(version.model, version.number, fact.number)
            self._monitoring.observe(
                Observation(name, calibration, order.request_id or "", built.kept)
            )
        return PredictReply(
            model=version.model,
            version=version.number,
            members=head.members,
            sampling=sampling,
            calibration=fact.number if fact is not None and built.calibration is not None else None,
            warnings=built.warnings,
            outputs=built.outputs,
            classes=engine.manifest.classes,
        )

    @contextmanager
    def _place(self, reservation: Reservation | None) -> Iterator[Reservation]:
        """A place that is given back if what follows fails; else the worker does it."""
        place = self.reserve() if reservation is None else reservation
        try:
            yield place
        except BaseException:
            place.release()
            raise

    def _sampling(
        self,
        order: PredictOrder | CalibrateOrder | EvaluateOrder | SelectOrder,
        version: VersionFact,
    ) -> Sampling:
        return merge_sampling(
            order.sampling, version.defaults, max_num_samples=self._settings.max_num_samples
        )
