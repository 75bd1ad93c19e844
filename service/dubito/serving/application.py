"""The facade: everything that routes and the command line do, free of HTTP.

Flow of a prediction: order → sampling and bounds → version → engine → inputs checked → a place in
the queue → the worker runs the engine → columns with the calibration → reply.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from dubito.engine import Inputs, Sampling
from dubito.errors import InputError
from dubito.registry import CalibrationFact, VersionFact
from dubito.serving.budget import Budget
from dubito.serving.calibrating import (
    Passes,
    check_sampling,
    fit,
    flagging_of,
    read_truths,
    takes_features,
    target_of,
)
from dubito.serving.calibrations import Calibrations
from dubito.serving.library import Library
from dubito.serving.members import (
    Predictor,
    count_networks,
    find_members,
    num_values,
    predictor,
)
from dubito.serving.opening import open_registry
from dubito.serving.orders import (
    CalibrateOrder,
    CalibrateReply,
    Health,
    PredictOrder,
    PredictReply,
)
from dubito.serving.outputs import build_outputs, check_outputs
from dubito.serving.pins import Pins
from dubito.serving.sampling import merge_sampling
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
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self._registry = open_registry(settings)
        self._library = Library(self._registry, settings)
        self._pins = Pins(self._library, settings.pinned_models)
        self._worker = Worker(settings.max_queued_work)
        self._calibrations = Calibrations()
        self._bodies = Budget("bytes of bodies", settings.max_pending_bytes)

    def start(self) -> None:
        """Start the device worker."""
        self._worker.start()

    def serve(self) -> None:
        """Start as a server: follow what others change, and keep loaded what is pinned."""
        self._library.facts.start()
        self.start()
        self._pins.start()

    def close(self) -> None:
        """Finish what waits, then close everything."""
        self._worker.close(self._settings.drain_timeout_ms / 1000)
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
            _check_share("coverage", order.coverage)
            members = find_members(self._library, order.model, order.sampling.members)
            engine = predictor(self._library, version, members)
            check_outputs(order.outputs, engine.manifest.task, sampling)
            inputs, rows = self._read(engine, order.inputs)
            if order.outputs and "samples" in order.outputs:
                limit = self._settings.max_sample_values
                self._check_values(num_values(rows, engine, sampling), limit)
            place.resize(rows * sampling.passes * count_networks(engine))
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
        """Check labelled rows and queue the fit; its result is stored and made active.

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
            _check_share("alpha", order.alpha)
            _check_share("coverage", order.coverage)
            engine = self._library.engine(version)
            inputs, rows = self._read(engine, order.inputs)
            truths = read_truths(order, engine.manifest, rows)
            flagging_of(order, engine.manifest.task)
            target_of(order, engine.manifest.task)
            ood_inputs: dict[str, Tensor] | None = None
            if order.ood_inputs is not None:
                ood_inputs, ood_rows = self._read(engine, order.ood_inputs)
                rows += ood_rows
            limit = self._settings.max_calibration_values
            self._check_values(num_values(rows, engine, sampling), limit)
            place.resize(rows * sampling.passes)

            def task(check: Check) -> CalibrateReply:
                with_features = takes_features(order, engine, inputs, rows, limit)
                taken = Passes.take(
                    engine, inputs, ood_inputs, sampling, check, with_features=with_features
                )
                document = fit(taken, truths, order, sampling).to_json()
                check()
                fact = self._library.add_calibration(version, document, actor=order.actor)
                return CalibrateReply(version.model, version.number, fact.number, document)

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
        engine: Predictor,
        inputs: dict[str, Tensor],
        check: Check,
    ) -> PredictReply:
        version, sampling, fact = head.version, head.sampling, head.fact
        calibration = None if fact is None else self._calibrations.of(fact)
        values = num_values(len(next(iter(inputs.values()))), engine, sampling)
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
        return PredictReply(
            model=version.model,
            version=version.number,
            members=head.members,
            sampling=sampling,
            calibration=fact.number if fact is not None and built.calibration is not None else None,
            warnings=built.warnings,
            outputs=built.outputs,
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

    def _sampling(self, order: PredictOrder | CalibrateOrder, version: VersionFact) -> Sampling:
        return merge_sampling(
            order.sampling, version.defaults, max_num_samples=self._settings.max_num_samples
        )

    def _read(self, engine: Predictor, given: Inputs) -> tuple[dict[str, Tensor], int]:
        for rows in given.values() if isinstance(given, Mapping) else [given]:
            if isinstance(rows, Sequence):  # counted before millions of lists become an array
                self._check_rows(len(rows))
        inputs = engine.read_inputs(given)
        num_rows = len(next(iter(inputs.values())))
        self._check_rows(num_rows)
        return inputs, num_rows

    def _check_rows(self, rows: int) -> None:
        if rows > self._settings.max_rows:
            raise InputError(
                f"`inputs` expects at most {self._settings.max_rows} rows, got {rows}: "
                "send them in several requests"
            )

    def _check_values(self, values: int, limit: int) -> None:
        if values > limit:
            raise InputError(
                f"passes x rows x outputs: expected at most {limit} numbers, got {values}: "
                "send fewer rows or ask for fewer samples"
            )


def _check_share(name: str, value: float | None) -> None:
    if value is not None and not 0.0 < value < 1.0:
        raise InputError(f"`{name}` expects a number between 0 and 1, got {value}: such as 0.9")
